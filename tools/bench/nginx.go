package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Two sites that differ in who remembers the answer to the auth request: Watchword, or nginx itself.
const nginxConf = `
daemon off;
USER
worker_processes 1;
pid DIR/nginx.pid;
error_log stderr error;
events { worker_connections 1024; }
http {
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path DIR/temp; proxy_temp_path DIR/temp; fastcgi_temp_path DIR/temp; uwsgi_temp_path DIR/temp; scgi_temp_path DIR/temp;
    proxy_cache_path DIR/cache levels=1:2 keys_zone=auth:64m max_size=4g inactive=1h use_temp_path=off;
    upstream watchword { server unix:DOOR; keepalive 32; keepalive_requests 1000000000; }
    upstream as { server AS; keepalive 32; }
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Content-Length "";
    proxy_pass_request_body off;

    server {
        listen US;
        location / {
            auth_request /.auth;
            auth_request_set $subject $upstream_http_x_auth_subject;
            empty_gif;
        }
        location = /.auth {
            internal;
            proxy_set_header Connection "";
            proxy_set_header Content-Length "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Original-Method $request_method;
            proxy_set_header X-Original-URI $request_uri;
            proxy_set_header X-Original-URL "";
            proxy_set_header X-Forwarded-Method "";
            proxy_set_header X-Forwarded-Uri "";
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_pass http://watchword/;
        }
    }
    server {
        listen ALONE;
        location / {
            auth_request /.auth;
            auth_request_set $subject $upstream_http_x_auth_subject;
            empty_gif;
        }
        location = /.auth {
            internal;
            proxy_cache auth;
            proxy_cache_key $http_authorization;
            proxy_cache_valid 200 1h;
            proxy_pass http://as/vouch;
        }
    }
}
`

// startNginx returns what to measure behind nginx, both sites filled; unix is the door that the first one asks.
func (b *bench) startNginx(ctx context.Context, unix *instance) ([]*target, error) {
	program, err := exec.LookPath("nginx")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/nginx"); err != nil {
			return nil, errors.New("nginx is not installed (interop/setup does that)")
		}
	}
	dir, user := filepath.Join(b.dir, "nginx"), ""
	if os.Getuid() == 0 {
		user = "user root;"
	}
	if err := os.MkdirAll(filepath.Join(dir, "temp"), 0o700); err != nil {
		return nil, err
	}
	with, alone := &server{network: "tcp", address: free()}, &server{network: "tcp", address: free()}
	conf := filepath.Join(dir, "nginx.conf")
	text := strings.NewReplacer("USER", user, "DIR", dir, "DOOR", unix.forwardAuth.address, "server AS", "server "+b.as.addr, "US;", with.address+";", "ALONE", alone.address).Replace(nginxConf)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return nil, err
	}
	c := b.machine.serving(ctx, program, "-e", "stderr", "-p", dir, "-c", conf)
	c.Stderr = os.Stderr
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) } // to the master, which takes the worker along
	if err := c.Start(); err != nil {
		return nil, err
	}
	with.pids, alone.pids = []int{c.Process.Pid, unix.cmd.Process.Pid}, []int{c.Process.Pid}
	b.clean = append(b.clean, func() {
		_ = c.Process.Signal(syscall.SIGTERM)
		_ = c.Wait()
	})
	known := func(stop *atomic.Bool) func(int) draw { return zipf(b.tokens, stop) }
	targets := []*target{
		{name: "nginx with us", to: with, conns: 16, shape: throughNginx, draws: known},
		{name: "nginx alone", to: alone, conns: 16, shape: throughNginx, draws: known},
	}
	for began := time.Now(); time.Since(began) < patience; time.Sleep(time.Millisecond) {
		var up *conn
		if up, err = dial(ctx, with, throughNginx); err == nil {
			up.Close()
			break
		}
	}
	for _, t := range targets {
		if err == nil {
			err = fill(ctx, t.to, t.shape, b.tokens)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("nginx: %w", err)
	}
	return targets, nil
}
