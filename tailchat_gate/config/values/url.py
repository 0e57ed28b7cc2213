"""URLs in the configuration: of the site, of upstreams, of Tailchat, of a proxy."""

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final
from urllib.request import getproxies, proxy_bypass

import idna

from tailchat_gate.syntax import (
    ANY_CASE,
    BROWSER_AUTHORITY_ENDS,
    DEFAULT_PORTS,
    HTTP_SCHEME,
    ISSUER,
    MAX_PORT,
    PORT,
    PREFIX,
    WILDCARD,
)

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")
_URL = re.compile(
    rf"({HTTP_SCHEME})://([^{BROWSER_AUTHORITY_ENDS}]*)([^?#]*)(\?[^#]*)?(#.*)?", ANY_CASE
)
_AUTHORITY = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::([0-9]*))?")
_BASE_PATH = re.compile(f"(?:{PREFIX})?/?")
_LONGEST_NAME = 253

HOST = 'a host name or address such as "grafana.example.com"'
ROUTE_HOST = f'{HOST}, or "*.example.com" for every name below that one'
AUTHORITY = 'a host with or without a port, such as "grafana.lan" or "grafana.lan:3000"'
SERVER_NAME = 'the host name in the certificate of the tool, such as "grafana.lan"'
ORIGIN = 'an http or https origin such as "https://gate.example.com"'
BASE_URL = 'an http or https URL such as "https://tailchat.example.com"'

#: Use HTTP_PROXY, HTTPS_PROXY and NO_PROXY, in capital or small letters.
ENVIRONMENT: Final = "environment"
PROXY: Final = 'an address such as "http://proxy.example.com:3128", "environment", or "" for none'


@dataclass(frozen=True, slots=True)
class Url:
    """The parts of an http(s) URL without user, query and fragment.

    `scheme` and `host` are lower-case, an IPv6 `host` keeps its brackets, `port` is None if the
    URL names none, and `path` is as written.
    """

    scheme: str
    host: str
    port: int | None
    path: str

    @property
    def default_port(self) -> int:
        """The port of the scheme (RFC 9110 sections 4.2.1 and 4.2.2)."""
        return DEFAULT_PORTS[self.scheme]

    @property
    def authority(self) -> str:
        """Host, and the port if the URL names one."""
        return self.host + ("" if self.port is None else f":{self.port}")

    @property
    def origin(self) -> str:
        """Scheme, host, and the port unless it is the scheme's default (RFC 6454 section 6.2)."""
        usual = self.port in (None, self.default_port)
        return f"{self.scheme}://{self.host}" + ("" if usual else f":{self.port}")


def host(text: str) -> str:
    """Read a host without port into lower-case ASCII; an IPv6 address has brackets.

    A name with other letters is encoded as browsers do (IDNA 2008 by UTS 46, without transitional
    mapping), because the Host of a request is ASCII.
    Many clients read a name whose last label is a number as an IPv4 address
    (URL Standard, host parser), so it must be a plain dotted one.
    Raises ValueError, whose text says what is accepted.
    """
    if text.startswith("[") and text.endswith("]"):
        try:
            return f"[{IPv6Address(_without_zone(text[1:-1]))}]"
        except AddressValueError:
            raise ValueError('an IPv6 address in brackets such as "[2001:db8::1]"') from None
    name = _ascii_name(text.lower())
    if len(name) > _LONGEST_NAME or not _NAME.fullmatch(name):
        raise ValueError(HOST)
    if _has_numeric_end(name):
        try:
            return str(IPv4Address(name))
        except AddressValueError:
            raise ValueError('a host name, or an IPv4 address such as "192.0.2.7"') from None
    return name


def route_host(text: str) -> str:
    """Read the host of a route, or `*.` and the parent name of all its hosts.

    No scheme, no port; one trailing dot is removed. Raises ValueError, whose text says what is
    accepted.
    """
    bare = text.removeprefix(WILDCARD)
    if "*" in bare:
        if text == "*":
            raise ValueError(f"{ROUTE_HOST}; left out, it is every host")
        raise ValueError(f"{ROUTE_HOST}; the * stands once, at the front, for whole labels")
    if "/" in bare:
        raise ValueError(f"{HOST}, without scheme and path")
    if ":" in bare and not bare.startswith("["):
        raise ValueError(f"{HOST}, without port (an IPv6 address stands in brackets)")
    if bare.startswith("[") and not bare.endswith("]"):
        raise ValueError(f"{HOST}, without port")
    name = bare.removesuffix(".")
    if bare != text and (name.startswith("[") or _has_numeric_end(name)):
        raise ValueError(f"{ROUTE_HOST}; no name lies below an address")
    return text.removesuffix(bare) + host(name)


def authority(text: str) -> str:
    """Read `host` or `host:port`, as in a Host field.

    Raises ValueError, whose text says what is accepted.
    """
    if "@" in text or "/" in text:
        raise ValueError(f"{AUTHORITY}, without scheme, user name and path")
    return parse_url(f"http://{text}", AUTHORITY).authority


