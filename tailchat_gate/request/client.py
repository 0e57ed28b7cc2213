"""Who sent a request: the address and scheme, from the socket's peer and from trusted proxies."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from tailchat_gate.bounded import BoundedCache

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: A chain longer than this is not walked further; the rest was written by the client anyway.
MAX_HOPS: Final = 32
#: Leading bits of IPv6 addresses of which one host has all, and so many networks one site: an
#: interface's identifier has the other 64 (RFC 4291 section 2.5.1), and a site, as many a
#: household, is given a /48 (RFC 6177). Connections, requests and rates are counted by host: the
#: tenants of one provider must not share a limit. What strangers could crowd out for all, logins
#: at Tailchat, is counted by site.
HOST_BITS: Final = 64
SITE_BITS: Final = 48
_MAX_CACHED_CHAINS: Final = 4096
_MAX_CACHED_PEERS: Final = 4096
_MAX_CHAIN_LENGTH: Final = 2048
_SCHEMES: Final = ("http", "https")


@dataclass(frozen=True, slots=True)
class ClientAddress:
    """The visitor's `address` and `scheme`, and the chain of addresses known to be true.

    `forwarded_for` is the value for X-Forwarded-For: the visitor first, then each trusted proxy
    up to the socket's peer. `by_proxy`: the peer is a trusted proxy. `network` is what counts as
    one client (`network_of`).
    """

    address: str
    scheme: str
    forwarded_for: str
    by_proxy: bool = field(default=False, compare=False)
    network: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "network", network_of(self.address, HOST_BITS))


def network_of(address: str, bits: int) -> str:
    """Return what counts as one client: an IPv4 address, or the network of an IPv6 address.

    `address` may be such a network, which is smaller, and is returned as it is where it is neither.
    An IPv4 address that is written as one of IPv6 is that IPv4 address.
    """
    parsed = _parse(address.partition("/")[0]) if ":" in address else None
    if isinstance(parsed, IPv6Address):
        unused = 128 - bits
        return str(IPv6Network((int(parsed) >> unused << unused, bits)))
    return address if parsed is None else str(parsed)


class ClientResolver:
    """Turns a peer and its forwarding fields into a ClientAddress.

    X-Forwarded-* are believed only from a peer inside `trusted`, and the chain is read from the
    right, past trusted hops, so that nothing the visitor wrote to its left counts (the mistake
    behind several advisories). With no believed scheme the scheme is that of `public_url`: the
    admin's word for how visitors reach the gate.
    """

    def __init__(self, trusted: Sequence[Network], *, default_scheme: str) -> None:
        self._trusted = tuple(trusted)
        self._default_scheme = default_scheme
        self._cache: BoundedCache[tuple[str, str, str], ClientAddress] = BoundedCache(
            _MAX_CACHED_CHAINS
        )
        # A proxy in front is the peer of every request; to judge its address each time took
        # a seventh of what a question at /oauth2/auth costs.
        self._peers: BoundedCache[str, bool] = BoundedCache(_MAX_CACHED_PEERS)
        self._direct: BoundedCache[str, ClientAddress] = BoundedCache(_MAX_CACHED_PEERS)

    def trusts(self, peer: str) -> bool:
        """Whether the forwarding fields of `peer` (an address as text) are believed."""
        trusted = self._peers.get(peer)
        if trusted is None:
            trusted = bool(self._trusted) and self._is_trusted(_parse(peer))
            self._peers.keep(peer, trusted)
        return trusted

    def direct(self, peer: str) -> ClientAddress:
        """Return the ClientAddress of a peer whose forwarding fields are not believed.

        It is the same object for each connection of that peer, as long as it is kept, so that
        what is made of a header section for a ClientAddress serves all of them.
        """
        client = self._direct.get(peer)
        if client is None:
            parsed = _parse(peer)
            address = peer if parsed is None else str(parsed)
            client = ClientAddress(address, self._default_scheme, address)
            self._direct.keep(peer, client)
        return client

    def forwarded(self, peer: str, chain: str, scheme: str) -> ClientAddress:
        """Return the ClientAddress behind a trusted peer.

        `chain` is the X-Forwarded-For value (several fields joined by commas) and `scheme` the
        X-Forwarded-Proto value, "" where absent.
        """
        if len(chain) > _MAX_CHAIN_LENGTH:
            # Whole entries: half of an address is another address.
            chain = chain[-_MAX_CHAIN_LENGTH - 1 :].partition(",")[2]
        # Of several values ("https, http") the nearest proxy's own is the last.
        last = scheme.rpartition(",")[2].strip().lower()
        believed = last if last in _SCHEMES else self._default_scheme
        key = (peer, chain, believed)
        client = self._cache.get(key)
        if client is None:
            client = self._walk(peer, chain, believed)
            self._cache.keep(key, client)
        return client

    def forget(self) -> None:
        """Drop the cache: no further client will be looked up."""
        self._cache.clear()
        self._peers.clear()

    def _walk(self, peer: str, chain: str, scheme: str) -> ClientAddress:
        hops = [str(_parse(peer) or peer)]
        for entry in reversed(chain.split(",")[-MAX_HOPS:]):
            address = _parse(entry)
            if address is None:
                break
            hops.append(str(address))
            if not self._is_trusted(address):
                break
        return ClientAddress(hops[-1], scheme, ", ".join(reversed(hops)), by_proxy=True)

    def _is_trusted(self, address: Address | None) -> bool:
        return address is not None and any(
            address.version == network.version and address in network for network in self._trusted
        )


def _parse(text: str) -> Address | None:
    """Return the address in a hop: bare, with a port, bracketed, or IPv4 mapped into IPv6."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        return address
    # A zone ("%eth0") is free text, and means something on the sender's host alone.
    return address.ipv4_mapped or IPv6Address(int(address))
