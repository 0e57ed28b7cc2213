"""Names of fields: which ones only the gate may set, and which ones tools or proxies obey.

They hold for requests that the gate forwards, and for those that a proxy forwards after
forward-auth. docs/headers.md lists them; docs/adr/0015-request-fields.md has the reasons.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

_ODD: Final = re.compile(rb"[^a-z0-9]")
_PLAIN: Final = re.compile(rb"[A-Za-z0-9-]+")

#: A field that orders to the admin listener must have. A page cannot send it to another origin,
#: because the browser first sends a preflight (Fetch standard), which the gate never allows.
ORDER_HEADER: Final = "X-Tailchat-Gate"

#: Fields of the connection, not of the message (RFC 9110 section 7.6.1).
HOP_BY_HOP: Final = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    )
)

#: Fields that only the gate sets for tools: no setting passes a visitor's own value. A name that
#: ends in "*" stands for all names with that start, here and in CLAIMS.
OWN: Final = (
    *("x-tailchat-*", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"),
    *("x-forwarded-port", "forwarded", "x-request-id"),
)

#: W3C Trace Context: the gate writes these itself; a forward-auth proxy may send them too.
TRACE_CONTEXT: Final = frozenset((b"traceparent", b"tracestate"))

#: Fields that servers, frameworks and tools believe from a proxy in front, by their meaning.
#: Dropped unless a route's `pass_fields` names them.
CLAIMS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "path": (
            *("script-name", "path-info", "path-translated", "request-uri", "x-script-*"),
            *("x-path-info", "x-original-*", "x-rewrite-*", "x-request-uri", "x-replaced-path"),
            *("x-envoy-*", "x-ingress-path", "x-rstudio-*", "x-waws-unencoded-url"),
            *("x-matched-path", "x-invoke-*", "x-now-route-matches", "x-middleware-*"),
        ),
        "person": (
            *("remote-*", "x-remote-*", "x-webauth-*", "x-auth-request-*", "x-auth-user*"),
            *("x-auth-email", "x-auth-name", "x-auth-groups", "x-auth-roles", "x-auth-subject"),
            *("x-authenticated-*", "x-authentik-*", "x-authelia-*", "x-pomerium-*", "x-vouch-*"),
            *("x-consumer-*", "x-anonymous-consumer", "x-credential-*", "x-sso-*", "x-proxied-*"),
            *("x-user", "x-username", "x-user-name", "x-user-email", "x-user-groups"),
            *("x-user-roles", "x-roles", "x-groups", "x-userinfo", "x-id-token"),
            *("x-jwt-assertion", "x-jwt-payload", "x-endpoint-api-userinfo"),
            *("x-apigateway-api-userinfo", "x-goog-authenticated-user-*", "x-goog-iap-*"),
            *("x-ms-client-principal*", "x-ms-token-*", "x-amzn-oidc-*", "x-appengine-*"),
            *("cf-access-*", "tailscale-*", "teleport-jwt-assertion", "ynh-user*", "cas-user"),
            *("auth-user", "auth-mail", "auth-groups", "auth-name", "auth-cn", "auth-type"),
            *("logon-user", "php-auth-*", "sm-user*", "sm-universalid", "iv-*", "oam-*"),
            *("oidc-*", "mellon-*", "shib-*", "x-shib-*", "eppn"),
            *("ssl-*", "x-ssl-*", "x-tls-*", "tls-client-*", "client-cert*", "x-client-cert*"),
            *("x-client-dn", "x-client-verify", "x-arr-clientcert", "x-amzn-mtls-*"),
        ),
        "address": (
            *("x-forward*", "forwarded-*", "x-real-*", "client-ip", "x-client-ip", "x-client-addr"),
            *("x-clientip", "true-client-ip", "x-true-client-ip", "x-cluster-client-ip"),
            *("fastly-client-ip", "fastly-ssl", "fly-client-ip", "cf-connecting-*"),
            *("cf-pseudo-ipv4", "cf-visitor", "x-azure-clientip", "x-azure-socketip"),
            *("x-originating-ip", "proxy-client-ip", "wl-proxy-*", "http-client-ip"),
            *("http-x-forward*", "http-forwarded*", "x-host", "x-http-host-override", "x-proxy*"),
            *("x-scheme", "x-url-scheme", "front-end-https", "x-https", "https", "x-arr-ssl"),
            "x-outside-url",
        ),
        "server": ("proxy", "x-sendfile*", "x-accel-*"),
    }
)


#: Response fields by which a tool can affect more than itself, by who obeys them. Dropped unless a
#: route's `pass_response_fields` names them: docs/adr/0020 has the reasons.
ORDERS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "server": (
            *("x-accel-*", "x-sendfile*", "x-send-file", "x-lighttpd-send*", "x-reproxy-*"),
            *("x-litespeed-location", "x-envoy-*", "fly-replay*"),
        ),
        "browser": (
            *("clear-site-data", "alt-svc", "nel", "report-to", "public-key-pins*"),
            *("set-cookie2", "sec-session-registration", "secure-session-registration"),
        ),
    }
)
#: Affects only the buffering of the response itself; event streams behind nginx need it.
HARMLESS_ORDER: Final = b"x-accel-buffering"


def fold(name: bytes) -> bytes:
    """Return a field name as CGI, WSGI and PHP may fold it: lower case, "-" for odd bytes."""
    return _ODD.sub(b"-", name.lower())


def is_plain(name: bytes) -> bool:
    """Whether a name only has letters, digits and "-", so that no other name folds to it."""
    return _PLAIN.fullmatch(name) is not None


class NamePatterns:
    """A set of names, some of them given by their start and "*"."""

    __slots__ = ("_starts", "_whole")

    def __init__(self, *patterns: str) -> None:
        self._whole = frozenset(name.encode("ascii") for name in patterns if name[-1] != "*")
        self._starts = tuple(name[:-1].encode("ascii") for name in patterns if name[-1] == "*")

    def __contains__(self, folded: bytes) -> bool:
        return folded in self._whole or folded.startswith(self._starts)


_OWN_NAMES: Final = NamePatterns(*OWN)
_CLAIMED_NAMES: Final = NamePatterns(*(name for names in CLAIMS.values() for name in names))


_ORDER_NAMES: Final = NamePatterns(*(name for names in ORDERS.values() for name in names))


def is_order(folded: bytes) -> bool:
    """Whether the folded name of a response field is one of ORDERS."""
    return folded in _ORDER_NAMES and folded != HARMLESS_ORDER


def is_own(folded: bytes) -> bool:
    """Whether a folded name is one of OWN."""
    return folded in _OWN_NAMES


def is_claim(folded: bytes) -> bool:
    """Whether a folded name is one of CLAIMS."""
    return folded in _CLAIMED_NAMES


def claimed(folded: bytes) -> str:
    """Return the meaning of a folded name of CLAIMS, "" for any other name."""
    return next((what for what, names in CLAIMS.items() if folded in NamePatterns(*names)), "")
