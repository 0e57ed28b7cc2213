"""Records that no gate has written, by whom ever: no follower stumbles over one."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import pytest
from gatekit import START, SUB, RunningGate

from tailchat_gate.identity.access_requests import AccessRequest
from tailchat_gate.identity.grants import Grant
from tailchat_gate.state.activity import StoredRefusals, TokenUse
from tailchat_gate.state.memory import MemoryStore
from tailchat_gate.state.store import Changes, Followers, Kind, Record, is_second

NOW = int(START)
#: By kind: the key of a record, and its body.
USUAL: dict[str, tuple[str, Any]] = {
    "rate": ("logins 192.0.2.1", {"full_at": NOW}),
    "tailchat-members": (
        f"tailchat-group:{SUB}",
        {"at": NOW, "gone": False, "digest": "", "parts": 0},
    ),
    "refusal": (
        f"{SUB} tool denied",
        {
            "person": [SUB, "Alice", "0042"],
            "route": "tool",
            "host": "gate.test",
            "path": "/",
            "reason": "denied",
            "first": START,
            "last": START,
            "count": 1,
        },
    ),
    "token-use": ("ci", NOW),
    "session": (
        "A" * 22,
        {"began": NOW, "seen": NOW, "browser": "", "tokens": 0, "checked": NOW, "sealed": "x"},
    ),
    "grant": (f"{SUB} tool", asdict(Grant(SUB, "tool", NOW, NOW + 60))),
    "access-request": (
        f"{SUB} tool",
        asdict(AccessRequest("k", SUB, "Alice", "0042", "tool", "why", NOW, NOW + 60)),
    ),
    "revocation": (
        f"sub:{SUB}",
        {"kind": "lock", "target": f"sub:{SUB}", "at": NOW, "until": None, "message": ""},
    ),
}
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0.5, float("nan"), float("inf"), 10**30, 10**400, "", "x", "\x00", "\ud800"),
    *([], {}, [[]], [None] * 3, {"a": 1}, "x" * 10_000),
)
NOT_JSON = ("", "{", '"', "NaN", "[" * 10_000, '{"a":' * 10_000)


def _bodies(usual: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON
    yield from NOT_JSON
    yield from map(json.dumps, ODD)
    if isinstance(usual, dict):
        for name in usual:
            yield json.dumps({key: value for key, value in usual.items() if key != name})
            yield from (json.dumps({**usual, name: odd}) for odd in ODD)
        yield json.dumps({**usual, "later": 1})
    yield json.dumps(usual)


@pytest.mark.parametrize("kind", USUAL)
async def test_no_record_is_too_odd_to_be_taken(gate: RunningGate, kind: str) -> None:
    """Whatever a record holds, it is taken or left, and what is known can be written again."""
    store = gate.generation.process_state.store
    assert isinstance(store, MemoryStore)
    followers = {follower.kind.name: follower for follower in store._followers}
    assert set(followers) == set(USUAL)
    follower, (key, usual) = followers[kind], USUAL[kind]
    for body in _bodies(usual):
        for where in (key, "", "\ud800"):
            record = Record(kind, where, body, SUB, NOW + 60)
            follower.take(Changes([record], complete=False))
            follower.kind.compact([record, record])
            follower.kind.merge(record, record)
            known = [*follower.known(lost=True), *follower.unsaved(last=True)]
            assert all(one.until is None or is_second(one.until) for one in known), body


class _Faulty(TokenUse):
    """A follower that cannot take anything."""

    def take(self, changes: Changes) -> None:
        """Fail."""
        raise ZeroDivisionError


class _Counting(StoredRefusals):
    """A follower that counts what it was handed."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind  # type: ignore[misc] # of its own
        self.taken = 0

    def take(self, changes: Changes) -> None:
        """Count the records."""
        self.taken += len(changes.records)


def test_a_follower_that_stumbles_hides_nothing_from_the_others() -> None:
    """The followers before it and after it get their records, and the fault is reported."""
    make: Callable[[str], Kind] = lambda name: Kind(name, 1, lambda records: records)  # noqa: E731
    before, after = _Counting(make("a")), _Counting(make("z"))
    followers = Followers()
    for follower in (before, _Faulty(), after):
        followers.add(follower)
    with pytest.raises(ExceptionGroup):
        followers.hand_out(
            [Record("a", "k", "1"), Record("token-use", "k", "1"), Record("z", "k", "1")],
            complete=False,
            doubtful=False,
        )

    assert (before.taken, after.taken) == (1, 1)
