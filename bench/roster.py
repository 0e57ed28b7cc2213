"""Who the peers are, and which of them cannot run here."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import apache
from process import BenchError, program

PLAIN = ("nginx", "haproxy", "envoy", "caddy", "traefik")
FORWARD_AUTH = ("nginx-auth-request", "caddy-forward-auth")
OAUTH2_PROXY = "oauth2-proxy"
OWN_SESSIONS = ("mod_auth_openidc", OAUTH2_PROXY)
#: By TLS of their own; the names are those of the peers without it, and TLS.
BY_TLS = ("caddy-tls", "gate-tls")
NAMES = (*PLAIN, *FORWARD_AUTH, *OWN_SESSIONS, "gate")


def absent(directory: Path, oauth2_proxy: Path | None) -> dict[str, str]:
    """The peers that cannot run with their files below `directory`, each with the reason."""
    asked: Mapping[str, Callable[[], object]] = {
        "haproxy": partial(program, "haproxy"),
        "envoy": partial(program, "envoy"),
        "caddy": partial(program, "caddy"),
        "traefik": partial(program, "traefik"),
        "caddy-forward-auth": partial(program, "caddy"),
        "mod_auth_openidc": partial(apache.must_run, directory),
        "oauth2-proxy": partial(_must_be_given, oauth2_proxy),
    }
    reasons = {}
    for name, ask in asked.items():
        try:
            ask()
        except BenchError as problem:
            reasons[name] = str(problem)
    return reasons


def _must_be_given(binary: Path | None) -> None:
    if binary is None:
        raise BenchError("its binary is given with --oauth2-proxy PATH")
    if not binary.is_file():
        raise BenchError(f"{binary} is no file")
