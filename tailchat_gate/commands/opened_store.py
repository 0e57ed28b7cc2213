"""Opens the store for a command: for a moment, with or without a running gate."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import click

from tailchat_gate.identity.grants import GRANT, Grant, Grants, GrantState
from tailchat_gate.identity.revocation.records import read_record, revocations
from tailchat_gate.identity.revocation.state import RevocationState
from tailchat_gate.identity.revocation.store import Revocations
from tailchat_gate.observe.metrics import Metrics
from tailchat_gate.state.bookkeeping import FaultKind, Health
from tailchat_gate.state.engine import Engine
from tailchat_gate.state.files import Files, as_owner
from tailchat_gate.state.sqlite import SqliteStore
from tailchat_gate.state.store import StoreError

T = TypeVar("T")


class OpenedStore(NamedTuple):
    """An open store, its locks and ended sessions, and its grants."""

    store: SqliteStore
    revocation: RevocationState
    grants: Grants


class Stored(NamedTuple):
    """What a store says of people: locks and ended sessions, and grants."""

    revocation: RevocationState
    grants: GrantState

    @classmethod
    def nothing(cls) -> "Stored":
        """Return what a store says that is not there yet."""
        return cls(RevocationState(time.time), GrantState(time.time))


def read_store(directory: Path) -> Stored:
    """Return what the store in a directory says of people.

    It needs no event loop, because `explain` opens no sockets. Raises StoreError.
    """
    kind = revocations(time.time)
    engine = Engine(Files(directory), time.time, {kind.name: kind, GRANT: Grants.kind})
    with as_owner(directory):
        loaded = engine.open(create=False)
        engine.close()
    for fault, problem in loaded.faults.items():
        _tell(fault, problem)
    entries = (read_record(record) for record in loaded.records if record.kind == kind.name)
    stored = Stored.nothing()
    stored.revocation.renew([entry for entry in entries if entry is not None])
    for record in loaded.records:
        grant = Grant.from_record(record) if record.kind == GRANT else None
        if grant is not None:
            stored.grants.apply(grant)
    return stored


def with_store(directory: Path, work: Callable[[OpenedStore], Awaitable[T]]) -> T:
    """Change the store in a directory, as its owner; a missing store is created.

    Raises StoreError if the store cannot be used or written.
    """
    with as_owner(directory):
        return asyncio.run(_with_store(directory, work))


async def _with_store(directory: Path, work: Callable[[OpenedStore], Awaitable[T]]) -> T:
    store = SqliteStore(directory, time.time, Health(tell=_tell))
    revocation = RevocationState(time.time)
    Revocations(revocation, store, Metrics(), time.time)
    grants = Grants(store, time.time)
    try:
        await store.open()
        done = await work(OpenedStore(store, revocation, grants))
        if store.faults:
            raise StoreError(f"{store.location}: {store.faults[0]}")
    finally:
        await store.close()
    return done


def _tell(fault: FaultKind, problem: str) -> None:
    click.echo(f"warning: the state store has a fault: {fault}: {problem}", err=True)
