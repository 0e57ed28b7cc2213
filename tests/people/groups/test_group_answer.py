"""The answer about groups is read whole or not at all, in steps of bounded length."""

import gc
import json
import time
from collections.abc import Generator
from typing import Any, TypeVar

import pytest
from choices import Choices, chosen
from hypothesis import given, settings
from hypothesis import strategies as st

from tailchat_gate.people.groups import answer as group_answer
from tailchat_gate.people.groups.answer import TailchatGroup, UnreadableError, read_groups

_T = TypeVar("_T")
GROUP, OTHER, ROLE = "6b" * 12, "6c" * 12, "6d" * 12


def sub(number: int) -> str:
    """Return an id."""
    return f"66{number:022x}"


def finish(steps: Generator[None, None, _T]) -> tuple[_T, int]:
    """Return the result of a generator and its number of pauses."""
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value, count
        count += 1


def body(*groups: dict[str, Any], **more: object) -> bytes:
    """Return an answer as JavaScript writes it."""
    answer = {"code": 200, "data": [*groups], **more}
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()


def group(
    id_: str = GROUP, people: int = 3, roles: tuple[str, ...] = (ROLE,), **more: object
) -> dict[str, Any]:
    """Return a group whose even members have the role."""
    usual: dict[str, Any] = {
        "_id": id_,
        "name": '星野 "}],{[',
        "owner": sub(0),
        "members": [
            {"userId": sub(number), "roles": [] if number % 2 else [ROLE]}
            for number in range(people)
        ],
        "roles": [{"_id": role, "name": "on/call\n", "permissions": []} for role in roles],
        "panels": [{"id": "p", "name": "général"}],
    }
    return {**usual, **more}


def test_only_the_wanted_groups_are_kept() -> None:
    """Of other groups nothing is left, whatever they hold."""
    found, _ = finish(read_groups(body(group(), group(OTHER)), {GROUP}))

    assert found == {
        GROUP: TailchatGroup(
            frozenset(map(sub, range(3))),
            frozenset((ROLE,)),
            {ROLE: frozenset((sub(0), sub(2)))},
        )
    }


def test_a_role_counts_while_its_group_has_it() -> None:
    """A role that is gone is None, one that nobody has is empty, "" is every member."""
    (there,) = finish(read_groups(body(group()), {GROUP}))[0].values()
    (gone,) = finish(read_groups(body(group(roles=("6e" * 12,))), {GROUP}))[0].values()

    assert there.who("") == gone.who("") == frozenset(map(sub, range(3)))
    assert there.who(ROLE) == frozenset((sub(0), sub(2)))
    assert gone.who(ROLE) is None
    assert gone.who("6e" * 12) == frozenset()
    assert gone.by_role == {}


def test_the_order_of_the_keys_and_odd_members_do_not_matter() -> None:
    """Ids that are none are nobody's, roles that are no texts are none."""
    odd = [{"userId": "x", "roles": [ROLE]}, {"roles": [1, None, ROLE], "userId": sub(9)}]
    answer = {"members": odd, "roles": [{"_id": ROLE}, {"name": "x"}, 3], "_id": GROUP}

    found, _ = finish(read_groups(body(answer), {GROUP}))

    assert found[GROUP].members == found[GROUP].who(ROLE) == frozenset((sub(9),))


def test_ten_thousand_members_are_read_in_many_short_steps() -> None:
    """The answer of a large group has a pause at least every few kilobytes."""
    large = body(group(people=10_000), group(OTHER, people=10_000))

    found, pauses = finish(read_groups(large, {GROUP}))

    assert len(found[GROUP].members) == 10_000
    assert len(found[GROUP].who(ROLE) or ()) == 5_000
    assert pauses > len(large) / group_answer._PIECE


@pytest.mark.parametrize(
    "blown",
    [
        {"name": 'x\\"' * 500_000},
        {"panels": [{"meta": {"a": [[1] * 1000] * 100}}] * 3},
        {"x" * 100_000: 1},
        {"members": [{"userId": sub(1), "roles": [ROLE, "y" * 40] * 20_000}]},
        {"roles": [{"_id": ROLE, "permissions": ["z" * 30] * 20_000}]},
        {"meta": json.loads("[" * 100 + "0" * 1 + "]" * 100)},
    ],
)
def test_what_strangers_blow_up_is_read_in_steps_too(blown: dict[str, Any]) -> None:
    """Long texts, lists and deep values inside a group cost no long step and lose no member."""
    found, _ = finish(read_groups(body(group(OTHER, **blown), group()), {GROUP, OTHER}))

    assert found[GROUP].members == frozenset(map(sub, range(3)))
    assert OTHER in found


def _times(answer: bytes) -> list[int]:
    """Return the CPU time of each step that it takes to read an answer, in ns."""
    times: list[int] = []
    steps = read_groups(answer, {GROUP})
    while True:
        before = time.thread_time_ns()
        try:
            next(steps)
        except StopIteration:
            return times
        times.append(time.thread_time_ns() - before)


