package interop
import ("testing";"os/exec")
func TestZZTraefikReal(t *testing.T){
 s:=newSite(t,"caddy","tcp")
 file:=write(t,t.TempDir(),"dynamic.yaml",deployed(t,"traefik/dynamic.yaml","127.0.0.1:8082",s.door,exampleAPI,s.api))
 start(t,"traefik",exec.Command("/tmp/traefik-bin","--global.checknewversion=false","--global.sendanonymoususage=false","--entrypoints.web.address="+s.gateway,"--providers.file.filename="+file,"--log.level=ERROR")).ready(t,patience,answers("http://"+s.gateway+"/",401))
 s.marks = marks{retryAfter: true, gone: 500, hung: 500}
 s.judge(t)
}
