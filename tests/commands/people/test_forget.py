"""What is stored about a person is listed and erased; what keeps them out stays unless asked."""

import asyncio
import base64
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from click.testing import CliRunner, Result
from gatekit import ALICE, SUB, Clock, RawUpstream, ask, request_bytes, until
from storekit import StoredEntries

from tailchat_gate.cli import main
from tailchat_gate.config.values.group import MemberSource
from tailchat_gate.identity.revocation.records import to_record
from tailchat_gate.identity.revocation.state import EndedSession, Lock, SignedOut
from tailchat_gate.people.groups.memberships import SourceMembers
from tailchat_gate.people.groups.records import IN_ONE, MEMBERS, read_records, to_records
from tailchat_gate.state.sqlite import engine
from tailchat_gate.state.sqlite.database import Database
from tailchat_gate.state.sqlite.files import NAME, Files
from tailchat_gate.state.sqlite.recovery import alone
from tailchat_gate.state.store import Record

Start = Callable[..., Any]
LATER = 4_000_000_000
ANYBODY = 65534


def _run(directory: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments, "--state", str(directory)])


def _everything(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.iterdir())


def test_what_is_in_force_stays_unless_asked(tmp_path: Path) -> None:
    """A lock and an ended session of today are kept and said to be; those of the past go."""
    stored = StoredEntries(tmp_path)
    person = f"sub:{SUB}"
    stored.append(
        (
            Lock(person, 1, None, "no"),
            EndedSession("new", SUB, 1, LATER),
            EndedSession("old", SUB, 1, 2),
            SignedOut("sub:other", 1, LATER),
        )
    )
    listed = _run(tmp_path, "forget", person, "--list")
    erased = _run(tmp_path, "forget", person)
    left = stored.read()
    all_of_it = _run(tmp_path, "forget", person, "--in-force")
    nothing = _run(tmp_path, "forget", person)

    assert [done.exit_code for done in (listed, erased, all_of_it, nothing)] == [0] * 4
    assert listed.output.splitlines() == [
        "a lock of 1970-01-01 00:00:01 UTC 'no'",
        "an ended session of 1970-01-01 00:00:01 UTC, until 2096-10-02 07:06:40 UTC",
        "an ended session of 1970-01-01 00:00:01 UTC, until 1970-01-01 00:00:02 UTC",
    ]
    assert [line.partition(": ")[0] for line in erased.output.splitlines()] == [
        *("kept, still in force", "kept, still in force", "erased")
    ]
    assert {type(entry) for entry in left} == {Lock, EndedSession, SignedOut}
    assert len(left) == 3
    assert stored.read() == [SignedOut("sub:other", 1, LATER)]
    assert nothing.output == f"nothing is stored about {person}\n"


def _stored_members(directory: Path) -> dict[MemberSource, SourceMembers]:
    return dict(read_records(_member_records(directory)))


def _member_records(directory: Path) -> list[Record]:
    database = Database(Files(directory), Clock(), {})
    database.open()
    try:
        return [one for _, one in database.read_all().rows if one.kind == MEMBERS]
    finally:
        database.close()


def test_members_of_groups_lose_the_person_and_keep_the_others(tmp_path: Path) -> None:
    """In each group, also where a part of an answer is gone with them, or an answer is torn."""
    source, torn = MemberSource("6a" + "0" * 22), MemberSource("6d" + "0" * 22)
    role = MemberSource("6b" + "0" * 22, "6c" + "0" * 22)
    others = frozenset(f"65{number:022x}" for number in range(IN_ONE))
    known = {
        # The person is the one who makes a second part needed.
        source: SourceMembers.of(others | {SUB}, 1_800_000_000.0),
        role: SourceMembers.of(frozenset((SUB,)), 1_800_000_000.0),
    }
    half = to_records(torn, SourceMembers.of(frozenset((SUB,)), 1_800_000_000.0))[:-1]
    files = Files(tmp_path)
    files.prepare()
    database = Database(files, Clock(), {})
    database.open()
    database.write([one for pair in known.items() for one in to_records(*pair)] + half)
    database.close()
    packed = base64.b64encode(bytes.fromhex(SUB))
    listed = _run(tmp_path, "forget", f"sub:{SUB}", "--list")
    before = _everything(tmp_path)
    erased = _run(tmp_path, "forget", f"sub:{SUB}")

    assert listed.output.splitlines() == [
        f"a member, as Tailchat said: {source.entry}",
        f"a member, as Tailchat said: {role.entry}",
        "a member, as Tailchat said: an incomplete answer about groups",
    ]
    assert erased.output == "".join(f"erased: {line}\n" for line in listed.output.splitlines())
    assert packed in before
    assert packed not in _everything(tmp_path)
    assert {one: left.people for one, left in _stored_members(tmp_path).items()} == {
        source: others,
        role: frozenset(),
    }
    assert len(_member_records(tmp_path)) == 3
    assert "nothing is stored" in _run(tmp_path, "forget", f"sub:{SUB}").output


