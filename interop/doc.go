// Package interop tests Watchword against the real servers that it works with: the authorization servers oidc-provider
// and Keycloak, and the gateways nginx, Caddy, HAProxy and Envoy, each driven with the configuration files that users
// copy from deploy/. Traefik takes part by recorded requests (testdata/traefik).
//
// The tests build and drive the binary and import the public API only. `setup` installs the servers. A server that is not installed fails its tests: nothing is skipped.
package interop
