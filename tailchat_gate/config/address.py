"""Reads the addresses an admin writes: hosts, URLs, listeners, upstreams, networks."""

import re
from dataclasses import dataclass
from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_network,
)

Network = IPv4Network | IPv6Network

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")
_URL = re.compile(r"(https?)://([^/?#\\]*)([^?#]*)(\?[^#]*)?(#.*)?", re.IGNORECASE)
_AUTHORITY = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::([0-9]*))?")
_BASE_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]+)*/?")
_UNIX_PATH = re.compile(r"/(?!/)[^\x00-\x1f\x7f]+")
_LONGEST_NAME = 253
_LONGEST_UNIX_PATH = 107  # sun_path holds 108 bytes with its NUL, unix(7)
_LAST_PORT = 65535
_DEFAULT_PORT = {"http": 80, "https": 443}
_MAPPED = IPv6Network("::ffff:0:0/96")  # RFC 4291 section 2.5.5.2

HOST = 'a host name or address such as "grafana.example.com"'
LISTEN = '"host:port" such as "127.0.0.1:4180" or "[::1]:4180", or "unix:/run/gate.sock"'
ORIGIN = 'an http or https origin such as "https://gate.example.com"'
BASE_URL = 'an http or https URL such as "https://tailchat.example.com"'
UPSTREAM = '"http://host:port", "https://host:port" or "unix:/path"'
NETWORK = 'an address or a network such as "10.0.0.0/8" or "fd00::/8"'


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host and port to listen on; `host` has no brackets, port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A socket in the file system, by its absolute path."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class Url:
    """The parts of an http(s) URL without user, query and fragment.

    `scheme` and `host` are lower-case, an IPv6 `host` keeps its brackets, `port` is None where the
    URL names none, and `path` is as written.
    """

    scheme: str
    host: str
    port: int | None
    path: str

    @property
    def origin(self) -> str:
        """Scheme, host, and the port unless it is the scheme's own (RFC 6454 section 6.2)."""
        usual = self.port in (None, _DEFAULT_PORT[self.scheme])
        return f"{self.scheme}://{self.host}" + ("" if usual else f":{self.port}")


def host(text: str) -> str:
    """Read a host without port into lower-case ASCII; an IPv6 address stands in brackets.

    A name with other letters is encoded once (IDNA, RFC 3490), and refused where the two IDNA
    standards differ ("ß"), because a browser would ask for another host.
    A last label that is a number makes a name an IPv4 address to many clients
    (URL Standard, host parser), so it has to be a plain dotted one.
    Raises ValueError, whose text says what would be right.
    """
    if text.startswith("[") and text.endswith("]"):
        try:
            return f"[{IPv6Address(_without_zone(text[1:-1]))}]"
        except AddressValueError:
            raise ValueError('an IPv6 address in brackets such as "[2001:db8::1]"') from None
    name = _ascii_name(text.lower())
    if len(name) > _LONGEST_NAME or not _NAME.fullmatch(name):
        raise ValueError(HOST)
    if _NUMERIC_LABEL.fullmatch(name.rpartition(".")[2]):
        try:
            return str(IPv4Address(name))
        except AddressValueError:
            raise ValueError('a host name, or an IPv4 address such as "192.0.2.7"') from None
    return name


def route_host(text: str) -> str:
    """Read the host of a route: no scheme, no port, no wildcard; one trailing dot is dropped.

    Raises ValueError, whose text says what would be right.
    """
    if "*" in text:
        raise ValueError(f"{HOST}, in full: wildcards are not supported, write one route per host")
    if "/" in text:
        raise ValueError(f"{HOST}, without scheme and path")
    if ":" in text and not text.startswith("["):
        raise ValueError(f"{HOST}, without port (an IPv6 address stands in brackets)")
    if text.startswith("[") and not text.endswith("]"):
        raise ValueError(f"{HOST}, without port")
    return host(text.removesuffix("."))


def listen_address(text: str) -> TcpAddress | UnixAddress:
    """Read one address to listen on.

    Raises ValueError, whose text says what would be right.
    """
    if text.startswith("unix:"):
        return UnixAddress(_unix_path(text, LISTEN))
    name, colon, port = text.rpartition(":")
    if not colon or not re.fullmatch("[0-9]{1,5}", port) or int(port) > _LAST_PORT:
        raise ValueError(LISTEN)
    if name in ("", "*"):
        raise ValueError(f'{LISTEN}; "0.0.0.0:{int(port)}" or "[::]:{int(port)}" is every address')
    if ":" in name:
        if not (name.startswith("[") and name.endswith("]")):
            raise ValueError(f"{LISTEN}; an IPv6 address stands in brackets")
        try:
            return TcpAddress(str(IPv6Address(name[1:-1])), int(port))
        except AddressValueError:
            raise ValueError(LISTEN) from None
    try:
        return TcpAddress(host(name), int(port))
    except ValueError:
        raise ValueError(LISTEN) from None


