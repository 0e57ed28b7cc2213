"""What is known of Tailchat's groups: what follows from it, a restart, the log."""

import json
import logging
from dataclasses import replace

import pytest

from tailchat_gate.config.values.group import Group, MemberSource
from tailchat_gate.observe.audit import Audit
from tailchat_gate.observe.log import AUDIT_LOGGER_NAME
from tailchat_gate.people.groups.answer import TailchatGroup
from tailchat_gate.people.groups.keeping import MOST_NAMED, GroupReport
from tailchat_gate.people.groups.memberships import (
    Memberships,
    Resolved,
    SourceMembers,
    index,
    resolve,
)
from tailchat_gate.people.groups.records import (
    IN_ONE,
    MEMBERS,
    StoredMembers,
    read_records,
    to_records,
)
from tailchat_gate.people.slices import at_once
from tailchat_gate.state.store import MAX_TEXT, Changes, Record

NOW = 1_800_000_000.0
BOT = "b0" * 12
ID, ROLE = "6b" * 12, "6c" * 12
ALL, OPS = MemberSource(ID), MemberSource(ID, ROLE)


def test_everybody_who_comes_or_goes_is_in_the_audit_log(caplog: pytest.LogCaptureFixture) -> None:
    """A hundred have a line each, all others are named a hundred to a line."""
    caplog.set_level(logging.INFO, AUDIT_LOGGER_NAME)
    report, groups = GroupReport(Audit(lambda: 0.0)), {"ops": Group(())}
    before, after = (
        frozenset(f"{number:024x}" for number in range(first, first + 250)) for first in (0, 125)
    )
    first, then = Resolved({"ops": before}), Resolved({"ops": after})
    report.tell(groups, Resolved(), first, age=0.0)
    report.tell(groups, first, then, age=0.0)

    written = [record.__dict__["details"] for record in caplog.records]
    single = [one for one in written if one["event"] != "group-changed"]
    several = [one for one in written if one["event"] == "group-changed"]
    joined = {one["sub"] for one in single if one["event"] == "group-joined"}
    left = {one["sub"] for one in single if one["event"] == "group-left"}
    assert (len(single), len(several)) == (MOST_NAMED, 2)
    assert joined.union(*(one["joined"] for one in several)) == after - before
    assert left.union(*(one["left"] for one in several)) == before - after


def sub(number: int) -> str:
    """Return an id."""
    return f"66{number:022x}"


def people(*numbers: int) -> frozenset[str]:
    """Return ids."""
    return frozenset(map(sub, numbers))


def answered(*members: int, role: tuple[int, ...] = (), at: float = NOW) -> Memberships:
    """Return what is known after an answer about one group."""
    known = Memberships()
    take(known, *members, role=role, at=at)
    return known


def take(
    known: Memberships, *members: int, role: tuple[int, ...] = (), at: float = NOW
) -> set[MemberSource]:
    """Take an answer in."""
    group = TailchatGroup(
        people(*members) | {BOT}, frozenset((ROLE,)), {ROLE: people(*role)} if role else {}
    )
    return at_once(known.take({ID: group}, (ALL, OPS), BOT, at))


def who(known: Memberships, entries: Group, *, now: float = NOW, max_age: float = 600) -> Resolved:
    """Return who is in a group "g" of these entries."""
    return at_once(resolve({"g": entries, "static": Group((sub(7),))}, known, now, max_age))


def test_an_unchanged_answer_changes_the_time_alone() -> None:
    """The members stay the same object, so that nothing is made of them again."""
    known = answered(1, 2, role=(1,))
    before = known.get(ALL)
    assert take(known, 1, 2, role=(2,), at=NOW + 30) == {OPS}
    after = known.get(ALL)

    assert before is not None
    assert after is not None
    assert after.people is before.people == people(1, 2)
    assert (before.at, after.at) == (NOW, NOW + 30)
    known.confirm(NOW + 60)
    assert known.age((ALL, OPS), NOW + 61) == 1
    assert known.age((ALL, MemberSource("66" * 12)), NOW) is None


@pytest.mark.parametrize(
    ("after", "unknown"), [(0, False), (600, False), (601, True), (-60, False), (-61, True)]
)
def test_an_answer_counts_for_a_while_and_none_from_the_future_does(
    after: float, unknown: bool
) -> None:
    """Beyond the skew of clocks a time to come is not believed: it would count for too long."""
    found = who(answered(1), Group((ALL.entry,)), now=NOW + after)

    assert found.unknown == ({"g"} if unknown else set())
    assert found.people == {"g": frozenset() if unknown else people(1)}


def test_one_source_that_cannot_be_told_leaves_the_people_of_the_others() -> None:
    """Who is known to be in by one entry is in; about all others the gate cannot tell."""
    other = MemberSource("6d" * 12)
    found = who(answered(1, 2, role=(2,)), Group((OPS.entry, other.entry)))

    assert found == Resolved({"g": people(2)}, {"g"}, {})