def test_only_a_person_can_be_forgotten(tmp_path: Path) -> None:
    """A machine and everybody are no person."""
    for target in ("all", "token:backup", SUB):
        assert _run(tmp_path, "forget", target).exit_code == 2


def test_a_copy_under_way_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some time the command fails, and says to run it again; that then erases all."""
    monkeypatch.setattr(engine, "BUSY_SECONDS", 0.1)
    StoredEntries(tmp_path).append((Lock(f"sub:{SUB}", 1, None, "left"),))
    with alone(Files(tmp_path)) as mine:
        assert mine
        failed = _run(tmp_path, "forget", f"sub:{SUB}", "--in-force")
    erased = _run(tmp_path, "forget", f"sub:{SUB}", "--in-force")

    assert failed.exit_code == 1
    assert "another process is copying the database; run this again" in failed.output
    assert erased.exit_code == 0
    assert b"left" not in _everything(tmp_path)


async def test_a_running_gate_forgets_too(
    start_gate: Start, upstream: RawUpstream, tmp_path: Path
) -> None:
    """A person's refusals, which it has in memory and has written, are nowhere any more."""
    gate = await start_gate(
        upstream.url,
        route=[{"name": "vault", "allow": ["sub:660000000000000000000009"]}],
        state={"path": str(tmp_path)},
        log={"access": False},
    )
    await ask(gate.port, request_bytes("/x", Cookie=gate.cookie()))
    audit, store = gate.generation.process_state.audit, gate.generation.process_state.store
    store._upkeep._save_at = 0.0
    await until(lambda: store._upkeep._save_at > 0)
    await store.put(())
    listed = await asyncio.to_thread(_run, tmp_path, "forget", f"sub:{SUB}", "--list")
    done = await asyncio.to_thread(_run, tmp_path, "forget", f"sub:{SUB}")
    # The copy that the gate makes is read as a whole, and of now.
    store._upkeep._copy_at = 0.0
    await until(lambda: not audit.refusals and not store._upkeep.uncopied)
    async with store._using:
        left = await asyncio.to_thread(_everything, tmp_path)

    assert f'refusal {{"person": ["{SUB}", "{ALICE.nickname}"' in listed.output
    assert done.output.startswith("erased: refusal ")
    assert ALICE.nickname.encode() not in left


async def test_refusals_and_the_use_of_tokens_outlive_a_restart(
    start_gate: Start, upstream: RawUpstream, tmp_path: Path
) -> None:
    """The next process shows the refusals of the one before, and goes on counting."""
    given = {
        "route": [{"name": "vault", "allow": ["sub:660000000000000000000009"]}],
        "state": {"path": str(tmp_path)},
    }
    first = await start_gate(upstream.url, **given)
    await ask(first.port, request_bytes("/x", Cookie=first.cookie()))
    first.generation.process_state.token_use.last["backup"] = first.clock()
    await first.server.stop()
    second = await start_gate(upstream.url, **given)
    (refusal,) = second.generation.process_state.audit.refusals
    await ask(second.port, request_bytes("/x", Cookie=second.cookie()))

    assert (refusal.person.sub, refusal.route, refusal.path) == (SUB, "vault", "/x")
    assert refusal.count == 2
    assert second.generation.process_state.token_use.last == {"backup": first.clock()}


async def test_readyz_and_status_tell_a_fault_of_the_store(
    start_gate: Start, tmp_path: Path
) -> None:
    """The gate goes on serving, and says what is wrong."""
    gate = await start_gate(server={"admin_listen": "127.0.0.1:0"}, state={"path": str(tmp_path)})
    host, port = gate.admin_address
    store = gate.generation.process_state.store
    connection = store._engine._database.connection
    async with store._using:
        await store._run(lambda: connection.execute("PRAGMA query_only = ON"))
    await store.put(store._followers.known(lost=True) or [_a_record()])
    ready = await ask(port, request_bytes("/readyz", host=host))
    status = await ask(port, request_bytes("/status", host=host))

    assert ready.status == 200
    assert ready.body == b"ready\nstate store: unwritable: attempt to write a readonly database\n"
    assert status.json["state_faults"] == ["unwritable: attempt to write a readonly database"]


def _a_record() -> Record:
    return to_record(Lock("sub:x", 1))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a directory away")
def test_root_works_as_the_owner_of_the_directory() -> None:
    """What a command makes is the gate's user's; a link to a file of root's is not followed."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        os.chown(folder, ANYBODY, ANYBODY)
        assert _run(folder, "lock", "all").exit_code == 0

        assert {path.stat().st_uid for path in folder.iterdir()} == {ANYBODY}
        assert os.geteuid() == 0
        (folder / NAME).unlink()
        (folder / NAME).symlink_to("/root/anything")
        refused = _run(folder, "lock", "all")
        assert (refused.exit_code, "symbolic link" in refused.output) == (1, True)
