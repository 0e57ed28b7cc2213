"""The cookies that bind logins to a browser: shared, bounded, and none in another's place."""

import base64
import os

import pytest
from gatekit import Response, RunningGate, ask, login_cookie, request_bytes
from hypothesis import given
from hypothesis import strategies as st

from tailchat_gate.identity.oauth.login_state import (
    MAX_KEPT,
    SHARED_SECONDS,
    LoginCookie,
    choose,
    is_browser_cookie,
    is_name,
    new_browser_cookie,
    surplus,
)

NOW = 1_800_000_000.5
PREFIX = "__Host-tailchat_gate_login"


def _chosen(*cookies: LoginCookie, now: float = NOW) -> LoginCookie:
    return choose(cookies, prefix=PREFIX, now=now, random_bytes=os.urandom)


@given(random=st.binary(min_size=32, max_size=32), now=st.integers(0, 2**33))
def test_own_values_are_recognised(random: bytes, now: int) -> None:
    """Every value that is made is recognised, so that tabs share it."""
    value = new_browser_cookie(lambda size: random[:size], now)

    assert len(value) == 43
    assert is_browser_cookie(value)


@pytest.mark.parametrize(
    "value",
    ["", "a" * 42, "a" * 44, "A" * 42 + "B", "A" * 42 + "=", "+" * 43, "A" * 43 + "\n", "é"],
)
def test_other_values_are_not_recognised(value: str) -> None:
    """A value of another length, alphabet or spelling is replaced by a new one."""
    assert not is_browser_cookie(value)
    assert _chosen(LoginCookie(f"{PREFIX}_abcdef", value)).value != value


def test_a_value_has_224_random_bits() -> None:
    """All but the time of a value is random, and it is another one each time."""
    sizes: list[int] = []

    def recording(size: int) -> bytes:
        sizes.append(size)
        return os.urandom(size)

    values = {new_browser_cookie(recording, NOW) for _ in range(50)}

    assert len(values) == 50
    assert set(sizes) == {28}


def test_logins_that_begin_at_once_keep_a_cookie_each() -> None:
    """Without a cookie of before, each login gets a name of its own, which no other takes."""
    made = [_chosen() for _ in range(50)]

    assert len({cookie.name for cookie in made}) == 50
    assert all(is_name(cookie.name, PREFIX) for cookie in made)


def test_logins_share_a_cookie_for_two_hours() -> None:
    """The newest that the browser has is shared while it is young enough, then a new one made."""
    old = _chosen(now=NOW - 60)
    new = _chosen(now=NOW - 20)

    assert _chosen(old, new) == _chosen(new, old) == new
    assert _chosen(new, now=NOW - 20 + SHARED_SECONDS - 1) == new
    assert _chosen(new, now=NOW - 20 + SHARED_SECONDS + 1) != new
    assert _chosen(new, now=NOW - 120) != new


def test_surplus_cookies_go_oldest_first() -> None:
    """Those that no gate made go first, then the oldest, and never the one that is in use."""
    oldest = _chosen(now=NOW - 5000)
    ours = [_chosen(now=NOW - number) for number in range(MAX_KEPT)]
    junk = LoginCookie(f"{PREFIX}_junk00", "x")

    assert surplus(ours) == []
    assert surplus([*ours, oldest]) == [oldest.name]
    assert surplus([oldest, *ours, junk]) == [junk.name, oldest.name]
    assert surplus([oldest, *ours, junk], oldest.name) == [junk.name, ours[-1].name]
    assert surplus(ours, "another") == [ours[-1].name]


async def test_a_browser_keeps_few_login_cookies(gate: RunningGate) -> None:
    """The cookies of a hundred logins that began at once are pruned while others begin."""
    begun = [login_cookie(await _start(gate)).partition("=") for _ in range(100)]
    jar = {name: value for name, _, value in begun}
    assert len(jar) == 100
    for _ in range(5):
        response = await _start(gate, jar)
        for line in response.values("Set-Cookie"):
            pair, *attributes = line.split("; ")
            name, _, value = pair.partition("=")
            assert {"HttpOnly", "Path=/", "SameSite=Lax"} <= set(attributes)
            if "Max-Age=0" in attributes:
                del jar[name]
            else:
                jar[name] = value

    assert len(jar) == MAX_KEPT
    shared = [line for line in response.values("Set-Cookie") if "Max-Age=7200" in line]
    assert len(shared) == 1


async def _start(gate: RunningGate, jar: dict[str, str] | None = None) -> Response:
    fields = {"Cookie": "; ".join(map("=".join, jar.items()))} if jar else {}
    return await ask(gate.port, request_bytes("/oauth2/start?rd=/x", **fields))


def test_a_value_tells_when_it_was_made() -> None:
    """The first four bytes are the Unix second; they are no secret."""
    raw = base64.urlsafe_b64decode(_chosen().value + "=")

    assert int.from_bytes(raw[:4], "big") == int(NOW)
