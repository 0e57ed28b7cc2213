"""Reads addresses: listeners, upstreams and trusted networks."""

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Network, IPv6Address, IPv6Network, ip_network
from posixpath import normpath

from tailchat_gate.config.values.url import Url, host, is_loopback, parse_url
from tailchat_gate.syntax import CTL, DIRECTORY, DOTS, MAX_PORT, OWN_STATUS, PORT

Network = IPv4Network | IPv6Network

_UNIX_PATH = re.compile(f"/(?!/)[^{CTL}]+")
_STATUS = re.compile(OWN_STATUS)
_DIRECTORY = re.compile(DIRECTORY)
_LONGEST_UNIX_PATH = 107  # sun_path holds 108 bytes with its NUL, unix(7)
#: Hosts that mean this machine: connecting to one reaches its listeners on loopback addresses.
_ANY_LOOPBACK = frozenset({"0.0.0.0", "::", "localhost"})  # noqa: S104 - compared only
_MAPPED = IPv6Network("::ffff:0:0/96")  # RFC 4291 section 2.5.5.2

LISTEN = '"host:port" such as "127.0.0.1:4180" or "[::1]:4180", or "unix:/run/gate.sock"'
#: How many backends a route may have.
MOST_BACKENDS = 64
UPSTREAM = (
    '"http://host:port", "https://host:port", "unix:/path", "static:204", "file:/directory" or '
    '"admin:"'
)
#: The upstream of a route for the gate's own admin page.
ADMIN_PAGE = "admin:"
STATIC = '"static:" and a status from 200 to 599, such as "static:204"'
FILES = '"file:" and an absolute path, such as "file:/srv/docs"'
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
class HttpAddress:
    """A tool reached over TCP, by the URL of its root."""

    url: Url

    @property
    def tls(self) -> bool:
        """Whether the tool speaks https."""
        return self.url.scheme == "https"

    @property
    def host(self) -> str:
        """The host to connect to, without brackets."""
        return self.url.host.strip("[]")

    @property
    def port(self) -> int:
        """The port to connect to; the scheme's default if the address names none."""
        return self.url.port or self.url.default_port

    def __str__(self) -> str:
        return f"{self.url.scheme}://{self.url.authority}"


@dataclass(frozen=True, slots=True)
class StaticAddress:
    """No tool: the gate answers with this status and an empty body."""

    status: int

    def __str__(self) -> str:
        return f"static:{self.status}"


@dataclass(frozen=True, slots=True)
class FilesAddress:
    """No tool: the gate serves the files below this absolute path."""

    directory: str

    def __str__(self) -> str:
        return f"file:{self.directory}"


@dataclass(frozen=True, slots=True)
class AdminPageAddress:
    """No tool: the gate serves its admin page."""

    def __str__(self) -> str:
        return ADMIN_PAGE


#: What the gate answers itself.
OwnAddress = StaticAddress | FilesAddress | AdminPageAddress
Upstream = HttpAddress | UnixAddress | OwnAddress


def listen_address(text: str) -> TcpAddress | UnixAddress:
    """Read one address to listen on.

    Raises ValueError, whose text says what is accepted.
    """
    if text.startswith("unix:"):
        return UnixAddress(_unix_path(text, LISTEN))
    name, colon, port = text.rpartition(":")
    if not colon or not re.fullmatch(PORT, port) or int(port) > MAX_PORT:
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
    """Return the canonical text of an address to listen on; raises ValueError as above."""
    return str(listen_address(text))


def stays_here(text: str) -> bool:
    """Whether only this machine can connect to an address to listen on.

    False for a name below localhost, because the system may ask a name server for it.
    """
    listener = listen_address(text)
    if isinstance(listener, UnixAddress):
        return True
    return is_loopback(listener.host) and not listener.host.endswith(".localhost")


