"""The address of a Redis or Valkey server, its Sentinels or a Cluster: a URL without a password."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from tailchat_gate.syntax import VCHAR

_EXPECTED: Final = (
    "redis://HOST:PORT/DB, rediss://HOST:PORT/DB (TLS) or unix:///PATH?db=DB, "
    "with USER@ before the host where the server has users"
)
_SENTINELS: Final = (
    "redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB, or rediss+sentinel:// (TLS), with "
    "?sentinel_user=USER where the Sentinels have users"
)
_CLUSTER: Final = "redis+cluster://HOST:PORT,HOST:PORT, or rediss+cluster:// (TLS)"
_KEPT_APART: Final = (
    "no password in the address: state.password_file or state.password holds it, and "
    "state.sentinel_password_file or state.sentinel_password that of Sentinels"
)
_PORT: Final = 6379
_SENTINEL_PORT: Final = 26_379
_MOST_DATABASES: Final = 1 << 16
_MOST_HOSTS: Final = 16
_PLAIN: Final = re.compile(f"[{VCHAR}]{{1,1024}}")
_SERVICE: Final = re.compile("[A-Za-z0-9._-]{1,128}")

Host = tuple[str, int]


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """The address of a server; `path` is its Unix socket, "" for TCP.

    `ca_file` has the authorities that `tls` trusts, "" for the system's. With `service` the
    Sentinels at `hosts`, to which the gate signs in as `sentinel_user`, name the primary of that
    service. Without `service`, `hosts` are nodes of a Cluster.
    """

    host: str
    port: int
    path: str
    database: int
    user: str
    tls: bool
    ca_file: str
    hosts: tuple[Host, ...] = ()
    service: str = ""
    sentinel_user: str = ""


def redis_url(text: str) -> str:
    """Check an address or ""; raises ValueError, whose text says what is accepted."""
    if text:
        redis_address(text)
    return text


def redis_address(text: str) -> RedisAddress:
    """Read an address; raises ValueError, whose text does not repeat any part of it."""
    if not _PLAIN.fullmatch(text):
        raise ValueError(_EXPECTED)
    scheme, _, rest = text.partition("://")
    kind = scheme.partition("+")[2]
    if scheme in {f"{base}+{kind}" for base in ("redis", "rediss")} and kind in _SEVERAL:
        return _several(kind, rest, tls=scheme.startswith("rediss"))
    # Other programs write several servers in other ways: say how to write them here.
    if "sentinel" in scheme:
        raise ValueError(_SENTINELS)
    if "cluster" in scheme or "," in rest.partition("/")[0]:
        raise ValueError(f"{_CLUSTER}; Sentinels: {_SENTINELS}")
    return _one(text)


def _one(text: str) -> RedisAddress:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(_EXPECTED) from None
    if parts.password is not None:
        raise ValueError(_KEPT_APART)
    options = _options(parts.query, _EXPECTED)
    user = unquote(parts.username or "")
    if parts.fragment:
        raise ValueError(_EXPECTED)
    if parts.scheme == "unix":
        if parts.hostname or not parts.path.startswith("/") or options.keys() - {"db"}:
            raise ValueError(_EXPECTED)
        database = _database(options.get("db", "0"), _EXPECTED)
        return RedisAddress("", 0, unquote(parts.path), database, user, tls=False, ca_file="")
    tls = parts.scheme == "rediss"
    allowed = {"ssl_ca_certs"} if tls else set()
    if parts.scheme not in {"redis", "rediss"} or not parts.hostname or options.keys() - allowed:
        raise ValueError(_EXPECTED)
    return RedisAddress(
        parts.hostname,
        port or _PORT,
        "",
        _database(parts.path.removeprefix("/") or "0", _EXPECTED),
        user,
        tls=tls,
        ca_file=options.get("ssl_ca_certs", ""),
    )


#: What is accepted, by the kind of several servers.
_SEVERAL: Final[Mapping[str, str]] = {"sentinel": _SENTINELS, "cluster": _CLUSTER}


def _several(kind: str, rest: str, *, tls: bool) -> RedisAddress:
    expected = _SEVERAL[kind]
    before, _, query = rest.partition("?")
    authority, _, path = before.partition("/")
    userinfo, _, names = authority.rpartition("@")
    if ":" in userinfo:
        raise ValueError(_KEPT_APART)
    options = _options(query, expected)
    allowed = {"ssl_ca_certs"} if tls else set()
    service, database, port = "", 0, _PORT
    if kind == "sentinel":
        allowed.add("sentinel_user")
        service, _, number = path.partition("/")
        database, port = _database(number or "0", expected), _SENTINEL_PORT
    if (
        options.keys() - allowed
        or "#" in before
        or (bool(path) if kind == "cluster" else not _SERVICE.fullmatch(service))
    ):
        raise ValueError(expected)
    return RedisAddress(
        "",
        0,
        "",
        database,
        unquote(userinfo),
        tls=tls,
        ca_file=options.get("ssl_ca_certs", ""),
        hosts=_hosts(names, port, expected),
        service=service,
        sentinel_user=options.get("sentinel_user", ""),
    )


def _hosts(names: str, port: int, expected: str) -> tuple[Host, ...]:
    hosts: list[Host] = []
    for name in names.split(","):
        try:
            parts = urlsplit(f"redis://{name}")
            hosts.append((parts.hostname or "", parts.port or port))
        except ValueError:
            raise ValueError(expected) from None
        if not parts.hostname or parts.netloc != name:
            raise ValueError(expected)
    if len(hosts) > _MOST_HOSTS or len(set(hosts)) < len(hosts):
        raise ValueError(expected)
    return tuple(hosts)


def _options(query: str, expected: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    options = dict(pairs)
    if len(options) < len(pairs) or "#" in query:
        raise ValueError(expected)
    return options


def _database(text: str, expected: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < len(str(_MOST_DATABASES))):
        raise ValueError(expected)
    return int(text)
