"""Where the commands find the locks: by the configuration, by a wrong one too, or by --state."""

import http.client
import json
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import click

from tailchat_gate.commands.admin_listener import exchange
from tailchat_gate.commands.common import EXIT_FAILED, EXIT_USAGE, fail
from tailchat_gate.commands.opened_store import OpenedStore, read_store, with_store
from tailchat_gate.config.admin_address import admin_address
from tailchat_gate.config.load import ConfigError, load, report
from tailchat_gate.config.lock_path import state_path
from tailchat_gate.config.model import LONGEST_SESSION
from tailchat_gate.config.state_directory import in_foreign_home, make_for
from tailchat_gate.identity.lock_lines import to_record
from tailchat_gate.identity.locks import Entry, Standing
from tailchat_gate.state.engine import StoreFault
from tailchat_gate.state.store import StoreError

state_option = click.option(
    "--state",
    "state",
    type=click.Path(file_okay=False, path_type=Path),
    help="The directory of state itself, for when the configuration cannot be read.",
)

T = TypeVar("T")

#: How long the running gate may take to say where it keeps locks.
_SECONDS: Final = 2.0
_OK: Final = 200
_EMPTY: Final = "state.path is empty: the running gate keeps state in its memory alone"


@dataclass(frozen=True, slots=True)
class LockPlace:
    """Where locks are kept, and what else the commands need of a configuration.

    `lifetime`: seconds that a session can last; `tokens`: the names of all, None where unknown.
    """

    path: Path
    lifetime: float = LONGEST_SESSION
    tokens: frozenset[str] | None = None


def lock_place(config: Path, state: Path | None) -> LockPlace:
    """Return where the locks are; end the command where nothing tells.

    Whoever has to be kept out has to be kept out now, not when somebody has found the mistake in
    the file: only state.path has to be right.
    """
    if state is not None:
        return LockPlace(state)
    try:
        settings = load(config, os.environ).settings
    except ConfigError as error:
        problems = error.problems
    else:
        if not settings.state.path:
            fail(_EMPTY, EXIT_USAGE)
        _check_running(config, settings.state.path)
        tokens = frozenset(token.name for token in settings.token)
        return LockPlace(Path(settings.state.path), settings.session.lifetime, tokens)
    found = state_path(config, os.environ)
    if found is None:
        fail(f"{config}: {report(problems)}\n\n--state names the directory itself", EXIT_USAGE)
    if not found:
        fail(_EMPTY, EXIT_USAGE)
    told = f"{config} has problems, which `tailchat-gate check` tells; state is kept in {found}"
    click.echo(f"warning: {told}", err=True)
    _check_running(config, found)
    return LockPlace(Path(found))


def _check_running(config: Path, path: str) -> None:
    """End the command where the gate that runs with this file keeps its state elsewhere.

    It may run as another user, or from before the file was changed; a lock that it never reads
    keeps nobody out. Its word is no order, though: anybody could listen at that address, and the
    commands often run as root.
    """
    try:
        where = admin_address(config, os.environ)
        if where is None:
            return
        status, body = exchange(where, "GET", "/status", seconds=_SECONDS)
        found = json.loads(body)["configuration"] if status == _OK else {}
    except (OSError, ValueError, LookupError, TypeError, http.client.HTTPException):
        return
    if not isinstance(found, dict) or not _is_same(found.get("file"), config):
        return
    used = found.get("state_path")
    if isinstance(used, str) and used != path:
        fail(
            f"the gate that runs keeps state in {used or 'its memory alone'}, not in {path}: "
            "--state names the directory",
            EXIT_FAILED,
        )


def _is_same(file: object, config: Path) -> bool:
    return isinstance(file, str) and Path(file).resolve() == config.resolve()


def standing(path: Path) -> Standing:
    """Return what the store says, nothing where there is none yet. Raises StoreError."""
    return read_store(path) if path.exists() else Standing(time.time)


def standing_or_end(path: Path) -> Standing:
    """As `standing`; ends the command where the store cannot be read."""
    try:
        return standing(path)
    except StoreError as error:
        fail(f"[state] path: {error}", EXIT_FAILED)


def append(path: Path, entry: Entry) -> None:
    """Write an entry; end the command where that cannot be done."""

    async def write(opened: OpenedStore) -> None:
        opened.standing.apply(entry)
        await opened.store.put((to_record(entry),))

    change(path, write)


def change(path: Path, work: Callable[[OpenedStore], Awaitable[T]]) -> T:
    """Change the store; end the command where that cannot be done."""
    if told := in_foreign_home(str(path), os.environ):
        click.echo(f"warning: state.path: {told}", err=True)
    try:
        make_for(str(path), os.environ)
        return with_store(path, work)
    except (StoreError, StoreFault) as error:
        fail(f"[state] path: {error}", EXIT_FAILED)
    except OSError as error:
        fail(f"[state] path: {path}: {error.strerror or error}", EXIT_FAILED)
