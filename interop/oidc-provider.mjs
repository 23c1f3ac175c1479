// The authorization server of the interop tests: the npm package oidc-provider as it comes, configured only.
// Prints one JSON line {"issuer": …} when it listens on a free loopback port, and lives until it is killed.
//
// Tokens come by client_credentials. The resource indicator (RFC 8707) chooses their kind:
//   https://jwt.example  a JWT, which this server does not introspect: 400 unsupported_token_type
//   any other            opaque, with that aud
//   none                 opaque, without aud
// Or by the authorization code flow, where everybody who comes is ann, and has consented: this server ends the session,
// and tells the clients that have a backchannel_logout_uri.
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

if (process.env.LOGOUT_URI) { // where the end of a session is announced: by its sid, or by its subject only
  for (const [id, session] of [['app', true], ['app-sub', false]]) {
    clients.push(client(id, {
      grant_types: ['authorization_code'], response_types: ['code'], redirect_uris: ['http://127.0.0.1/callback'], scope: 'openid',
      backchannel_logout_uri: `${process.env.LOGOUT_URI}/${id}`, backchannel_logout_session_required: session,
    }))
  }
}

// On SIGUSR2 the server takes its resource servers for strangers, and on the next one it does so no more.
let lies = false
process.on('SIGUSR2', () => { lies = !lies })

const server = createServer()
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`
  const provider = new Provider(issuer, {
    clients,
    scopes: ['openid', ...scope.split(' ')],
    extraTokenClaims: (ctx, token) => (token.clientId === 'ann' ? { sub: 'ann' } : undefined),
    findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    loadExistingGrant: async (ctx) => {
      const grant = new ctx.oidc.provider.Grant({ accountId: ctx.oidc.session.accountId, clientId: ctx.oidc.client.clientId })
      grant.addOIDCScope('openid')
      await grant.save()
      return grant
    },
    fetch: (url, { dispatcher, ...options }) => fetch(url, options), // the one that comes refuses loopback
    ttl: { ClientCredentials: (ctx, token) => (token.clientId === 'brief' ? 3 : 300) },
    features: {
      backchannelLogout: { enabled: true },
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
  const callback = provider.callback()
  server.on('request', (req, res) => {
    if (!req.url.startsWith('/interaction/')) return callback(req, res)
    provider.interactionFinished(req, res, { login: { accountId: 'ann' } }).catch((e) => { res.statusCode = 500; res.end(e.message) })
  })
  console.log(JSON.stringify({ issuer }))
})
