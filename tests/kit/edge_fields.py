"""The fields that only the gate may set, in the form of each file of deploy/."""

import re
from collections.abc import Iterator
from typing import Final

from tailchat_gate.request.field_names import CLAIMS, OWN

#: Names of tailchat_gate/request/field_names.py in its order, "*" for any end.
PATTERNS: Final = tuple(
    dict.fromkeys((*OWN, *(each for group in CLAIMS.values() for each in group)))
)
#: The characters of field names beside letters, digits and "-" (RFC 9110 section 5.6.2).
ODD: Final = "!#$%&'*+.^_`|~"
#: Members of families, which nginx can only drop by their whole names.
_KNOWN: Final = (
    *("X-Forwarded-Port", "X-Forwarded-Method", "X-Forwarded-Uri", "X-Forwarded-Prefix"),
    *("X-Forwarded-Path", "X-Forwarded-Server", "X-Forwarded-Scheme", "X-Forwarded-Ssl"),
    *("X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups", "X-Forwarded-Access-Token"),
    *("X-Forwarded-Preferred-Username", "X-Original-Host", "X-Original-Method", "X-Original-URI"),
    *("X-Original-URL", "X-Rewrite-URL", "X-Real-IP", "CF-Connecting-IP", "CF-Connecting-IPv6"),
    *("Remote-User", "Remote-Name", "Remote-Email", "Remote-Groups", "X-Remote-User"),
    *("X-WEBAUTH-USER", "SSL-Client-Cert", "SSL-Client-Verify", "X-SSL-Client-Cert"),
)
#: What tailchat-gate-headers.conf sets.
_SET_BY_NGINX: Final = frozenset(("x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"))


def samples() -> Iterator[str]:
    """Yield a name for each pattern, one that it takes for certain."""
    for pattern in PATTERNS:
        yield pattern.replace("*", "zz")


def nginx() -> str:
    """Return the lines of nginx's file: whole names, and the gate is asked about the rest."""
    names = [each for each in PATTERNS if "*" not in each and each not in _SET_BY_NGINX]
    known = [name.lower() for name in _KNOWN]
    return "".join(f'proxy_set_header {each} "";\n' for each in sorted({*names, *known}))


def caddy() -> str:
    """Return the lines of Caddy's file."""
    odd = [f'request_header "-*{each}*"\n' for each in ODD]
    return "".join((*odd, *(f"request_header -{each}\n" for each in PATTERNS)))


def haproxy() -> str:
    """Return the lines of HAProxy's script."""
    return "".join(f'    "{each}",\n' for each in PATTERNS)


def envoy() -> str:
    """Return the lines of Envoy's file."""
    start = " " * 26 + "- "
    odd = '{ key_matcher: { safe_regex: { regex: "[^:]*[^:a-z0-9-].*" } } }'
    return f"{start}remove_on_match: {odd}\n" + "".join(
        f"{start}remove_on_match: {{ key_matcher: {{ prefix: {each[:-1]} }} }}\n"
        if each.endswith("*")
        else f"{start}remove: {each}\n"
        for each in PATTERNS
    )


def traefik() -> str:
    """Return the lines of Traefik's expression, in YAML's way of cutting one long string."""
    start = " " * 10
    parts = [re.escape(each).replace(r"\*", ".*").replace(r"\-", "-") for each in PATTERNS]
    lines = [f"{start}|{each}\\\n" for each in parts[1:]]
    return "".join((f"{start}[^a-z0-9-]|^({parts[0]}\\\n", *lines, f'{start})$"\n'))


FILES: Final = {
    "nginx/tailchat-gate-strip.conf": nginx,
    "caddy/tailchat-gate-strip.caddy": caddy,
    "haproxy/tailchat-gate.lua": haproxy,
    "envoy/envoy.yaml": envoy,
    "traefik/dynamic.yaml": traefik,
}
