"""Finds the state store of a gate, reads it and changes it, for commands.

A command opens the store for a moment, whether the gate runs or not.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import click

from tailchat_gate.commands.common import EXIT_FAILED, EXIT_USAGE, fail, refuse, to_type
from tailchat_gate.commands.running_state import check_running, command_despite
from tailchat_gate.config.load import (
    ConfigError,
    load,
    named,
    names_server,
    state_path,
    state_section,
)
from tailchat_gate.config.model import LONGEST_SESSION, RouteSettings, Settings
from tailchat_gate.config.state_directory import in_foreign_home, make_for
from tailchat_gate.identity.access_requests import REQUEST, AccessRequests
from tailchat_gate.identity.grants import GRANT, Grant, Grants, GrantState
from tailchat_gate.identity.revocation.records import read_record, revocations, to_record
from tailchat_gate.identity.revocation.state import Entry, RevocationState
from tailchat_gate.identity.revocation.store import Revocations
from tailchat_gate.identity.sessions.stored import SESSION, StoredSessions
from tailchat_gate.observe.metrics import Metrics
from tailchat_gate.people.groups.memberships import Memberships
from tailchat_gate.people.groups.records import MEMBERS, StoredMembers, read_records
from tailchat_gate.state.bookkeeping import FaultKind, Health, StoreFault
from tailchat_gate.state.memory import MemoryStore
from tailchat_gate.state.places import Place, place_of, shared_store
from tailchat_gate.state.redis.client import COMMAND_SECONDS
from tailchat_gate.state.redis.database import peek_at
from tailchat_gate.state.redis.servers import RedisPlace
from tailchat_gate.state.redis.store import RedisStore
from tailchat_gate.state.sqlite.engine import Engine
from tailchat_gate.state.sqlite.files import Files, as_owner
from tailchat_gate.state.sqlite.store import SqliteStore
from tailchat_gate.state.store import Changes, Record, StoreError

T = TypeVar("T")


state_option = click.option(
    "--state",
    "state",
    type=click.Path(file_okay=False, path_type=Path),
    help="The state directory; for use when the configuration cannot be read.",
)

_EMPTY: Final = "state.path is empty: the running gate keeps state in its memory alone"


class MemberRecords:
    """Collects the stored members of Tailchat's groups: a kind of record to follow."""

    kind: Final = StoredMembers.kind

    def __init__(self) -> None:
        self.records: Sequence[Record] = ()

    def take(self, changes: Changes) -> None:
        """Keep the records of a complete read."""
        if changes.complete:
            self.records = changes.records

    def known(self, *, lost: bool) -> Iterable[Record]:
        """Return the records if the database has to be made again."""
        return self.records if lost else ()

    def unsaved(self, *, last: bool) -> Iterable[Record]:
        """Return nothing: the running gate writes them."""
        del last
        return ()

    def erase(self, sub: str, *, in_force: bool) -> None:
        """Do nothing: the command erases by itself."""


class OpenedStore(NamedTuple):
    """An open store, with its revocations, grants, members of groups and sessions."""

    store: SqliteStore | RedisStore
    revocation: RevocationState
    grants: Grants
    members: MemberRecords
    sessions: StoredSessions


class Stored(NamedTuple):
    """What a store says about people: revocations, grants, requests, groups and sessions."""

    revocation: RevocationState
    grants: GrantState
    requests: AccessRequests
    memberships: Memberships
    sessions: StoredSessions

    @classmethod
    def nothing(cls) -> "Stored":
        """Return the content of a store that does not exist yet."""
        clock, store = time.time, MemoryStore(time.time)
        requests, sessions = AccessRequests(store, clock, os.urandom), StoredSessions(store, clock)
        return cls(RevocationState(clock), GrantState(clock), requests, Memberships(), sessions)


def read_store(directory: Path) -> Stored:
    """Read the store in a directory, without an event loop. Raises StoreError."""
    kind = revocations(time.time)
    kinds = (kind, Grants.kind, AccessRequests.kind, StoredMembers.kind, StoredSessions.kind)
    engine = Engine(Files(directory), time.time, {kind.name: kind for kind in kinds})
    with as_owner(directory):
        loaded = engine.open(create=False)
        engine.close()
    for fault, problem in loaded.faults.items():
        _warn(fault, problem)
    return _stored_in(loaded.records)


def _read_server(place: RedisPlace) -> Stored:
    """Read the store on a Redis server. Raises StoreError."""
    try:
        server = asyncio.run(peek_at(place))
    except StoreFault as fault:
        raise StoreError(str(fault)) from None
    if server.lost:
        _warn(FaultKind.DAMAGED, f"{place}: records are missing or damaged")
    return _stored_in([record for _, record in server.rows])


def _stored_in(records: Sequence[Record]) -> Stored:
    kind = revocations(time.time)
    entries = (read_record(record) for record in records if record.kind == kind.name)
    stored = Stored.nothing()
    stored.revocation.renew([entry for entry in entries if entry is not None])
    for record in records:
        grant = Grant.from_record(record) if record.kind == GRANT else None
        if grant is not None:
            stored.grants.apply(grant)
    requests = [record for record in records if record.kind == REQUEST]
    stored.requests.take(Changes(requests, complete=True))
    sessions = [record for record in records if record.kind == SESSION]
    stored.sessions.take(Changes(sessions, complete=True))
    for source, known in read_records(record for record in records if record.kind == MEMBERS):
        stored.memberships.restore(source, known)
    return stored


