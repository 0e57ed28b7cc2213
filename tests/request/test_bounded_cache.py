"""The one bounded memory: what it holds, what it drops, and what it never takes."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailchat_gate.bounded import BoundedCache


def _length(key: bytes, _made: object) -> int:
    return len(key)


def test_what_was_kept_is_found_until_it_is_dropped() -> None:
    """A key is found as it was kept last, and not once it is dropped or all is."""
    cache: BoundedCache[str, int] = BoundedCache(10)

    assert cache.get("a") is None
    cache.keep("a", 1)
    cache.keep("a", 2)
    cache.keep("b", 3)
    assert (cache.get("a"), cache.get("b"), len(cache)) == (2, 3, 2)
    cache.drop("a")
    cache.drop("never")
    assert (cache.get("a"), cache.get("b"), len(cache)) == (None, 3, 1)
    cache.clear()
    assert (cache.get("b"), len(cache)) == (None, 0)


@pytest.mark.parametrize("entry", [1, 2, 7, 64])
def test_its_entries_cost_no_more_than_its_bound(entry: int) -> None:
    """However many keys come, what is kept costs no more than the bound, and is not little."""
    cache: BoundedCache[bytes, int] = BoundedCache(256, cost=_length)
    for number in range(2000):
        cache.keep(number.to_bytes(entry if entry > 1 else 2, "big")[-entry:], number)
        assert len(cache) * entry <= 256

    assert len(cache) * entry >= 128 - entry


def test_what_is_asked_for_outlives_a_flood_of_new_keys() -> None:
    """A key that is used stays; one that nobody asks for goes."""
    cache: BoundedCache[str, str] = BoundedCache(8)
    cache.keep("used", "x")
    cache.keep("unused", "x")
    for number in range(1000):
        cache.keep(f"new {number}", "x")
        assert cache.get("used") == "x"

    assert cache.get("unused") is None


def test_an_entry_that_is_too_large_is_not_kept() -> None:
    """One large entry does not push out the others."""
    cache: BoundedCache[bytes, int] = BoundedCache(100, cost=_length, largest=20)
    cache.keep(b"small", 1)
    cache.keep(b"x" * 21, 2)
    cache.keep(b"y" * 20, 3)

    assert cache.get(b"x" * 21) is None
    assert (cache.get(b"small"), cache.get(b"y" * 20)) == (1, 3)


def test_a_key_that_comes_only_once_is_not_kept() -> None:
    """Ever new keys take no memory and push out nothing; the second time a key is kept."""
    cache: BoundedCache[str, int] = BoundedCache(8, twice=True)
    cache.keep("repeats", 1)
    assert cache.get("repeats") is None
    cache.keep("repeats", 1)
    for number in range(100_000):
        cache.keep(f"once {number}", number)

    assert cache.get("repeats") == 1
    assert len(cache) <= 2, "but for the few whose hashes are alike"


@given(
    st.lists(
        st.tuples(st.sampled_from(["keep", "get", "drop"]), st.integers(0, 30), st.integers(1, 9))
    )
)
def test_it_never_tells_a_wrong_value(steps: list[tuple[str, int, int]]) -> None:
    """Whatever comes in whatever order, a key has the value of its last `keep`, or none."""
    cache: BoundedCache[int, tuple[int, int]] = BoundedCache(20, cost=lambda _, made: made[1])
    last: dict[int, tuple[int, int]] = {}
    for number, (step, key, cost) in enumerate(steps):
        if step == "keep":
            last[key] = (number, cost)
            cache.keep(key, last[key])
        elif step == "drop":
            last.pop(key, None)
            cache.drop(key)
        assert cache.get(key) in {None, last.get(key)}
        assert _cost_of_all(cache) <= 20


def _cost_of_all(cache: BoundedCache[int, tuple[int, int]]) -> int:
    return sum(made[1] for half in (cache._young, cache._old) for made in half.values())


@pytest.mark.parametrize(
    "make",
    [lambda: BoundedCache[str, int](0), lambda: BoundedCache[str, int](1)],
    ids=["no room", "room for one"],
)
def test_a_bound_too_small_for_halves_still_holds(
    make: Callable[[], BoundedCache[str, int]],
) -> None:
    """A cache with room for one or none keeps working, and keeps no more than two."""
    cache = make()
    for number in range(10):
        cache.keep(str(number), number)

    assert cache.get("9") == 9
    assert len(cache) <= 2
