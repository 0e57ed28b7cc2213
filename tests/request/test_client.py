from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailchat_gate.request.client import (
    _MAX_CACHED_CHAINS,
    _MAX_CACHED_PEERS,
    MAX_HOPS,
    ClientAddress,
    ClientResolver,
)

PEER = "10.0.0.1"
PRIVATE = ("10.0.0.0/8",)


def make(*trusted: str, scheme: str = "https") -> ClientResolver:
    """Return a resolver that trusts these networks."""
    return ClientResolver([ip_network(text) for text in trusted], default_scheme=scheme)


@pytest.mark.parametrize(
    ("trusted", "peer", "believed"),
    [
        ((), "127.0.0.1", False),
        ((), "10.0.0.1", False),
        (("10.0.0.0/8",), "10.255.0.1", True),
        (("10.0.0.0/8",), "11.0.0.1", False),
        (("127.0.0.1/32",), "127.0.0.1", True),
        (("127.0.0.1/32",), "127.0.0.2", False),
        (("10.0.0.0/8",), "::ffff:10.0.0.1", True),
        (("10.0.0.0/8",), "::10.0.0.1", False),
        (("::1/128",), "::1", True),
        (("::1/128",), "127.0.0.1", False),
        (("::/0",), "10.0.0.1", False),
        (("0.0.0.0/0",), "::1", False),
        (("fe80::/10",), "fe80::1%eth0", True),
        (("2001:db8::/32", "10.0.0.0/8"), "10.1.1.1", True),
        (("10.0.0.0/8",), "", False),
        (("10.0.0.0/8",), "unix", False),
        (("10.0.0.0/8",), "10.0.0.1.evil.test", False),
        (("10.0.0.0/8",), "010.0.0.1", False),
    ],
)
def test_trust(trusted: tuple[str, ...], peer: str, believed: bool) -> None:
    """Only a peer whose address lies in a trusted network of its own version is believed."""
    resolver = make(*trusted)

    assert resolver.trusts(peer) is believed
    # Asked again, it is looked up.
    assert resolver.trusts(peer) is believed


def test_peers_are_kept_within_a_bound() -> None:
    """However many addresses connect, a bounded number is kept, and each is judged rightly."""
    resolver = make("10.0.0.0/16")
    for number in range(_MAX_CACHED_PEERS + 10):
        address = f"10.{number % 2}.{number // 2 % 256}.{number // 512}"
        assert resolver.trusts(address) is (number % 2 == 0)

    assert 0 < len(resolver._peers) <= _MAX_CACHED_PEERS


def test_the_connections_of_one_address_are_one_client() -> None:
    """What was made for a client serves its next connection; addresses are kept in a bound."""
    resolver = make()
    first = resolver.direct("10.0.0.1")

    assert resolver.direct("10.0.0.1") is first
    assert resolver.direct("10.0.0.2") != first
    for number in range(_MAX_CACHED_PEERS + 10):
        address = f"10.1.{number // 256}.{number % 256}"
        assert resolver.direct(address).address == address
        # Strangers push out no client that goes on coming.
        assert resolver.direct("10.0.0.1") is first
    assert 0 < len(resolver._direct) <= _MAX_CACHED_PEERS


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:DB8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("somewhere", "somewhere"),
    ],
)
def test_direct(peer: str, address: str) -> None:
    """A peer that is not believed is itself the client, by its one spelling."""
    assert make(*PRIVATE).direct(peer) == ClientAddress(address, "https", address)


