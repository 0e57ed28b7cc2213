"""`lock`, `unlock`, `sign-out`, `locks`: change and list locks in the gate's own file."""

import http.client
import json
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar

import click

from tailchat_gate.commands.admin import exchange
from tailchat_gate.commands.common import (
    EXIT_FAILED,
    EXIT_USAGE,
    config_option,
    fail,
    person_meant,
)
from tailchat_gate.commands.opened_store import OpenedStore, Stored, read_store, with_store
from tailchat_gate.config.load import ConfigError, admin_address, load, named, report, state_path
from tailchat_gate.config.model import LONGEST_SESSION, RouteSettings, Settings
from tailchat_gate.config.state_directory import in_foreign_home, make_for
from tailchat_gate.config.values.identifier import (
    NAME,
    SUB,
    TOKEN,
    is_person_name,
    is_tailchat_id,
    no_tailchat_id,
)
from tailchat_gate.config.values.quantities import read_duration
from tailchat_gate.identity.revocation.records import (
    MAX_MESSAGE,
    is_message,
    is_person,
    is_target,
    to_record,
)
from tailchat_gate.identity.revocation.state import Entry, Lock, RevocationState, SignedOut, Unlock
from tailchat_gate.state.engine import StoreFault
from tailchat_gate.state.store import StoreError
from tailchat_gate.syntax import CLOCK_SKEW

state_option = click.option(
    "--state",
    "state",
    type=click.Path(file_okay=False, path_type=Path),
    help="The state directory; for use when the configuration cannot be read.",
)

T = TypeVar("T")

#: How long the running gate may take to say where it stores locks.
_SECONDS: Final = 2.0
_OK: Final = 200
_EMPTY: Final = "state.path is empty: the running gate keeps state in its memory alone"

_FOR_EVER: Final = "until unlocked"


@dataclass(frozen=True, slots=True)
class LockLocation:
    """Where locks are stored, and what else the commands need from a configuration.

    `lifetime`: seconds that a session can last; `tokens`: all token names; `routes`: all routes by
    their names; None if unknown.
    """

    path: Path
    lifetime: float = LONGEST_SESSION
    tokens: frozenset[str] | None = None
    routes: Mapping[str, RouteSettings] | None = None


def lock_location(config: Path, state: Path | None) -> LockLocation:
    """Return where locks are stored; end the command if that is not known.

    A lock must work now, not after a fix of the file: only state.path must be valid.
    """
    if state is not None:
        return LockLocation(state)
    try:
        settings = load(config, os.environ).settings
    except ConfigError as error:
        problems = error.problems
    else:
        if not settings.state.path:
            fail(_EMPTY, EXIT_USAGE)
        _check_running(config, settings.state.path)
        tokens = frozenset(token.name for token in settings.token)
        routes = {route.name: route for route in settings.route}
        return LockLocation(Path(settings.state.path), settings.session.lifetime, tokens, routes)
    found, name = state_path(config, os.environ), named(config, os.environ)
    if found is None:
        fail(f"{name}: {report(problems)}\n\n--state names the directory itself", EXIT_USAGE)
    if not found:
        fail(_EMPTY, EXIT_USAGE)
    warning = f"{name} has problems, which `tailchat-gate check` lists; the state is in {found}"
    click.echo(f"warning: {warning}", err=True)
    _check_running(config, found)
    return LockLocation(Path(found))