def with_store(place: Place, work: Callable[[OpenedStore], Awaitable[T]]) -> T:
    """Run `work` with the store of a place, as the owner of its directory, and return its result.

    A missing store is created. Raises StoreError if the store cannot be used or written.
    """
    if isinstance(place, RedisPlace):
        return asyncio.run(_with_store(place, work))
    with as_owner(place):
        return asyncio.run(_with_store(place, work))


async def _with_store(place: Place, work: Callable[[OpenedStore], Awaitable[T]]) -> T:
    store = shared_store(place, time.time, Health(tell=_warn), timeout=COMMAND_SECONDS)
    revocation = RevocationState(time.time)
    Revocations(revocation, store, Metrics(), time.time)
    grants, members, sessions = (
        Grants(store, time.time),
        MemberRecords(),
        StoredSessions(store, time.time),
    )
    store.follow(members)
    try:
        await store.open()
        done = await work(OpenedStore(store, revocation, grants, members, sessions))
        if store.faults:
            raise StoreError(f"{store.location}: {store.faults[0]}")
    finally:
        await store.close()
    return done


def _warn(fault: FaultKind, problem: str) -> None:
    click.echo(f"warning: the state store has a fault: {fault}: {problem}", err=True)


@dataclass(frozen=True, slots=True)
class StateLocation:
    """The place of the state, and what else the commands need from a configuration.

    `lifetime`: how many seconds a session can last. `tokens`: the names of all tokens. `routes`:
    all routes by their names. The latter two are None if unknown.
    """

    place: Place
    lifetime: float = LONGEST_SESSION
    tokens: frozenset[str] | None = None
    routes: Mapping[str, RouteSettings] | None = None


def state_location(config: Path, state: Path | None) -> StateLocation:
    """Find the state of a gate; end the command if that is impossible.

    A lock must work now, not after a repair of the file, so only [state] has to be valid.
    """
    if state is not None:
        return StateLocation(state)
    try:
        settings = load(config, os.environ).settings
    except ConfigError as error:
        problems = error.problems
    else:
        place = place_of(settings.state)
        if place is None:
            fail(_EMPTY, EXIT_USAGE)
        check_running(config, str(place))
        tokens = frozenset(token.name for token in settings.token)
        routes = {route.name: route for route in settings.route}
        return StateLocation(place, settings.session.lifetime, tokens, routes)
    known, name = _place_despite(config), named(config, os.environ)
    if known is None:
        refuse(name, problems, command_despite(config))
    if not known:
        fail(_EMPTY, EXIT_USAGE)
    warning = f"{name} has problems, which `tailchat-gate check` lists; the state is in {known}"
    click.echo(f"warning: {to_type(warning)}", err=True)
    check_running(config, str(known))
    return StateLocation(Path(known) if isinstance(known, str) else known)


def _place_despite(config: Path) -> RedisPlace | str | None:
    """Return the server or directory that an invalid configuration names, None if unknown."""
    section = state_section(config, os.environ)
    if section is not None and section.url:
        return RedisPlace(section.url, section.password)
    return None if names_server(config, os.environ) else state_path(config, os.environ)


def read_place(place: Place) -> Stored:
    """Read the store of a place, which need not exist yet. Raises StoreError."""
    if isinstance(place, RedisPlace):
        return _read_server(place)
    return read_store(place) if place.exists() else Stored.nothing()


def read_or_end(place: Place) -> Stored:
    """Read the store as `read_place` does; end the command if that fails."""
    try:
        return read_place(place)
    except StoreError as error:
        fail(f"[state] {_key(place)}: {error}{_step(error, place)}", EXIT_FAILED)


def append(place: Place, entry: Entry) -> None:
    """Write an entry; end the command if that fails."""

    async def write(opened: OpenedStore) -> None:
        opened.revocation.apply(entry)
        await opened.store.put((to_record(entry),))

    change(place, write)


def _key(place: Place) -> str:
    return "url" if isinstance(place, RedisPlace) else "path"


def _step(error: Exception, place: Place) -> str:
    """Say what to do about a store that cannot be used, "" if the error itself says it."""
    if isinstance(error, StoreError) and error.says_remedy:
        return ""
    if isinstance(place, RedisPlace):
        return "; check that the server runs, and check state.url and its password"
    if isinstance(error, StoreFault) and error.may_pass:
        return "; run this again"
    return "; run this where the gate runs, as its user or as root"


def change(place: Place, work: Callable[[OpenedStore], Awaitable[T]]) -> T:
    """Run `work` with the store, as `with_store` does; end the command if that fails."""
    try:
        if not isinstance(place, RedisPlace):
            if warning := in_foreign_home(str(place), os.environ):
                click.echo(f"warning: state.path: {warning}", err=True)
            make_for(str(place), os.environ)
        return with_store(place, work)
    except (StoreError, StoreFault) as error:
        fail(f"[state] {_key(place)}: {error}{_step(error, place)}", EXIT_FAILED)
    except OSError as error:
        cause = error.strerror or error
        fail(f"[state] {_key(place)}: {place}: {cause}{_step(error, place)}", EXIT_FAILED)


def read_or_warn(settings: Settings) -> Stored:
    """Read the store of a configuration; if that fails, warn and return nothing.

    This user may not be allowed to read it.
    """
    place = place_of(settings.state)
    if place is None:
        return Stored.nothing()
    try:
        return read_place(place)
    except StoreError as error:
        click.echo(f"warning: locks and grants are not checked: {error}", err=True)
        return Stored.nothing()
