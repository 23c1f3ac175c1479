// The authorization server of the interop tests: the npm package oidc-provider as it comes, configured only.
// Prints one JSON line {"issuer": …} when it listens on a free loopback port, and lives until it is killed.
//
// Tokens come by client_credentials. The resource indicator (RFC 8707) chooses their kind:
//   https://jwt.example  a JWT, which this server does not introspect: 400 unsupported_token_type
//   any other            opaque, with that aud
//   none                 opaque, without aud
import { createServer } from 'node:http'

import { Provider } from 'oidc-provider'

const scope = 'orders:read orders:write'

const client = (id, more = {}) => ({
  client_id: id, client_secret: `${id}-secret`, grant_types: [], redirect_uris: [], response_types: [], scope, ...more,
})

const clients = [
  client('service', { grant_types: ['client_credentials'] }), // its tokens have no sub: nobody logged in
  client('ann', { grant_types: ['client_credentials'] }), // its tokens say sub: ann
  client('brief', { grant_types: ['client_credentials'] }), // its tokens live three seconds
  client('canary', { grant_types: ['client_credentials'] }), // Watchword's own
  client('rs'), // the resource server: may introspect
  client('rs-post', { token_endpoint_auth_method: 'client_secret_post' }),
  client('stranger'), // may not: told {"active":false} about every token
  client('public', { client_secret: undefined, token_endpoint_auth_method: 'none' }), // has no secret, and no tokens
]
if (process.env.RS_JWKS) { // the public key of a resource server that signs instead of sending a secret (RFC 7523)
  clients.push(client('rs-key', {
    client_secret: undefined, token_endpoint_auth_method: 'private_key_jwt', jwks: JSON.parse(process.env.RS_JWKS),
  }))
}
if (process.env.ENC_JWKS) { // the public key of a resource server to which answers are encrypted (RFC 9701 §6)
  clients.push(client('rs-enc', {
    jwks: JSON.parse(process.env.ENC_JWKS), introspection_signed_response_alg: 'RS256',
    introspection_encrypted_response_alg: 'RSA-OAEP-256', introspection_encrypted_response_enc: 'A256GCM',
  }))
}

// On SIGUSR2 the server takes its resource servers for strangers, and on the next one it does so no more.
let lies = false
process.on('SIGUSR2', () => { lies = !lies })

const server = createServer()
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`
  const provider = new Provider(issuer, {
    clients,
    scopes: scope.split(' '),
    extraTokenClaims: (ctx, token) => (token.clientId === 'ann' ? { sub: 'ann' } : undefined),
    ttl: { ClientCredentials: (ctx, token) => (token.clientId === 'brief' ? 3 : 300) },
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      introspection: { enabled: true, allowedPolicy: (ctx, caller) => !lies && caller.clientId.startsWith('rs') },
      jwtIntrospection: { enabled: true }, // RFC 9701, for callers that ask for it
      encryption: { enabled: true },
      revocation: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (ctx, resource) => ({
          scope, audience: resource, accessTokenFormat: resource === 'https://jwt.example' ? 'jwt' : 'opaque',
        }),
      },
    },
  })
  server.on('request', provider.callback())
  console.log(JSON.stringify({ issuer }))
})
