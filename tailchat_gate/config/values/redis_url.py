"""The address of a Redis or Valkey server, as a URL without a password."""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from tailchat_gate.syntax import VCHAR

_EXPECTED: Final = (
    "redis://HOST:PORT/DB, rediss://HOST:PORT/DB (TLS) or unix:///PATH?db=DB, "
    "with USER@ before the host where the server has users"
)
_KEPT_APART: Final = "no password in the address: state.password_file or state.password holds it"
_ONE_SERVER: Final = (
    "the address of one server, which always leads to the primary: the gate asks no Sentinel and "
    "follows no Cluster (docs/operate/redis.md)"
)
_PORT: Final = 6379
_MOST_DATABASES: Final = 1 << 16
_PLAIN: Final = re.compile(f"[{VCHAR}]{{1,1024}}")


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where a server is; `path` is its Unix socket, "" for TCP.

    `ca_file` holds the certificates that `tls` trusts, "" for the system's.
    """

    host: str
    port: int
    path: str
    database: int
    user: str
    tls: bool
    ca_file: str


def redis_url(text: str) -> str:
    """Check an address or ""; raises ValueError, whose text says what is accepted."""
    if text:
        redis_address(text)
    return text


def redis_address(text: str) -> RedisAddress:
    """Read an address; raises ValueError, whose text repeats nothing of it."""
    if not _PLAIN.fullmatch(text):
        raise ValueError(_EXPECTED)
    scheme, _, rest = text.partition("://")
    # As other programs write several servers.
    if "sentinel" in scheme or "cluster" in scheme or "," in rest.partition("/")[0]:
        raise ValueError(_ONE_SERVER)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(_EXPECTED) from None
    if parts.password is not None:
        raise ValueError(_KEPT_APART)
    options = _options(parts)
    user = unquote(parts.username or "")
    if parts.scheme == "unix":
        if parts.hostname or not parts.path.startswith("/") or options.keys() - {"db"}:
            raise ValueError(_EXPECTED)
        database = _database(options.get("db", "0"))
        return RedisAddress("", 0, unquote(parts.path), database, user, tls=False, ca_file="")
    tls = parts.scheme == "rediss"
    allowed = {"ssl_ca_certs"} if tls else set()
    if parts.scheme not in {"redis", "rediss"} or not parts.hostname or options.keys() - allowed:
        raise ValueError(_EXPECTED)
    return RedisAddress(
        parts.hostname,
        port or _PORT,
        "",
        _database(parts.path.removeprefix("/") or "0"),
        user,
        tls=tls,
        ca_file=options.get("ssl_ca_certs", ""),
    )


def _options(parts: SplitResult) -> dict[str, str]:
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    options = dict(pairs)
    if parts.fragment or len(options) < len(pairs):
        raise ValueError(_EXPECTED)
    return options


def _database(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < len(str(_MOST_DATABASES))):
        raise ValueError(_EXPECTED)
    return int(text)
