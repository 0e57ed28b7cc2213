-- Takes away what only the gate may say:
--
--     http-request lua.tailchat-strip
--
-- Asks the gate at /oauth2/auth whether a request may pass:
--
--     http-request lua.tailchat-gate <address of the gate>
--
-- It asks by the request's Host, path and method as they are at that point of the configuration.
-- Where the gate says yes, txn.tailchat_may is true, the identity headers are on the request, what
-- it leaves of Authorization too, and txn.tailchat_cookie is the cookie of a session that was renewed, if it was. Otherwise, whatever
-- goes wrong, txn.tailchat_may is false.

-- What a visitor cannot say: fields that servers read as the path, the method, the person or the
-- address (docs/headers.md); "*" stands for any end.
local DROPPED = {
    "x-tailchat-*",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "forwarded",
    "x-request-id",
    "script-name",
    "path-info",
    "path-translated",
    "request-uri",
    "x-script-*",
    "x-path-info",
    "x-original-*",
    "x-rewrite-*",
    "x-request-uri",
    "x-replaced-path",
    "x-envoy-*",
    "x-ingress-path",
    "x-rstudio-*",
    "x-waws-unencoded-url",
    "x-matched-path",
    "x-invoke-*",
    "x-now-route-matches",
    "x-middleware-*",
    "remote-*",
    "x-remote-*",
    "x-webauth-*",
    "x-auth-request-*",
    "x-auth-user*",
    "x-auth-email",
    "x-auth-name",
    "x-auth-groups",
    "x-auth-roles",
    "x-auth-subject",
    "x-authenticated-*",
    "x-authentik-*",
    "x-authelia-*",
    "x-pomerium-*",
    "x-vouch-*",
    "x-consumer-*",
    "x-anonymous-consumer",
    "x-credential-*",
    "x-sso-*",
    "x-proxied-*",
    "x-user",
    "x-username",
    "x-user-name",
    "x-user-email",
    "x-user-groups",
    "x-user-roles",
    "x-roles",
    "x-groups",
    "x-userinfo",
    "x-id-token",
    "x-jwt-assertion",
    "x-jwt-payload",
    "x-endpoint-api-userinfo",
    "x-apigateway-api-userinfo",
    "x-goog-authenticated-user-*",
    "x-goog-iap-*",
    "x-ms-client-principal*",
    "x-ms-token-*",
    "x-amzn-oidc-*",
    "x-appengine-*",
    "cf-access-*",
    "tailscale-*",
    "teleport-jwt-assertion",
    "ynh-user*",
    "cas-user",
    "auth-user",
    "auth-mail",
    "auth-groups",
    "auth-name",
    "auth-cn",
    "auth-type",
    "logon-user",
    "php-auth-*",
    "sm-user*",
    "sm-universalid",
    "iv-*",
    "oam-*",
    "oidc-*",
    "mellon-*",
    "shib-*",
    "x-shib-*",
    "eppn",
    "ssl-*",
    "x-ssl-*",
    "x-tls-*",
    "tls-client-*",
    "client-cert*",
    "x-client-cert*",
    "x-client-dn",
    "x-client-verify",
    "x-arr-clientcert",
    "x-amzn-mtls-*",
    "x-forward*",
    "forwarded-*",
    "x-real-*",
    "client-ip",
    "x-client-ip",
    "x-client-addr",
    "x-clientip",
    "true-client-ip",
    "x-true-client-ip",
    "x-cluster-client-ip",
    "fastly-client-ip",
    "fastly-ssl",
    "fly-client-ip",
    "cf-connecting-*",
    "cf-pseudo-ipv4",
    "cf-visitor",
    "x-azure-clientip",
    "x-azure-socketip",
    "x-originating-ip",
    "proxy-client-ip",
    "wl-proxy-*",
    "http-client-ip",
    "http-x-forward*",
    "http-forwarded*",
    "x-host",
    "x-http-host-override",
    "x-proxy*",
    "x-scheme",
    "x-url-scheme",
    "front-end-https",
    "x-https",
    "https",
    "x-arr-ssl",
    "x-outside-url",
    "proxy",
    "x-sendfile*",
    "x-accel-*",
}
-- What the question does not have of the request: what is of the connection, and of a body.
local UNASKED = {
    ["connection"] = true, ["content-length"] = true, ["expect"] = true, ["keep-alive"] = true,
    ["proxy-connection"] = true, ["te"] = true, ["transfer-encoding"] = true, ["upgrade"] = true,
}
-- A machine's token has a field to come in: the gate gets it, the tool a name from the answer.
local TOKEN = "x-tailchat-token"
-- What goes from the answer to the tool; add what a route sets with `headers`. The visitor's
-- credentials for the tool are in it as well, without a machine's token.
local TOLD = {
    "authorization",
    "x-tailchat-sub", "x-tailchat-nickname", "x-tailchat-discriminator", "x-tailchat-avatar",
    "x-tailchat-groups", "x-tailchat-email", TOKEN, "x-tailchat-assertion",
}
-- In milliseconds.
local PATIENCE = 5000

-- HAProxy counts values from 0, Lua and its HTTP client from 1.
local function listed(values)
    local found = {}
    for index = 0, #values do
        found[index + 1] = values[index]
    end
    return found
end

-- All that the tool gets is asked with: the gate judges by several fields.
local function question(txn)
    local fields = {}
    for name, values in pairs(txn.http:req_get_headers()) do
        if not UNASKED[name] then
            fields[name] = listed(values)
        end
    end
    fields["x-forwarded-method"] = { txn.f:method() }
    fields["x-forwarded-uri"] = { txn.f:pathq() }
    return fields
end

local function is_dropped(name)
    -- CGI, WSGI and PHP take "X_Tailchat_Sub" for the same name, and so on with every odd byte.
    if name:find("[^a-z0-9-]") then
        return true
    end
    for _, pattern in ipairs(DROPPED) do
        local start = pattern:match("^(.*)%*$")
        if name == pattern or (start and name:sub(1, #start) == start) then
            return true
        end
    end
    return false
end

local function pass(txn, answer)
    for _, name in ipairs(TOLD) do
        local values = answer.headers[name]
        txn.http:req_del_header(name)
        for _, value in ipairs(values and listed(values) or {}) do
            txn.http:req_add_header(name, value)
        end
    end
    local cookie = answer.headers["set-cookie"]
    if cookie then
        txn:set_var("txn.tailchat_cookie", cookie[0])
    end
end

core.register_action("tailchat-strip", { "http-req" }, function(txn)
    for name, _ in pairs(txn.http:req_get_headers()) do
        if name ~= TOKEN and is_dropped(name) then
            txn.http:req_del_header(name)
        end
    end
end)

core.register_action("tailchat-gate", { "http-req" }, function(txn, gate)
    txn:set_var("txn.tailchat_may", false)
    -- Behind a body in chunks HAProxy would pass fields to the tool that nothing here can look at:
    -- such a request is the gate's to forward.
    if txn.http:req_get_headers()["transfer-encoding"] then
        return
    end
    local answer = core.httpclient():get({
        url = "http://" .. gate .. "/oauth2/auth",
        headers = question(txn),
        timeout = PATIENCE,
    })
    if answer and answer.status == 202 then
        pass(txn, answer)
        txn:set_var("txn.tailchat_may", true)
    end
end, 1)
