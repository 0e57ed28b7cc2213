"""Client addresses: only what trusted proxies wrote is believed, read from the right."""

from ipaddress import ip_address, ip_network

from fuzz.cutting import lines_of, steered
from fuzz.reference.client import believed_hops
from fuzz.target import Target
from tailchat_gate.request.client import MAX_HOPS, ClientResolver

_NETWORKS = (
    (),
    ("10.0.0.0/8",),
    ("10.0.0.0/8", "::1/128", "fd00::/8"),
    ("0.0.0.0/0", "::/0"),
)
_TRUSTED = tuple(tuple(map(ip_network, networks)) for networks in _NETWORKS)
#: As the socket has them, and as they are told.
_PEERS = (
    *(("10.0.0.1", "10.0.0.1"), ("203.0.113.9", "203.0.113.9"), ("::1", "::1")),
    *(("fd00::1", "fd00::1"), ("::ffff:10.0.0.1", "10.0.0.1"), ("fe80::1%eth0", "fe80::1")),
)
_MAX_LENGTH = 2048


def check(data: bytes) -> None:
    """Resolve a client; one byte chooses who is trusted, one the peer; scheme, then chain."""
    steer, rest = steered(data, 2)
    trusted = _TRUSTED[steer[0] % len(_TRUSTED)]
    peer, told = _PEERS[steer[1] % len(_PEERS)]
    scheme, chain = lines_of(rest, 2)
    resolver = ClientResolver(trusted, default_scheme="https")
    direct = resolver.direct(peer)
    assert direct.address == direct.forwarded_for == told
    address = ip_address(told)
    assert resolver.trusts(peer) == any(
        address.version == network.version and address in network for network in trusted
    )
    found = resolver.forwarded(peer, chain, scheme)
    assert resolver.forwarded(peer, chain, scheme) == found
    wanted = believed_hops(told, _bounded(chain), trusted)
    assert found.forwarded_for.split(", ") == wanted[::-1]
    assert found.address == wanted[-1]
    assert found.forwarded_for.isascii()
    assert all(ip_address(hop) for hop in wanted)
    last = scheme.split(",")[-1].strip().lower()
    assert found.scheme == (last if last in {"http", "https"} else "https")


def _bounded(chain: str) -> str:
    """Return the hops that are looked at: the last ones, none of them cut in two."""
    if len(chain) > _MAX_LENGTH:
        chain = chain[-_MAX_LENGTH - 1 :].partition(",")[2]
    return ",".join(chain.split(",")[-MAX_HOPS:])


TARGET = Target(
    check,
    parsers=("request.client",),
    seeds=(
        b"\1\0https\n198.51.100.7, 10.0.0.2",
        b"\2\2http, https\n[2001:db8::1]:443, fd00::2, 10.1.1.1:80",
        b"\3\4ftp\n::ffff:10.0.0.3,unknown, 10.0.0.4",
        b"\1\0\n_hidden, 10.0.0.1%1,fe80::1%eth0",
        b"\0\1http\n1.2.3.4",
        b"\1\0http\n" + b"10.0.0.2," * 40,
        b"\1\0http\n1.2.3.4,210.0.0.9,10.0.0.9" + b"," + b" " * 2036 + b"10.0.0.2",
    ),
    words=(
        *(
            b"10.0.0.2",
            b"203.0.113.5",
            b"::1",
            b"[::1]:80",
            b", ",
            b",",
            b":80",
            b"::ffff:10.0.0.5",
        ),
        *(b"%eth0", b"[", b"]", b" ", b"\xa0", b"unknown", b"010.0.0.1", b"https", b"http", b"\n"),
    ),
)