@pytest.mark.parametrize(
    ("entries", "most", "count"),
    [
        ((ALL.entry,), 2, 3),
        ((ALL.entry, sub(9)), 3, 4),
        ((ALL.entry, sub(1), sub(1)), 3, None),
        ((ALL.entry, OPS.entry), 3, None),
    ],
)
def test_the_limit_counts_each_person_once(
    entries: tuple[str, ...], most: int, count: int | None
) -> None:
    """Listed people count, the bot does not, and nobody counts twice."""
    found = who(answered(1, 2, 3, role=(1,)), Group(entries, most))

    assert found.too_large == ({} if count is None else {"g": count})
    assert found.people == {"g": frozenset() if count else people(1, 2, 3)}


def test_the_index_has_the_groups_of_each_person() -> None:
    """People in the same groups share one object."""
    many = people(*range(2000))
    found = at_once(index({"a": many, "b": people(1, 2), "c": frozenset()}))

    assert found[sub(0)] == {"a"}
    assert found[sub(0)] is found[sub(1999)]
    assert found[sub(1)] == {"a", "b"}
    assert found[sub(1)] is found[sub(2)]
    assert len(found) == 2000


# The store


def restored(records: list[Record]) -> dict[MemberSource, SourceMembers]:
    """Return what a restart reads."""
    return dict(read_records(records))


def test_a_restart_reads_what_was_written() -> None:
    """Members of more than one record come back whole, with their time."""
    known = SourceMembers.of(people(*range(2 * IN_ONE + 5)), NOW)
    gone = SourceMembers.of(frozenset(), NOW, gone=True)
    records = [*to_records(ALL, known), *to_records(OPS, gone)]

    assert restored(records) == {ALL: known, OPS: gone}
    assert len(records) == 3 + 1 + 1
    assert all(len(record.key) + len(record.body) <= MAX_TEXT for record in records)
    assert {record.kind for record in records} == {MEMBERS}


def test_the_head_alone_moves_the_time() -> None:
    """While nothing changes one small record is written, whatever the order of the members."""
    known = SourceMembers.of(people(*range(5)), NOW)
    again = SourceMembers.of(frozenset(sorted(known.people, reverse=True)), NOW + 30)
    records = {record.key: record for record in to_records(ALL, known)}
    records |= {record.key: record for record in to_records(ALL, again, whole=False)}

    assert restored([*records.values()]) == {ALL: again}


def test_parts_of_two_answers_are_never_taken_for_one() -> None:
    """A process that died between two records leaves nothing that could be believed."""
    old = to_records(ALL, SourceMembers.of(people(*range(IN_ONE + 1)), NOW))
    new = to_records(ALL, SourceMembers.of(people(*range(1, IN_ONE + 2)), NOW + 30))
    for mixed in ([old[0], new[1], new[2]], [new[0], old[1], new[2]], [new[0], new[1], old[2]]):
        assert restored(mixed) == {}
    for part in range(3):
        assert restored([*new[:part], *new[part + 1 :]]) == {}


def test_a_part_with_other_members_is_not_believed() -> None:
    """The digest is that of the members, not only a mark that the parts share."""
    part, head = to_records(ALL, SourceMembers.of(people(1), NOW))
    other, _ = to_records(ALL, SourceMembers.of(people(2), NOW))
    body = {**json.loads(part.body), "members": json.loads(other.body)["members"]}

    assert restored([replace(part, body=json.dumps(body)), head]) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"intact": False},
        {"body": "x"},
        {"body": "[]"},
        {"body": json.dumps({"at": "x", "gone": False, "digest": "", "parts": 0})},
        {"body": json.dumps({"at": 1, "gone": False, "digest": "", "parts": -1})},
        {"body": json.dumps({"at": 1, "gone": False, "digest": "", "parts": 10**9})},
        {"key": "tailchat-group:x"},
    ],
)
def test_what_is_damaged_is_not_known(change: dict[str, object]) -> None:
    """A damaged record lets nobody in and keeps nobody out: the gate cannot tell."""
    *parts, head = to_records(ALL, SourceMembers.of(people(1), NOW))

    assert restored([*parts, replace(head, **change)]) == {}  # type: ignore[arg-type]


def test_the_later_answer_counts() -> None:
    """What another process has stored replaces only what is older; changes are not followed."""
    memberships = Memberships()
    follower = StoredMembers(memberships)
    later, earlier = SourceMembers.of(people(1), NOW), SourceMembers.of(people(2), NOW - 1)
    for known in (later, earlier):
        follower.take(Changes(to_records(ALL, known), complete=True))
    follower.take(Changes(to_records(ALL, SourceMembers.of(people(3), NOW + 9)), complete=False))

    assert memberships.get(ALL) == later
    assert restored([*follower.known(lost=True)]) == {ALL: later}


def test_compaction_keeps_whole_answers() -> None:
    """Parts of earlier answers and of entries that are gone are dropped."""
    old = to_records(ALL, SourceMembers.of(people(*range(2 * IN_ONE)), NOW))
    new = to_records(ALL, SourceMembers.of(people(1), NOW + 30))
    stray = to_records(OPS, SourceMembers.of(people(1), NOW))[:-1]
    by_key = {record.key: record for record in (*stray, *old, *new)}

    kept = StoredMembers.kind.compact([*by_key.values()])

    assert {record.key for record in kept} == {ALL.entry, f"{ALL.entry} 0"}
    assert restored([*kept]) == {ALL: SourceMembers.of(people(1), NOW + 30)}
