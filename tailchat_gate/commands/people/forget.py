"""The command that lists and erases what is stored about a person."""

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import click

from tailchat_gate.commands import completed_names
from tailchat_gate.commands.common import EXIT_USAGE, config_option, fail
from tailchat_gate.commands.people.locks import check_id
from tailchat_gate.commands.state import OpenedStore, change, state_location, state_option
from tailchat_gate.config.values.identifier import SUB
from tailchat_gate.config.values.quantities import counted
from tailchat_gate.identity.revocation.records import is_person, read_record
from tailchat_gate.identity.revocation.state import ALL, Lock, Unlock
from tailchat_gate.identity.sessions.stored import SESSION, StoredSession
from tailchat_gate.people.groups.records import MEMBERS, without
from tailchat_gate.state.store import (
    ALL_BUT_IN_FORCE,
    ALL_OF_IT,
    ERASURE,
    ERASURE_SECONDS,
    Record,
)

_NAMES: Final = {"lock": "a lock", "unlock": "a lock that was lifted", "ended": "an ended session"}


class _Item(NamedTuple):
    """A stored record; `in_force`: it still locks the person, or keeps a session ended."""

    record: Record
    in_force: bool
    text: str


@click.command()
@click.argument("target", shell_complete=completed_names.persons)
@click.option("--list", "only_list", is_flag=True, help="List what is stored, and erase nothing.")
@click.option(
    "--in-force",
    is_flag=True,
    help="Also erase locks and ended sessions that are still in force: the person, and anyone with "
    "a copy of their cookie, can enter again.",
)
@config_option
@state_option
def forget(
    *, target: str, only_list: bool, in_force: bool, config: Path, state: Path | None
) -> None:
    """Erase what the gate has stored about TARGET, sub:ID.

    Locks and ended sessions that are still in force stay unless you give --in-force; the gate
    deletes each of them a day after its end. This command changes neither logs nor the
    configuration.
    """
    if target == ALL or not is_person(target):
        fail('TARGET: expected "sub:ID"', EXIT_USAGE)
    sub = target.removeprefix(SUB)
    place = state_location(config, state).place

    async def work(opened: OpenedStore) -> tuple[list[_Item], int, Sequence[str]]:
        records, outcomes = await opened.store.about(sub)
        items = [_item(record, time.time()) for record in records]
        members = without(opened.members.records, sub)
        if not only_list:
            erased = [item.record for item in items if in_force or not item.in_force]
            keys = [(record.kind, record.key) for record in erased]
            keys += [(MEMBERS, key) for key in members.deleted]
            body = ALL_OF_IT if in_force else ALL_BUT_IN_FORCE
            notice = Record(ERASURE, sub, body, "", int(time.time()) + ERASURE_SECONDS)
            await opened.store.put(members.written)
            # Last, because erasing also removes earlier writes from SQLite's log.
            await opened.store.erase(keys, sub, notice)
        return items, outcomes, members.entries

    items, outcomes, entries = change(place, work)
    for entry in entries:
        click.echo(f"{'' if only_list else 'erased: '}a member, as Tailchat said: {entry}")
    if not (entries or items or outcomes):
        # With nothing found, the ID may be mistyped.
        check_id(target)
    if not entries or items or outcomes:
        _show(target, items, outcomes, erased=not only_list, in_force=in_force)


def _show(target: str, items: list[_Item], outcomes: int, *, erased: bool, in_force: bool) -> None:
    for item in items:
        done = "erased" if in_force or not item.in_force else "kept, still in force"
        click.echo(f"{done + ': ' if erased else ''}{item.text}")
    if outcomes:
        click.echo(
            f"{'erased: ' if erased else ''}{counted(outcomes, 'sign-in')} of the last minute"
        )
    if not items and not outcomes:
        click.echo(f"nothing is stored about {target}")


def _item(record: Record, now: float) -> _Item:
    entry = read_record(record)
    expired = record.until is not None and record.until <= now
    session = StoredSession.from_record(record) if record.kind == SESSION else None
    if session is not None:
        what = "a session" if session.sealed else "what is left of a session that ended,"
        return _Item(record, in_force=False, text=f"{what} of {_day(session.began)}")
    if entry is None:
        return _Item(record, in_force=False, text=f"{record.kind} {_compact(record.body)}")
    is_in_force = not isinstance(entry, Unlock) and not expired
    message = f" {entry.message!r}" if isinstance(entry, Lock) and entry.message else ""
    name = _NAMES.get(record.key.partition(" ")[0], "everything signed out")
    if isinstance(entry, Unlock):
        name = _NAMES["unlock"]
    text = f"{name} of {_day(entry.at)}{message}"
    if record.until is not None and not isinstance(entry, Unlock):
        text += f", until {_day(record.until)}"
    return _Item(record, in_force=is_in_force, text=text)


def _compact(body: str) -> str:
    """Return a stored body on one line, without characters that control a terminal."""
    try:
        return json.dumps(json.loads(body))
    except ValueError:
        return ascii(body)


def _day(second: int) -> str:
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%d %H:%M:%S} UTC"