@pytest.mark.parametrize(
    ("trusted", "chain", "address", "forwarded_for"),
    [
        # Nothing, one, several.
        (PRIVATE, "", PEER, PEER),
        (PRIVATE, "203.0.113.9", "203.0.113.9", f"203.0.113.9, {PEER}"),
        (PRIVATE, "10.0.0.2", "10.0.0.2", f"10.0.0.2, {PEER}"),
        (PRIVATE, "203.0.113.9, 10.0.0.2", "203.0.113.9", f"203.0.113.9, 10.0.0.2, {PEER}"),
        (PRIVATE, "203.0.113.9,10.0.0.2", "203.0.113.9", f"203.0.113.9, 10.0.0.2, {PEER}"),
        # What stands left of the first stranger was written by him.
        (PRIVATE, "127.0.0.1, 203.0.113.9", "203.0.113.9", f"203.0.113.9, {PEER}"),
        (PRIVATE, "10.9.9.9, 203.0.113.9", "203.0.113.9", f"203.0.113.9, {PEER}"),
        (PRIVATE, "evil, 203.0.113.9, 10.0.0.2", "203.0.113.9", f"203.0.113.9, 10.0.0.2, {PEER}"),
        (PRIVATE, "1.1.1.1, 2.2.2.2, 3.3.3.3", "3.3.3.3", f"3.3.3.3, {PEER}"),
        # All trusted: the leftmost.
        (PRIVATE, "10.0.0.4, 10.0.0.3", "10.0.0.4", f"10.0.0.4, 10.0.0.3, {PEER}"),
        (("0.0.0.0/0",), "203.0.113.9, 10.0.0.2", "203.0.113.9", f"203.0.113.9, 10.0.0.2, {PEER}"),
        # Ports, brackets, mapped and zoned addresses.
        (PRIVATE, "203.0.113.9:4711", "203.0.113.9", f"203.0.113.9, {PEER}"),
        (PRIVATE, "[2001:db8::1]", "2001:db8::1", f"2001:db8::1, {PEER}"),
        (PRIVATE, "[2001:db8::1]:4711", "2001:db8::1", f"2001:db8::1, {PEER}"),
        (PRIVATE, "2001:DB8::1", "2001:db8::1", f"2001:db8::1, {PEER}"),
        (PRIVATE, "::ffff:203.0.113.9", "203.0.113.9", f"203.0.113.9, {PEER}"),
        (PRIVATE, "9.9.9.9, ::ffff:10.0.0.2", "9.9.9.9", f"9.9.9.9, 10.0.0.2, {PEER}"),
        (PRIVATE, "fe80::1%eth0", "fe80::1", f"fe80::1, {PEER}"),
        (PRIVATE, "fe80::1%é\x00 <x>", "fe80::1", f"fe80::1, {PEER}"),
        # Junk ends the walk at the last address that is known.
        (PRIVATE, "unknown", PEER, PEER),
        (PRIVATE, "203.0.113.9, unknown", PEER, PEER),
        (PRIVATE, "203.0.113.9, _hidden, 10.0.0.2", "10.0.0.2", f"10.0.0.2, {PEER}"),
        (PRIVATE, "203.0.113.9,, 10.0.0.2", "10.0.0.2", f"10.0.0.2, {PEER}"),
        (PRIVATE, "203.0.113.9,", PEER, PEER),
        (PRIVATE, ",", PEER, PEER),
        (PRIVATE, "   ", PEER, PEER),
        (PRIVATE, "1.2.3", PEER, PEER),
        (PRIVATE, "1.2.3.4.5", PEER, PEER),
        (PRIVATE, "1.2.3.256", PEER, PEER),
        (PRIVATE, "01.2.3.4", PEER, PEER),
        (PRIVATE, "0x7f.0.0.1", PEER, PEER),
        (PRIVATE, "2130706433", PEER, PEER),
        (PRIVATE, "\u0661.\u0662.\u0663.\u0664", PEER, PEER),
        (PRIVATE, "[]", PEER, PEER),
        (PRIVATE, "fe80::1%", PEER, PEER),
        (PRIVATE, '"203.0.113.9"', PEER, PEER),
        (PRIVATE, "for=203.0.113.9", PEER, PEER),
        # IPv6 proxies.
        (("10.0.0.0/8", "fd00::/8"), "9.9.9.9, fd00::2", "9.9.9.9", f"9.9.9.9, fd00::2, {PEER}"),
    ],
)
def test_chain(trusted: tuple[str, ...], chain: str, address: str, forwarded_for: str) -> None:
    """The chain is read from the right past trusted hops, up to the first who is not."""
    assert make(*trusted).forwarded(PEER, chain, "") == ClientAddress(
        address, "https", forwarded_for
    )


