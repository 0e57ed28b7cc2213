"""oauth2-proxy, with its session sealed in a cookie of its own."""

_MAIN = """\
http_address = "127.0.0.1:{port}"
metrics_address = "127.0.0.1:{admin}"
upstreams = ["http://127.0.0.1:{web}/", "http://127.0.0.1:{tool}/upload", "http://127.0.0.1:{tool}/jupyter/"]
provider = "oidc"
oidc_issuer_url = "{provider}"
skip_oidc_discovery = true
login_url = "{provider}/open/auth"
redeem_url = "{provider}/open/token"
oidc_jwks_url = "{provider}/open/jwks"
profile_url = "{provider}/open/me"
provider_ca_files = ["{authority}"]
code_challenge_method = "S256"
scope = "openid profile"
oidc_email_claim = "sub"
email_domains = ["*"]
client_id = "{client}"
client_secret = "{client_secret}"
redirect_url = "{origin}/oauth2/callback"
cookie_secret = "{secret}"
cookie_secure = false
pass_user_headers = true
reverse_proxy = false
standard_logging = true
auth_logging = false
silence_ping_logging = true
request_logging = true
request_logging_format = '{{{{ "{{" }}}}"time":"{{{{.Timestamp}}}}","client":"{{{{.Client}}}}","user":"{{{{.Username}}}}","method":"{{{{.RequestMethod}}}}","host":"{{{{.Host}}}}","uri":{{{{.RequestURI}}}},"status":{{{{.StatusCode}}}},"bytes":{{{{.ResponseSize}}}},"duration":{{{{.RequestDuration}}}},"user_agent":{{{{.UserAgent}}}}}}'
"""  # noqa: E501 - a format is one line


def configuration(**values: object) -> str:
    """The configuration file.

    Values: port, admin (a port), web and tool (ports of the upstreams), origin, provider (its
    origin over TLS), authority (whose certificates are trusted), client, client_secret, secret
    (16, 24 or 32 bytes).
    """
    return _MAIN.format(**values)