def upstream_address(text: str) -> Upstream:
    """Read an upstream: the address of a tool, or what the gate answers itself.

    Raises ValueError, whose text says what is accepted.
    """
    if text.startswith("unix:"):
        return UnixAddress(_unix_path(text, UPSTREAM))
    if text == ADMIN_PAGE:
        return AdminPageAddress()
    if text.startswith("static:"):
        status = text.removeprefix("static:")
        if not _STATUS.fullmatch(status):
            raise ValueError(STATIC)
        return StaticAddress(int(status))
    if text.startswith("file:"):
        return FilesAddress(_directory(text.removeprefix("file:")))
    url = parse_url(text, UPSTREAM)
    if url.path:
        raise ValueError(f"{UPSTREAM}, without a path or a slash at the end")
    return HttpAddress(url)


def upstream(text: str) -> str:
    """Return the canonical text of an upstream; raises ValueError as above."""
    return str(upstream_address(text))


def upstreams(value: object) -> str | tuple[str, ...]:
    """Return the canonical text of one upstream, or those of a list of addresses of one tool.

    A list of one address becomes that address. Raises ValueError, whose text says what is
    accepted.
    """
    if isinstance(value, str):
        return upstream(value)
    if not isinstance(value, list | tuple) or not 0 < len(value) <= MOST_BACKENDS:
        raise ValueError(f"{UPSTREAM}, or a list of 1 to {MOST_BACKENDS} addresses of one tool")
    addresses = tuple(upstream(item) if isinstance(item, str) else "" for item in value)
    if len(addresses) == 1 and addresses[0]:
        return addresses[0]
    if any(not isinstance(read, HttpAddress | UnixAddress) for read in map(_read, addresses)):
        raise ValueError("a list with addresses of tools only, http:, https: or unix:")
    if len({tool_of(upstream_address(address)) for address in addresses}) < len(addresses):
        raise ValueError("each backend once")
    if len({address.startswith("https:") for address in addresses}) > 1:
        raise ValueError("backends that all speak https, or none")
    return addresses


def _read(text: str) -> Upstream | None:
    return upstream_address(text) if text else None


def tool_of(address: Upstream) -> tuple[str, int] | None:
    """Return host or socket path, and port, equal for all spellings of one tool; None for none."""
    if isinstance(address, UnixAddress):
        return normpath(address.path), 0
    if isinstance(address, HttpAddress):
        return _one_name(address.host), address.port
    return None


def _one_name(name: str) -> str:
    """Return a host in one spelling: "" for this machine, IPv4-mapped IPv6 addresses as IPv4.

    Connecting to the unspecified address connects to this machine.
    """
    mapped = IPv6Address(name).ipv4_mapped if ":" in name else None
    plain = str(mapped or name)
    return "" if plain in _ANY_LOOPBACK or is_loopback(plain) else plain


def leads_to(upstream: Upstream, listener: TcpAddress | UnixAddress) -> bool:
    """Whether an upstream certainly leads to a listener.

    A name other than localhost may resolve to any address, so it is never certain.
    """
    if isinstance(upstream, UnixAddress) or isinstance(listener, UnixAddress):
        return upstream == listener
    if not isinstance(upstream, HttpAddress) or upstream.port != listener.port:
        return False
    names = {upstream.host, listener.host}
    if len(names) == 1:
        return True
    if names & _ANY_LOOPBACK:
        return all(name in _ANY_LOOPBACK or is_loopback(name) for name in names)
    return False


def network(value: object) -> Network:
    """Read a trusted address or network.

    Refused are host bits (it is unclear which part was meant), networks of all addresses (the
    gate would trust every client), and IPv4-mapped IPv6 addresses.
    Raises ValueError, whose text says what is accepted.
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


def _unix_path(text: str, expected: str) -> str:
    path = text.removeprefix("unix:")
    if not _UNIX_PATH.fullmatch(path):
        raise ValueError(expected)
    if len(path.encode(errors="replace")) > _LONGEST_UNIX_PATH:
        raise ValueError(f"{expected}; the path of a socket has at most {_LONGEST_UNIX_PATH} bytes")
    return path


def _directory(path: str) -> str:
    if path == "/":
        raise ValueError(f"{FILES}, not the root, below which the whole machine lies")
    if "//" in path:
        raise ValueError(f"{FILES}, without an empty segment")
    if DOTS.search(path):
        raise ValueError(f"{FILES}, without . and .. segments")
    if not _DIRECTORY.fullmatch(path):
        raise ValueError(FILES)
    return path.removesuffix("/")