@pytest.mark.parametrize(
    ("sent", "scheme"),
    [
        ("", "https"),
        ("http", "http"),
        ("https", "https"),
        ("HTTP", "http"),
        (" http ", "http"),
        ("https, http", "http"),
        ("http,https", "https"),
        ("http,", "https"),
        ("ftp", "https"),
        ("javascript", "https"),
        ("http\x00", "https"),
        ("http evil", "https"),
    ],
)
def test_scheme(sent: str, scheme: str) -> None:
    """The nearest proxy's word counts if it is http or https, else the admin's."""
    assert make(*PRIVATE).forwarded(PEER, "9.9.9.9", sent).scheme == scheme
    assert make(*PRIVATE, scheme="http").forwarded(PEER, "", "").scheme == "http"


def test_long_chain_is_cut() -> None:
    """Of a thousand trusted hops only the nearest are read, and only those are sent on."""
    chain = ", ".join(f"10.0.{index // 250}.{index % 250}" for index in range(1000))
    client = make(*PRIVATE).forwarded(PEER, chain, "")

    assert client.address == f"10.0.3.{1000 - MAX_HOPS - 750}"
    assert client.forwarded_for.count(",") == MAX_HOPS


def test_endless_chain_is_cut() -> None:
    """A chain of a megabyte costs no more than its end."""
    client = make(*PRIVATE).forwarded(PEER, "1.1.1.1," * 200_000 + " 9.9.9.9", "")

    assert client == ClientAddress("9.9.9.9", "https", f"9.9.9.9, {PEER}")


def test_no_entry_is_cut_in_two() -> None:
    """Where an endless chain is cut, half of an address is not taken for an address."""
    chain = "9.9.9.9, 210.0.0.9," + " " * 2031 + "10.0.0.2"

    assert chain[-2048:].startswith("10.0.0.9,")
    assert make(*PRIVATE).forwarded(PEER, chain, "").forwarded_for == f"10.0.0.2, {PEER}"


def test_odd_peer_with_forwarding_fields() -> None:
    """A peer that is no address is named as it is."""
    assert make(*PRIVATE).forwarded("somewhere", "", "") == ClientAddress(
        "somewhere", "https", "somewhere"
    )


def test_memory_of_chains_is_bounded() -> None:
    """Chains are remembered up to a bound, and a scheme made up by a visitor is not."""
    resolver = make(*PRIVATE)

    first = resolver.forwarded(PEER, "9.9.9.9", "https")
    assert resolver.forwarded(PEER, "9.9.9.9", "https") is first
    for index in range(100):
        assert resolver.forwarded(PEER, "9.9.9.9", "x" * index) is first
    for index in range(_MAX_CACHED_CHAINS + 10):
        resolver.forwarded(PEER, f"9.9.{index // 250}.{index % 250}", "")
    assert len(resolver._cache) <= _MAX_CACHED_CHAINS
    assert resolver.forwarded(PEER, "9.9.9.9", "https") == first


@given(chain=st.text(max_size=60), scheme=st.text(max_size=10))
def test_stranger_cannot_write_himself_another_address(chain: str, scheme: str) -> None:
    """Whatever a visitor sends, the address that the trusted proxy saw is the one believed."""
    client = make(*PRIVATE).forwarded(PEER, f"{chain}, 203.0.113.9", scheme)

    assert client.address == "203.0.113.9"
    assert client.forwarded_for == f"203.0.113.9, {PEER}"
    assert client.scheme in {"http", "https"}


@given(chain=st.lists(st.one_of(st.text(max_size=20), st.ip_addresses().map(str)), max_size=5))
def test_what_is_believed_is_an_address(chain: list[str]) -> None:
    """With every hop trusted, what comes out is addresses in ASCII alone."""
    resolver = make("0.0.0.0/0", "::/0")
    client = resolver.forwarded(PEER, ",".join(chain), "")

    assert set(client.forwarded_for) <= set("0123456789abcdef:., ")
    assert client.forwarded_for.startswith(client.address)