def server_name(text: str) -> str:
    """Read the name that a certificate must contain; an IPv6 address loses its brackets.

    Raises ValueError, whose text says what is accepted.
    """
    bare = f"[{text}]" if ":" in text and not text.startswith("[") else text
    try:
        return host(bare.removesuffix(".")).strip("[]")
    except ValueError:
        raise ValueError(f"{SERVER_NAME}, without scheme and port") from None


def origin(text: str) -> str:
    """Read an origin: a trailing slash and the scheme's default port are removed.

    Raises ValueError, whose text says what is accepted.
    """
    url = parse_url(text, ORIGIN)
    if url.path not in ("", "/"):
        raise ValueError(f"{ORIGIN}, without a path")
    return url.origin


def secure_origin(text: str) -> str:
    """Read an origin whose pages a browser counts as secure: https, or this machine itself.

    Raises ValueError, whose text says what is accepted.
    """
    read = origin(text)
    if not is_secure(read):
        raise ValueError(f"{ORIGIN} with https: a frame needs cookies that only https may carry")
    return read


def is_secure(text: str) -> bool:
    """Whether a URL is https, or on this machine (Secure Contexts section 3.1)."""
    url = parse_url(text, ORIGIN)
    return url.scheme == "https" or is_loopback(url.host)


def base_url(text: str) -> str:
    """Read a URL that paths are appended to; its path loses the trailing slash.

    Raises ValueError, whose text says what is accepted.
    """
    url = parse_url(text, BASE_URL)
    if not _BASE_PATH.fullmatch(url.path):
        raise ValueError(f"{BASE_URL}, with a plain path or none")
    return url.origin + url.path.removesuffix("/")


def base_url_or_none(text: str) -> str:
    """Read a URL as base_url does; "" is none. Raises ValueError."""
    return base_url(text) if text else ""


def issuer(text: str) -> str:
    """Check an issuer; it stays unchanged, because it is compared exactly (RFC 9207 section 2.4).

    Raises ValueError, whose text says what is accepted.
    """
    if text and not re.fullmatch(ISSUER, text):
        raise ValueError(f"{BASE_URL}, exactly as Tailchat's API_URL, or nothing")
    return text


def parse_url(text: str, expected: str) -> Url:
    """Split an http(s) URL into its parts; user, query and fragment are refused.

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
    if port is not None and not (re.fullmatch(PORT, port) and 0 < int(port) <= MAX_PORT):
        raise ValueError(f"{expected}, with a port from 1 to 65535")
    try:
        canonical = host(name)
    except ValueError:
        raise ValueError(expected) from None
    return Url(scheme.lower(), canonical, None if port is None else int(port), path)


def is_loopback(name: str) -> bool:
    """Whether a host, as `host` returns it, is this machine itself (RFC 6761 section 6.3)."""
    bare = name.strip("[]")
    try:
        return (IPv6Address(bare) if ":" in bare else IPv4Address(bare)).is_loopback
    except AddressValueError:
        return bare == "localhost" or bare.endswith(".localhost")


def _without_zone(text: str) -> str:
    if "%" in text:
        raise AddressValueError("zone")
    return text


def _has_numeric_end(name: str) -> bool:
    return _NUMERIC_LABEL.fullmatch(name.rpartition(".")[2].lower()) is not None


def _ascii_name(text: str) -> str:
    if text.isascii():
        return text
    try:
        labels = idna.uts46_remap(text, std3_rules=False).split(".")
        # Label by label, because the package refuses "_", which private networks use in names.
        return ".".join(
            label if label.isascii() else idna.alabel(label).decode("ascii") for label in labels
        )
    except UnicodeError:
        raise ValueError(f'{HOST}; write this name in its ASCII form ("xn--...")') from None


def proxy_address(text: str) -> str:
    """Read the http URL of a proxy without user and path, ENVIRONMENT, or "" for none.

    Raises ValueError, whose text says what is accepted.
    """
    if text in ("", ENVIRONMENT):
        return text
    url = parse_url(text, PROXY)
    if url.scheme != "http" or url.path not in ("", "/"):
        raise ValueError(PROXY)
    return url.origin


def proxy_for(setting: str, url: str) -> str:
    """Return the proxy for requests to a URL, "" for none; `setting` is `tailchat.proxy`.

    A proxy in the environment whose URL is not http is ignored; user and password in the URL are
    kept.
    """
    if setting != ENVIRONMENT:
        return setting
    parsed = parse_url(url, "")
    if proxy_bypass(parsed.authority):
        return ""
    chosen = getproxies().get(parsed.scheme, "")
    if chosen and "://" not in chosen:
        chosen = f"http://{chosen}"
    return chosen if chosen.lower().startswith("http://") else ""