def test_no_step_is_long() -> None:
    """The longest step of an answer of 3 MB takes a small part of the CPU time of all."""
    answer = body(group(people=20_000, name="x" * 500_000, panels=[{"a": 1}] * 20_000))
    # A step takes what it takes at its quickest; the collector looks through other tests' objects.
    gc.disable()
    try:
        quickest = [min(times) for times in zip(*(_times(answer) for _ in range(5)), strict=True)]
    finally:
        gc.enable()
    assert max(quickest) < sum(quickest) / 5


@pytest.mark.parametrize("name", ['"' * 500_000, "\\" * 500_000, 'x\\"' * 300_000])
def test_a_text_of_escapes_is_read_in_steps_too(name: str) -> None:
    """Each escape of a text that strangers wrote takes time, so that there are pauses in it."""
    large = body(group(OTHER, name=name), group())

    found, pauses = finish(read_groups(large, {GROUP}))

    assert len(found[GROUP].members) == 3
    assert pauses > len(large) / group_answer._PIECE


def test_the_panels_of_a_group_have_types() -> None:
    """One without an id or a type is none."""
    panels = [{"id": "a", "type": 0}, {"id": "b", "type": 1}, {"id": "c"}, {"type": 0}, 3]
    found, _ = finish(read_groups(body(group(panels=panels)), {GROUP}))

    assert found[GROUP].panels == {"a": 0, "b": 1}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"null",
        b"<html>",
        b'{"code":200}',
        b'{"data":[]}',
        b'{"code":500,"data":[]}',
        b'{"code":200,"data":null}',
        b'{"code":200,"data":{}}',
        b'{"code":200,"data":[1]}',
        b'{"code":200,"data":[{}]}',
        b'{"code":200,"data":[{"_id":1}]}',
        b'{"code":200,"data":[{"_id":"x","members":1}]}',
        b'{"code":200,"data":[{"_id":"x","members":[1]}]}',
        b'{"code":200,"data":[{"_id":"x","members":[{"userId":1}]}]}',
        b'{"code":200,"data":[{"_id":"x"}]',
        b'{"code":200,"data":[{"_id":"x"}]}x',
        b'{"code":200,"data":[{"_id":"x"},]}',
        b'{"code":200,"data":[{"_id":"x","name":"' + b"y" * 9999,
        b'{"code":200,"data":[{"_id":"x","m":' + b"[" * 9999 + b"]" * 9999 + b"}]}",
        b'{"code":200,"data":[{"_id":"x","m":' + b"[" * 9999,
    ],
)
def test_what_is_not_whole_is_refused(text: bytes) -> None:
    """Anything but a whole answer in Tailchat's form says nothing about anybody."""
    with pytest.raises(UnreadableError):
        finish(read_groups(text, {"x"}))


#: What is written in more than one way, or of several bytes, and what ends or nests a value.
_SIGNS = 'ax019.-+eE \t\n\x00\x1f\x7f"\\/{}[]:,\xe9\u2028\u661f\U0001f600'
_NUMBERS = (0, -1, 10**9, -(10**18), 2**64, -(2**127))


def _words(choose: Choices, most: int) -> str:
    return "".join(choose.several(_SIGNS, most))


def _any(choose: Choices, depth: int) -> object:
    """Return any value that JSON has, nested as deep."""
    match choose.below(6 if depth else 4):
        case 0:
            return choose.of((None, True, False))
        case 1:
            return choose.of(_NUMBERS) + choose.below(1000)
        case 2 | 3:
            return _words(choose, 30)
        case 4:
            return [_any(choose, depth - 1) for _ in range(choose.below(9))]
        case _:
            return {_words(choose, 8): _any(choose, depth - 1) for _ in range(choose.below(9))}


def _further(choose: Choices) -> tuple[dict[str, Any], int]:
    """Return further keys of a group, and the bytes of a piece."""
    piece = choose.between(64, 256)
    return {_words(choose, 10): _any(choose, 4) for _ in range(choose.below(7))}, piece


@settings(max_examples=100)
@given(chosen(_further, 512))
def test_it_reads_what_json_reads(further: tuple[dict[str, Any], int]) -> None:
    """Whatever stands in a group beside its members, pieces of any size give the same."""
    more, piece = further
    more = {key: value for key, value in more.items() if key not in ("_id", "members", "roles")}
    text = json.dumps({"code": 200, "data": [{**more, **group()}, more | {"_id": OTHER}]}).encode()
    before = group_answer._PIECE
    group_answer._PIECE = piece  # type: ignore[misc]
    try:
        found, _ = finish(read_groups(text, {GROUP, OTHER}))
    finally:
        group_answer._PIECE = before  # type: ignore[misc]

    assert found[GROUP].who(ROLE) == frozenset((sub(0), sub(2)))
    assert found[OTHER] == TailchatGroup()


@given(st.binary(max_size=200), st.integers(0, 400))
def test_damaged_answers_never_raise_anything_else(junk: bytes, at: int) -> None:
    """Any bytes in the middle of an answer are read or refused."""
    text = body(group())
    try:
        finish(read_groups(text[:at] + junk + text[at + len(junk) :], {GROUP}))
    except UnreadableError:
        return
