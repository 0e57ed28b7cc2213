"""What is said of a host: whole names, wildcards, and what is neither."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailchat_gate.request.target import HostPatterns

PATTERNS = {
    "*.example.com": "below",
    "*.b.example.com": "far below",
    "wiki.example.com": "wiki",
    "*.lan": "lan",
    "[::1]": "address",
}


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("wiki.example.com", "wiki"),
        ("a.example.com", "below"),
        ("x.wiki.example.com", "below"),
        ("b.example.com", "below"),
        ("a.b.example.com", "far below"),
        ("x.y.b.example.com", "far below"),
        ("a_b.-c.example.com", "below"),
        ("tool.lan", "lan"),
        ("example.com.lan", "lan"),
        ("[::1]", "address"),
        ("example.com", None),
        ("badexample.com", None),
        ("a.badexample.com", None),
        (".example.com", None),
        ("a..example.com", None),
        (".a.example.com", None),
        ("a.example.com.", None),
        ("a.example.com:80", None),
        ("a.example.com.evil", None),
        ("A.EXAMPLE.COM", None),
        ("lan", None),
        ("com", None),
        ("", None),
        (".", None),
        ("x.[::1]", None),
    ],
)
def test_what_is_said_of_a_host(host: str, said: str | None) -> None:
    """A whole name counts first, then the longest wildcard by whole labels, or nothing."""
    assert HostPatterns(PATTERNS).get(host) == said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.b.example.com", ["far below", "below"]),
        ("b.example.com", ["below"]),
        ("wiki.example.com", ["below"]),
        ("example.com", []),
        ("other", []),
    ],
)
def test_which_wildcards_cover_a_name(name: str, said: list[str]) -> None:
    """All wildcards that cover a name are told, the longest first."""
    assert HostPatterns(PATTERNS).covering(name) == said


def test_without_wildcards() -> None:
    """Whole names alone cover nothing else."""
    assert HostPatterns({"a.test": 1}).get("x.a.test") is None
    assert HostPatterns[int]({}).get("") is None


LABELS = st.sampled_from(("a", "b", "com", "example", "", "x"))
NAMES = st.lists(LABELS, min_size=1, max_size=5).map(".".join)


@given(name=NAMES, suffixes=st.lists(NAMES.filter(lambda name: "" not in name.split("."))))
def test_any_wildcards_cover_what_ends_with_their_labels(name: str, suffixes: list[str]) -> None:
    """A name is covered by just those wildcards whose labels end it, with more before them."""
    labels = name.split(".")
    expected = [
        suffix
        for suffix in set(suffixes)
        if all(labels) and len(labels) > suffix.count(".") + 1 and name.endswith(f".{suffix}")
    ]
    patterns = HostPatterns({f"*.{suffix}": suffix for suffix in suffixes})

    assert patterns.get(name) == max(expected, key=len, default=None)
