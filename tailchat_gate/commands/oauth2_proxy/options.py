"""The counterpart of each option of oauth2-proxy 7.15's configuration file."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple


class Option(NamedTuple):
    """The counterpart of an option: `key` of the gate, "" for none.

    The command prints `remark`, if there is one, when the file has the option.
    """

    key: str
    remark: str = ""


_PROVIDER: Final = Option("", "Tailchat is the provider; the gate knows its addresses")
_TAILCHAT_KEY: Final = Option("", "the gate reads the keys of the configured Tailchat alone")
_PEOPLE: Final = Option(
    "groups",
    "an e-mail address or a group of another provider authorises nothing here: list people by "
    "their ID, or a group or role of Tailchat, in [groups]",
)
_COOKIE: Final = Option("", "the gate's cookies always have the strict form of this")
_LOGIN_COOKIE: Final = Option("", "each browser has its own cookies of sign-ins, at most 20")
_NO_LOG_FORMAT: Final = Option("log.format", "lines are JSON, or text for people")
_NO_LOG_FILE: Final = Option(
    "log.access_file", "logrotate or the service manager rotates, compresses and deletes"
)
_MACHINES: Final = Option("token", "machines get a token: tailchat-gate token NAME")
_REDIS: Final = Option("state.url", "sessions are in encrypted cookies; several gates need Redis")
_AS_ASKED: Final = Option("", "the gate tells pages from fetches by what the browser says")
_TEXTS: Final = Option("pages.texts", "texts can be replaced one by one, in each language")
_SCOPE: Final = Option("tailchat.scope", "the default is right for Tailchat")

#: By the name in the file.
OPTIONS: Final[Mapping[str, Option]] = MappingProxyType(
    {
        # Where it listens, and what is in front.
        "http_address": Option("server.listen"),
        "https_address": Option("server.https_listen"),
        "tls_cert_file": Option("server.tls.certificate"),
        "tls_key_file": Option("server.tls.key"),
        "tls_min_version": Option("", "the gate speaks TLS 1.2 and up"),
        "tls_cipher_suites": Option("", "the gate uses OpenSSL's own choice"),
        "force_https": Option(
            "server.redirect_listen", "an http listener that only redirects is a key of its own"
        ),
        "reverse_proxy": Option(
            "server.trusted_proxies",
            "the gate believes X-Forwarded-* only of the addresses in server.trusted_proxies",
        ),
        "trusted_proxy_ips": Option("server.trusted_proxies"),
        "real_client_ip_header": Option(
            "server.trusted_proxies", "of a trusted proxy the gate reads X-Forwarded-For"
        ),
        "redirect_url": Option("server.public_url"),
        "relative_redirect_url": Option("", "the callback is one address: public_url + prefix"),
        "proxy_prefix": Option("server.prefix"),
        "ping_path": Option("", "/ping answers on public_url's host, /healthz on admin_listen"),
        "ping_user_agent": Option("", "probes ask /healthz on admin_listen"),
        "ready_path": Option("", "/readyz answers on admin_listen"),
        "gcp_healthchecks": Option("", "probes ask /healthz on admin_listen"),
        "metrics_address": Option(
            "server.admin_listen",
            "it has refusals and orders, too, so it listens on this machine alone",
        ),
        "metrics_secure_address": Option("", "admin_listen has no TLS: keep it on the machine"),
        "metrics_tls_cert_file": Option("", "admin_listen has no TLS: keep it on the machine"),
        "metrics_tls_key_file": Option("", "admin_listen has no TLS: keep it on the machine"),
        # The tools.
        "upstreams": Option("route"),
        "upstream_timeout": Option("route.response_timeout"),
        "pass_host_header": Option("route.upstream_host"),
        "proxy_websockets": Option("route.upgrades"),
        "disable_keep_alives": Option("route.upstream_keepalive"),
        "flush_interval": Option("", "the gate passes every byte on as it comes"),
        "ssl_upstream_insecure_skip_verify": Option(
            "route.tls_pin", "a certificate is always verified: by tls_ca, or by its key in tls_pin"
        ),
        "allow_query_semicolons": Option("", "the gate does not touch the query"),
        "pass_user_headers": Option("route.headers"),
        "set_xauthrequest": Option(
            "", "in forward-auth the response has X-Tailchat-Sub and the others of docs/headers.md"
        ),
        "prefer_email_to_user": Option("route.headers", "{sub} names a person for good"),
        "pass_basic_auth": Option(
            "route.headers", "give the tool a header with the ID of the person"
        ),
        "set_basic_auth": Option(
            "route.headers", "give the tool a header with the ID of the person"
        ),
        "basic_auth_password": Option(
            "route.headers", "give the tool a header with the ID of the person"
        ),
        "pass_access_token": Option("", "Tailchat's token stays in the gate"),
        "pass_authorization_header": Option(
            "route.assertion", "a signed assertion says who it is, X-Tailchat-Assertion"
        ),
        "set_authorization_header": Option(
            "route.assertion", "a signed assertion says who it is, X-Tailchat-Assertion"
        ),
        "signature_key": Option("route.assertion", "a signed assertion takes its place"),
        "request_id_header": Option("", "tools get the gate's X-Request-Id"),
        "auth_request_response_mode": _PROVIDER,
        # Who may.
        "email_domains": Option("route.allow"),
        "authenticated_emails_file": _PEOPLE,
        "allowed_groups": _PEOPLE,
        "allowed_roles": _PEOPLE,
        "skip_auth_routes": Option("route.allow"),
        "skip_auth_regex": Option("route.allow"),
        "skip_auth_preflight": Option("route.preflight"),
        "skip_auth_strip_headers": Option("", "the gate always removes such headers"),
        "trusted_ips": Option("token", "an address opens nothing: give the machine a token"),
        "api_routes": _AS_ASKED,
        "force_json_errors": _AS_ASKED,
        "whitelist_domains": Option("route.host", "a sign-in leads to the hosts of routes only"),
        "htpasswd_file": _MACHINES,
        "htpasswd_user_groups": _MACHINES,
        "display_htpasswd_form": _MACHINES,
        "skip_jwt_bearer_tokens": _MACHINES,
        "extra_jwt_issuers": _MACHINES,
        "bearer_token_login_fallback": _MACHINES,
        # The session.
        "cookie_secret": Option("session.secret", "make a new one: tailchat-gate secret"),
        "cookie_secret_file": Option("session.secret_file", "make a new one: tailchat-gate secret"),
        "cookie_name": Option("", "the cookie has another name, so people sign in once more"),
        "cookie_expire": Option("session.lifetime"),
        "cookie_refresh": Option("session.recheck"),
        "cookie_domains": Option("route.host", "each host has its own cookie, by one sign-in"),
        "cookie_path": _COOKIE,
        "cookie_secure": _COOKIE,
        "cookie_httponly": _COOKIE,
        "cookie_samesite": _COOKIE,
        "cookie_csrf_per_request": _LOGIN_COOKIE,
        "cookie_csrf_per_request_limit": _LOGIN_COOKIE,
        "cookie_csrf_expire": _LOGIN_COOKIE,
        "cookie_csrf_samesite": _LOGIN_COOKIE,
        "encode_state": Option("", "the state is always encrypted"),
        "session_cookie_minimal": Option(
            "session.store", "the cookie has Tailchat's tokens only with session.recheck"
        ),
        "session_store_type": Option("session.store", "the store is state.path or state.url"),
        **dict.fromkeys(
            (
                *("redis_connection_url", "redis_username", "redis_ca_path"),
                *("redis_use_sentinel", "redis_sentinel_master_name"),
                *("redis_sentinel_connection_urls", "redis_use_cluster"),
                *("redis_cluster_connection_urls", "redis_insecure_skip_tls_verify"),
                "redis_connection_idle_timeout",
            ),
            _REDIS,
        ),
        "redis_password": Option("state.password_file", _REDIS.remark),
        "redis_sentinel_password": Option("state.sentinel_password_file", _REDIS.remark),
        # The provider.
        "client_id": Option("tailchat.client_id", "the App ID of an app in Tailchat"),
        "client_secret": Option("tailchat.client_secret", "the App Secret of that app"),
        "client_secret_file": Option("tailchat.client_secret_file", "the App Secret of that app"),
        "scope": _SCOPE,
        "provider_ca_files": Option("tailchat.ca_file"),
        "use_system_trust_store": Option("tailchat.ca_file", "without ca_file the system's count"),
        "ssl_insecure_skip_verify": Option(
            "tailchat.ca_file", "Tailchat's certificate is always verified"
        ),
        "backend_logout_url": Option("", "a sign-out ends the session in the gate"),
        "skip_provider_button": Option(
            "pages.sign_in", 'people go straight to Tailchat unless pages.sign_in is "page"'
        ),
        **dict.fromkeys(
            (
                *("provider", "provider_display_name", "oidc_issuer_url", "login_url"),
                *("redeem_url", "profile_url", "validate_url", "oidc_jwks_url", "resource"),
                *("prompt", "approval_prompt", "acr_values", "code_challenge_method"),
                *("force_code_challenge_method", "skip_oidc_discovery", "jwt_key", "jwt_key_file"),
                *("pubjwk_url", "skip_claims_from_profile_url", "azure_tenant"),
                *("azure_graph_group_field", "entra_id_federated_token_auth"),
                "google_use_application_default_credentials",
            ),
            _PROVIDER,
        ),
        **dict.fromkeys(
            (
                *("oidc_audience_claims", "oidc_extra_audiences", "oidc_email_claim"),
                *("oidc_groups_claim", "oidc_enabled_signing_algs", "oidc_public_key_files"),
                *("user_id_claim", "insecure_oidc_allow_unverified_email"),
                *("insecure_oidc_skip_issuer_verification", "insecure_oidc_skip_nonce"),
            ),
            _TAILCHAT_KEY,
        ),
        **dict.fromkeys(
            (
                *("entra_id_allowed_tenants", "github_org", "github_team", "github_repo"),
                *("github_token", "github_users", "gitlab_groups", "gitlab_projects"),
                *("google_groups", "google_group", "google_admin_email"),
                *("google_admin_api_user_scope", "google_service_account_json"),
                *("google_target_principal", "google_use_organization_id", "keycloak_groups"),
                *("bitbucket_repository", "bitbucket_team", "bitbucket_workspace"),
            ),
            _PEOPLE,
        ),
        # Pages and logs.
        "banner": _TEXTS,
        "footer": Option("pages.footer", "the pages have links at their foot"),
        "custom_sign_in_logo": Option("pages.logo", "a file, which becomes part of each page"),
        "custom_templates_dir": _TEXTS,
        "show_debug_on_error": Option("", "a page shows a number that finds the line in the log"),
        "request_logging": Option("log.access"),
        "request_logging_format": _NO_LOG_FORMAT,
        "auth_logging": Option("log.audit_file", "sign-ins and refusals are always logged"),
        "auth_logging_format": _NO_LOG_FORMAT,
        "standard_logging": _NO_LOG_FORMAT,
        "standard_logging_format": _NO_LOG_FORMAT,
        "errors_to_info_log": _NO_LOG_FORMAT,
        "exclude_logging_paths": Option("log.access", "every request is in the access log"),
        "silence_ping_logging": Option("log.access", "the admin listener is not in the access log"),
        "logging_filename": _NO_LOG_FILE,
        "logging_compress": _NO_LOG_FILE,
        "logging_local_time": _NO_LOG_FILE,
        "logging_max_age": _NO_LOG_FILE,
        "logging_max_backups": _NO_LOG_FILE,
        "logging_max_size": _NO_LOG_FILE,
    }
)
