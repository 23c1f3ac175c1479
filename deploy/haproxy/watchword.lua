-- Watchword behind HAProxy (2.6 and later): an action that asks Watchword's forward-auth door about a request.
--
--   global
--     lua-load-per-thread /etc/haproxy/watchword.lua
--   frontend …
--     http-request lua.watchword abns@watchword
--
-- The argument is where to ask: the `watchword` proxy of haproxy.cfg beside this file, which bounds the asking.
-- Accepted: the client's identity headers are replaced by Watchword's, and the request goes on.
-- Refused: Watchword's status, WWW-Authenticate and Retry-After go to the client. No answer: 503. It never lets by.

local PREFIX = "x-auth-"                           -- the identity headers, as in `headers:` of watchword.yaml
local PASS = {"x-request-id", "traceparent"}       -- goes along to Watchword as the client sent it
local KEEP = {"www-authenticate", "retry-after"}   -- goes along to the client of a refused request
local TIMEOUT = 60000                              -- ms; a backstop only: HAProxy would ask four times after it

-- is_identity: does an API read this name as one of the identity headers? Many servers take `_` for `-`.
local function is_identity(name)
  return name:lower():gsub("[_.]", "-"):sub(1, #PREFIX) == PREFIX
end

-- list turns a table of HAProxy's, which counts from 0, into one that counts from 1.
local function list(values)
  local out = {}
  for i = 0, #(values or {}) do
    if values and values[i] then out[#out + 1] = values[i] end
  end
  return out
end

local function question(txn, headers)
  local q = {
    -- every Authorization that came: two are Watchword's to refuse
    ["authorization"] = list(headers["authorization"]),
    ["x-forwarded-method"] = {txn.sf:method()},
    ["x-forwarded-uri"] = {txn.sf:pathq()},
    ["x-forwarded-host"] = {txn.sf:req_fhdr("host")},
    ["x-forwarded-for"] = {txn.sf:src()},
  }
  for _, name in ipairs(PASS) do
    if headers[name] then q[name] = {headers[name][0]} end
  end
  for name, values in pairs(q) do
    if #values == 0 then q[name] = nil end
  end
  return q
end

local function refuse(txn, response)
  local status = tonumber(response.status) or 0
  local reply = {["cache-control"] = {"no-store"}}
  if status >= 400 and status < 600 and status ~= 502 and status ~= 504 then
    for _, name in ipairs(KEEP) do
      local values = list((response.headers or {})[name])
      if #values > 0 then reply[name] = values end
    end
  else
    status = 503 -- nobody answered, or nobody that we know
  end
  if status == 503 and not reply["retry-after"] then reply["retry-after"] = {"1"} end
  txn:set_var("txn.watchword_status", status)
  txn:done(txn:reply{status = status, headers = reply})
end

-- ask returns nil for a request that was accepted, else what to refuse it with.
local function ask(txn, address)
  local headers = txn.http:req_get_headers()
  for name in pairs(headers) do
    if is_identity(name) then txn.http:req_del_header(name) end
  end
  -- The address of the URL is never called, `dst` is; the path goes in a header, for HAProxy logs this URL.
  local response = core.httpclient():head{
    url = "http://127.0.0.1/", dst = address, timeout = TIMEOUT, headers = question(txn, headers),
  }
  if tonumber(response.status) ~= 200 then return response end
  for name, values in pairs(response.headers) do
    if is_identity(name) then txn.http:req_set_header(name, values[0] or "") end
  end
  txn:set_var("txn.watchword_status", 200)
end

core.register_action("watchword", {"http-req"}, function(txn, address)
  local ok, refused = pcall(ask, txn, address)
  if not ok then -- an error that leaves an action would let the request go on
    txn:Alert("watchword.lua: " .. tostring(refused))
    refused = {}
  end
  if refused then refuse(txn, refused) end
end, 1)
