package interop

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Covers: FWD-01 FWD-04 T19 T20 T22 T23
func TestNginx(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, "nginx", network)
			startNginx(t, s, deployed(t, "nginx/watchword.conf",
				example, nginxAddress(s.door), exampleAPI, s.api, exampleGateway, s.gateway))
			s.marks = marks{retryAfter: true, gone: 500, hung: 500}
			s.judge(t)
		})
	}
}

// TestFWD01_NginxNaiveConfigPostDoesNotHang: most configurations in the world pass the client's Content-Length to the
// auth request and no body. Every POST must be answered all the same, on connections kept and closed.
func TestFWD01_NginxNaiveConfigPostDoesNotHang(t *testing.T) {
	t.Parallel()
	const shortest = `
server {
    listen GATEWAY;
    proxy_read_timeout 5s; # a request that hangs becomes 500 or 504 within the test's patience
    location / {
        auth_request /auth;
        proxy_pass http://API;
    }
    location = /auth {
        internal;
        proxy_pass http://watchword/;
        proxy_pass_request_body off;
        proxy_set_header X-Original-URI $request_uri;
        proxy_set_header X-Original-Method $request_method;
        KEEP
    }
}
upstream watchword { server DOOR; keepalive 4; }
`
	kept := `proxy_http_version 1.1; proxy_set_header Connection "";`
	for name, keep := range map[string]string{"closed": "", "kept": kept} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, "nginx", "unix")
			startNginx(t, s, strings.NewReplacer("GATEWAY", s.gateway, "API", s.api, "DOOR", nginxAddress(s.door), "KEEP", keep).
				Replace(shortest))
			ann := s.as.token(t, "ann", forAPI)
			for range 8 { // more than the connections kept
				for _, size := range []int{1, 100 << 10} {
					r := s.ask(t, ask{method: "POST", target: "/orders/1", token: ann, body: strings.Repeat("x", size)})
					if saw := r.accepted(t, "POST"); saw.Bytes != size {
						t.Errorf("of a body of %d bytes the backend got %d", size, saw.Bytes)
					}
					r = s.ask(t, ask{method: "POST", target: "/orders/1", body: strings.Repeat("x", size)})
					r.refused(t, "POST without token", 401)
				}
			}
			// Without our error_page nginx has one word for all of these.
			s.ask(t, ask{target: "/admin", token: ann}).refused(t, "no policy", 403)
			s.ask(t, ask{target: "/orders/..%2fadmin", token: ann}).refused(t, "ambiguous", 403)
			cold := s.as.token(t, "ann", forAPI)
			s.as.stop()
			s.ask(t, ask{target: "/orders/1", token: cold}).refused(t, "the AS dead", 403)
		})
	}
}

func nginxAddress(door string) string {
	if strings.HasPrefix(door, "/") {
		return "unix:" + door
	}
	return door
}

// startNginx runs nginx with an http section that holds only ours.
func startNginx(t *testing.T, s *site, conf string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "temp"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "watchword.conf", conf)
	top := write(t, dir, "nginx.conf", strings.ReplaceAll(`
daemon off;
user root;
worker_processes 1;
pid DIR/nginx.pid;
error_log stderr info;
events { worker_connections 256; }
http {
    access_log off;
    client_max_body_size 10m;
    client_body_temp_path DIR/temp; proxy_temp_path DIR/temp; fastcgi_temp_path DIR/temp;
    uwsgi_temp_path DIR/temp; scgi_temp_path DIR/temp;
    include DIR/watchword.conf;
}
`, "DIR", dir))
	start(t, "nginx", command("nginx", "-e", "stderr", "-p", dir, "-c", top)).ready(t, patience, listens(s.gateway))
}