def listen(text: str) -> str:
    """Read one address to listen on into its canonical text; raises ValueError as above."""
    return str(listen_address(text))


def origin(text: str) -> str:
    """Read an origin: a trailing slash and the scheme's own port are dropped.

    Raises ValueError, whose text says what would be right.
    """
    url = parse_url(text, ORIGIN)
    if url.path not in ("", "/"):
        raise ValueError(f"{ORIGIN}, without a path")
    return url.origin


def base_url(text: str) -> str:
    """Read a URL that paths are appended to: it keeps its path without the trailing slash.

    Raises ValueError, whose text says what would be right.
    """
    url = parse_url(text, BASE_URL)
    if not _BASE_PATH.fullmatch(url.path):
        raise ValueError(f"{BASE_URL}, with a plain path or none")
    return url.origin + url.path.removesuffix("/")


def issuer(text: str) -> str:
    """Check an issuer and keep it byte for byte, since it is compared exactly (RFC 9207 2.4).

    Raises ValueError, whose text says what would be right.
    """
    if text and not re.fullmatch(r"https?://[^\x00-\x20\x7f-\U0010ffff?#]+", text):
        raise ValueError(f"{BASE_URL}, exactly as Tailchat's API_URL, or nothing")
    return text


def upstream(text: str) -> str:
    """Read the address of a tool: `http://host[:port]`, `https://host[:port]` or `unix:/path`.

    Raises ValueError, whose text says what would be right.
    """
    if text.startswith("unix:"):
        return f"unix:{_unix_path(text, UPSTREAM)}"
    url = parse_url(text, UPSTREAM)
    if url.path:
        raise ValueError(f"{UPSTREAM}, without a path or a slash at the end")
    return f"{url.scheme}://{url.host}" + ("" if url.port is None else f":{url.port}")


def parse_url(text: str, expected: str) -> Url:
    """Take an http(s) URL apart; user, query and fragment are refused.

    `expected` begins the text of the ValueError.
    """
    parts = _URL.fullmatch(text)
    if parts is None:
        raise ValueError(expected)
    scheme, authority, path, query, fragment = parts.groups()
    if "@" in authority:
        raise ValueError(f"{expected}, without user name and password")
    if query is not None or fragment is not None:
        raise ValueError(f"{expected}, without query and fragment")
    split = _AUTHORITY.fullmatch(authority)
    if split is None:
        raise ValueError(expected)
    name, port = split.groups()
    if port is not None and not (re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) <= _LAST_PORT):
        raise ValueError(f"{expected}, with a port from 1 to 65535")
    try:
        canonical = host(name)
    except ValueError:
        raise ValueError(expected) from None
    return Url(scheme.lower(), canonical, None if port is None else int(port), path)


def network(value: object) -> Network:
    """Read a trusted address or network.

    Refused are host bits (they hide which part was meant), every-address networks (then any
    visitor would be believed), and IPv4 addresses in IPv6 clothes.
    Raises ValueError, whose text says what would be right.
    """
    if not isinstance(value, str):
        raise ValueError(NETWORK)  # noqa: TRY004 - pydantic reports a ValueError, not a TypeError
    if "%" in value:
        raise ValueError(f"{NETWORK}, without a zone")
    try:
        loose = ip_network(value, strict=False)
    except ValueError:
        raise ValueError(NETWORK) from None
    if loose.prefixlen == 0 or (isinstance(loose, IPv6Network) and loose.supernet_of(_MAPPED)):
        raise ValueError("a network without all the visitors in it, who would be believed too")
    if isinstance(loose, IPv6Network) and loose.subnet_of(_MAPPED):
        raise ValueError('the network in its IPv4 form, such as "10.0.0.0/8"')
    try:
        return ip_network(value)
    except ValueError:
        raise ValueError(f'a network without host bits: "{loose}", or one address') from None


def is_loopback(name: str) -> bool:
    """Tell whether a host, as `host` returns it, is this machine itself (RFC 6761 section 6.3)."""
    bare = name.strip("[]")
    try:
        return (IPv6Address(bare) if ":" in bare else IPv4Address(bare)).is_loopback
    except AddressValueError:
        return bare == "localhost" or bare.endswith(".localhost")


def _without_zone(text: str) -> str:
    if "%" in text:
        raise AddressValueError("zone")
    return text


def _unix_path(text: str, expected: str) -> str:
    path = text.removeprefix("unix:")
    if not _UNIX_PATH.fullmatch(path):
        raise ValueError(expected)
    if len(path.encode(errors="replace")) > _LONGEST_UNIX_PATH:
        raise ValueError(f"{expected}; the path of a socket has at most {_LONGEST_UNIX_PATH} bytes")
    return path


def _ascii_name(text: str) -> str:
    if text.isascii():
        return text
    try:
        encoded = text.encode("idna")
        same = encoded.decode("idna") == text
    except UnicodeError:
        same = False
    if not same:
        raise ValueError(f'{HOST}; write this name in its ASCII form ("xn--...")')
    return encoded.decode("ascii")