def _check_running(config: Path, path: str) -> None:
    """End the command if the gate that runs with this file stores its state elsewhere.

    It may run as another user, or have started before a change of the file; a lock that it never
    reads has no effect. The command never writes to the path in the response, though: any process
    could listen at that address, and the commands often run as root.
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
            f"the running gate keeps its state in {used or 'memory alone'}, not in {path}: "
            "--state names the directory",
            EXIT_FAILED,
        )


def _is_same(file: object, config: Path) -> bool:
    return isinstance(file, str) and Path(file).resolve() == config.resolve()


def stored(path: Path) -> Stored:
    """Return what is stored of people, nothing if there is no store yet. Raises StoreError."""
    return read_store(path) if path.exists() else Stored.nothing()


def stored_or_end(path: Path) -> Stored:
    """Return the same as `stored`; end the command if the store cannot be read."""
    try:
        return stored(path)
    except StoreError as error:
        fail(f"[state] path: {error}", EXIT_FAILED)


def append(path: Path, entry: Entry) -> None:
    """Write an entry; end the command if that fails."""

    async def write(opened: OpenedStore) -> None:
        opened.revocation.apply(entry)
        await opened.store.put((to_record(entry),))

    change(path, write)


def change(path: Path, work: Callable[[OpenedStore], Awaitable[T]]) -> T:
    """Change the store; end the command if that fails."""
    if warning := in_foreign_home(str(path), os.environ):
        click.echo(f"warning: state.path: {warning}", err=True)
    try:
        make_for(str(path), os.environ)
        return with_store(path, work)
    except (StoreError, StoreFault) as error:
        fail(f"[state] path: {error}", EXIT_FAILED)
    except OSError as error:
        fail(f"[state] path: {path}: {error.strerror or error}", EXIT_FAILED)


def checked(check: Callable[[str], bool], wanted: str) -> Callable[..., str]:
    """Return a callback that refuses what `check` does."""

    def inspect(_context: click.Context, _parameter: click.Parameter, text: str) -> str:
        if not check(text):
            meant = f'; did you mean "sub:{text}"?' if is_tailchat_id(text) else ""
            raise click.BadParameter(wanted + meant)
        return text

    return inspect


_target = click.argument(
    "target",
    callback=checked(
        lambda text: is_target(text) or is_person_name(text),
        f'expected "sub:ID", {NAME}, "token:NAME" or "all"',
    ),
)
_person = click.argument(
    "target",
    callback=checked(
        lambda text: is_person(text) or is_person_name(text),
        f'expected "sub:ID", {NAME} or "all"',
    ),
)


def duration(_context: click.Context, _parameter: click.Parameter, text: str) -> float:
    """Return the seconds of a duration, 0 for ""."""
    try:
        return read_duration(text) if text else 0.0
    except ValueError as wrong:
        raise click.BadParameter(f"expected {wrong}") from None


@click.command()
@_target
@click.option(
    "--message",
    default="",
    callback=checked(is_message, f"expected one line of at most {MAX_MESSAGE} characters"),
    help="What the locked-out person reads.",
)
@click.option(
    "--for",
    "lifetime",
    default="",
    callback=duration,
    help='How long, such as "2h" or "2d". Without it, the lock lasts until `unlock`.',
)
@config_option
@state_option
def lock(target: str, message: str, lifetime: float, config: Path, state: Path | None) -> None:
    """Lock out a person, a machine or everyone: TARGET is sub:ID, Name#2114, token:NAME or all.

    Open WebSockets and downloads end, and a locked-out person cannot sign in. Once the lock is
    lifted, earlier sessions are valid again; `sign-out` ends them.

    The gate's bot looks a name up in Tailchat once, and you are asked whether the ID is the right
    one. A person's ID is on their pages, in the access log and in the list of `refusals`.
    """
    target = person_meant(target, config)
    location = lock_location(config, state)
    now = int(time.time())
    until = now + int(lifetime) if lifetime else None
    append(location.path, Lock(target, now, until, message))
    _warn_of_unknown(target, location.tokens)
    click.echo(f"{target} is locked {end_text(until)}")


@click.command()
@_target
@config_option
@state_option
def unlock(target: str, config: Path, state: Path | None) -> None:
    """Lift the lock on TARGET: sub:ID, Name#2114, token:NAME or all."""
    target = person_meant(target, config)
    location = lock_location(config, state)
    path = location.path
    if target not in {found.target for found in stored_or_end(path).revocation.locks}:
        _warn_of_unknown(target, location.tokens)
        fail(f"{target} is not locked", EXIT_FAILED)
    append(path, Unlock(target, int(time.time())))
    click.echo(f"{target} is not locked any more")


@click.command("sign-out")
@_person
@config_option
@state_option
def sign_out(target: str, config: Path, state: Path | None) -> None:
    """End every session of TARGET, sub:ID, Name#2114 or all; people can sign in again."""
    target = person_meant(target, config)
    location = lock_location(config, state)
    now = int(time.time())
    until = now + int(location.lifetime) + CLOCK_SKEW
    append(location.path, SignedOut(target, now, until))
    _warn_of_unknown(target, location.tokens)
    who = "everybody" if target == "all" else target
    click.echo(f"{who} is signed out")


@click.command()
@config_option
@state_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def locks(*, as_json: bool, config: Path, state: Path | None) -> None:
    """List the locks in force."""
    found = stored_or_end(lock_location(config, state).path).revocation.locks
    if as_json:
        rows = [
            {
                "target": one.target,
                "locked_at": one.at,
                "until": one.until,
                "message": one.message,
            }
            for one in found
        ]
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    elif not found:
        click.echo("nobody is locked out")
    else:
        width = max(len(one.target) for one in found)
        for one in found:
            click.echo(f"{one.target:<{width}}  {end_text(one.until):<29}  {one.message}".rstrip())


def stored_of(settings: Settings) -> Stored:
    """Return what is stored of people.

    A store that cannot be read is a warning: the user may not be its owner.
    """
    if not settings.state.path:
        return Stored.nothing()
    try:
        return stored(Path(settings.state.path))
    except StoreError as error:
        click.echo(f"warning: locks and grants are not checked: {error}", err=True)
        return Stored.nothing()


def locked(in_force: RevocationState, sub: str | None, token: str) -> str:
    """Return a line about the lock on a person or machine, "" if there is none."""
    found = in_force.lock_on_token(token) if token else in_force.lock_on(sub) if sub else None
    return f"{found.target} is locked {end_text(found.until)}" if found else ""


def end_text(until: int | None) -> str:
    """Return until when a lock or a grant lasts."""
    if until is None:
        return _FOR_EVER
    return f"until {datetime.fromtimestamp(until, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _warn_of_unknown(target: str, tokens: frozenset[str] | None) -> None:
    """Warn of an unknown target: with a misspelt one you would believe that the lock works."""
    if target.startswith(SUB):
        warning = no_tailchat_id(target.removeprefix(SUB))
        if warning:
            click.echo(f"warning: {SUB}{warning}, so it locks nobody", err=True)
        return
    name = target.removeprefix(TOKEN)
    if tokens is not None and name != target and name not in tokens:
        click.echo(f"warning: no [[token]] of the configuration has the name {name}", err=True)
