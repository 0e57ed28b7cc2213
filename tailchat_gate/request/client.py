"""The address and scheme of a request's client, from the socket and from trusted proxies."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from tailchat_gate.bounded import BoundedCache

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: The most addresses of a chain that are read; the client itself wrote the rest anyway.
MAX_HOPS: Final = 32
#: The leading bits that the IPv6 addresses of one host, and of one site, have in common: a host may
#: have a /64 (RFC 4291 section 2.5.1), a site a /48 (RFC 6177). Connections, requests and rates are
#: counted by host, because the tenants of one provider must not share a limit. Logins at Tailchat,
#: which strangers could crowd out for all, are counted by site.
HOST_BITS: Final = 64
SITE_BITS: Final = 48
_MAX_CACHED_CHAINS = 4096
_MAX_CACHED_PEERS = 4096
_MAX_CHAIN_LENGTH: Final = 2048
_SCHEMES: Final = ("http", "https")


@dataclass(frozen=True, slots=True)
class ClientAddress:
    """The visitor's `address` and `scheme`, and the proven chain of addresses.

    `forwarded_for` is the value for X-Forwarded-For: the visitor first, then each trusted proxy up
    to the socket's peer. `by_proxy`: the peer is a trusted proxy. `network` is the key under which
    the client is counted (`network_of`).
    """

    address: str
    scheme: str
    forwarded_for: str
    by_proxy: bool = field(default=False, compare=False)
    network: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "network", network_of(self.address, HOST_BITS))


def network_of(address: str, bits: int) -> str:
    """Return the key under which a client is counted: an IPv4 address or an IPv6 network.

    `bits` is the length of the network. `address` may already be a smaller network. An IPv4 address
    mapped into IPv6 counts as IPv4. Any other text is returned unchanged.
    """
    parsed = _parse(address.partition("/")[0]) if ":" in address else None
    if isinstance(parsed, IPv6Address):
        unused = 128 - bits
        return str(IPv6Network((int(parsed) >> unused << unused, bits)))
    return address if parsed is None else str(parsed)


class ClientResolver:
    """Turns a peer and its forwarding fields into a ClientAddress.

    X-Forwarded-* are believed only from a peer inside `trusted`, and the chain is read from the
    right, past trusted hops, so that nothing that the visitor wrote to its left counts (the mistake
    in several advisories). Without a believed scheme it is `default_scheme`.
    """

    def __init__(self, trusted: Sequence[Network], *, default_scheme: str) -> None:
        self._trusted = tuple(trusted)
        self._default_scheme = default_scheme
        self._cache: BoundedCache[tuple[str, str, str], ClientAddress] = BoundedCache(
            _MAX_CACHED_CHAINS
        )
        # A proxy in front is the peer of every request; judging its address each time took a
        # seventh of the time of a forward-auth request.
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

        It is the same object for all connections of the peer while it is cached, so that header
        lines made for a ClientAddress serve all of them.
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
        X-Forwarded-Proto value, "" if absent.
        """
        if len(chain) > _MAX_CHAIN_LENGTH:
            # Cut between entries, because a part of an address is another address.
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
        """Clear the caches, because no further client will be looked up."""
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
    # A zone ("%eth0") is free text, which only means something on the sender's host.
    return address.ipv4_mapped or IPv6Address(int(address))
