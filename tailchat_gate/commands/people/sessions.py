"""The command that lists the sessions of session.store, and ends one of them."""

import time
from pathlib import Path

import click

from tailchat_gate.commands import completed_names
from tailchat_gate.commands.common import (
    EXIT_FAILED,
    EXIT_USAGE,
    config_option,
    fail,
    json_option,
    print_list,
)
from tailchat_gate.commands.people.locks import person_meant
from tailchat_gate.commands.state import (
    OpenedStore,
    change,
    read_or_end,
    state_location,
    state_option,
)
from tailchat_gate.config.values.identifier import SUB
from tailchat_gate.config.values.quantities import format_timestamp
from tailchat_gate.identity.revocation.records import to_record
from tailchat_gate.identity.revocation.state import EndedSession
from tailchat_gate.identity.sessions.stored import StoredSession
from tailchat_gate.state.places import Place

_END = "end"


@click.command()
@click.argument(
    "arguments", nargs=-1, metavar="[PERSON | end ID]", shell_complete=completed_names.persons
)
@config_option
@state_option
@json_option
def sessions(
    *, arguments: tuple[str, ...], as_json: bool, config: Path, state: Path | None
) -> None:
    """List the sessions in the store, those of PERSON (sub:ID or Name#2114), or end one by its ID.

    Only with session.store = true are sessions in the store. A session that you end here ends
    within half a second at every gate that uses the store.
    """
    match arguments:
        case (word, sid) if word == _END:
            _end(state_location(config, state).place, sid)
        case () | (_,) if arguments != (_END,):
            target = person_meant(arguments[0], config) if arguments else SUB
            place = state_location(config, state).place
            _list(read_or_end(place).sessions.of(target.removeprefix(SUB)), as_json=as_json)
        case _:
            fail('expected nothing, one person, or "end" and the ID of a session', EXIT_USAGE)


def _list(stored: list[StoredSession], *, as_json: bool) -> None:
    print_list(
        stored,
        lambda session: (
            session.sid,
            SUB + session.sub,
            f"since {format_timestamp(session.began)}, used {format_timestamp(session.seen)}",
            session.browser,
        ),
        lambda session: {
            "id": session.sid,
            "sub": session.sub,
            "browser": session.browser,
            "signed_in_at": session.began,
            "seen_at": session.seen,
            "until": session.until,
        },
        nothing="no session is in the store; without session.store = true sessions are in cookies, "
        "which cannot be listed: `sign-out` ends all sessions of a person",
        as_json=as_json,
    )


def _end(place: Place, sid: str) -> None:
    async def work(opened: OpenedStore) -> StoredSession | None:
        session = opened.sessions.get(sid)
        if session is not None:
            entry = EndedSession(sid, session.sub, int(time.time()), session.until)
            opened.revocation.apply(entry)
            await opened.store.put((to_record(entry), session.ended().to_record()))
        return session

    ended = change(place, work)
    if ended is None:
        fail(f"no session in the store has the ID {sid}", EXIT_FAILED)
    click.echo(f"ended: {sid} of {SUB}{ended.sub}")
