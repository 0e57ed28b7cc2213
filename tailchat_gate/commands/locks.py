"""Commands that keep people out and end their sessions: lock, unlock, sign-out, locks.

They write the file that the gate reads, so they work while it runs, which hears of it within a
second, and while it does not.
"""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from tailchat_gate.commands.common import (
    EXIT_FAILED,
    EXIT_USAGE,
    config_option,
    fail,
    loaded_from,
)
from tailchat_gate.config.duration import seconds
from tailchat_gate.config.model import Settings
from tailchat_gate.identity.lock_file import LockFile, LockFileError
from tailchat_gate.identity.lock_lines import MAX_MESSAGE, is_message, is_person, is_target
from tailchat_gate.identity.locks import Entry, Lock, SignedOut, Standing, Unlock

#: As identity/lock_store.py: clocks differ.
_CLOCK_SKEW: Final = 60
_FOR_EVER: Final = "until unlocked"


def _checked(check: Callable[[str], bool], wanted: str) -> Callable[..., str]:
    def inspect(_context: click.Context, _parameter: click.Parameter, text: str) -> str:
        if not check(text):
            raise click.BadParameter(wanted)
        return text

    return inspect


_target = click.argument(
    "target", callback=_checked(is_target, 'expected "sub:ID", "token:NAME" or "all"')
)
_person = click.argument("target", callback=_checked(is_person, 'expected "sub:ID" or "all"'))


def _duration(_context: click.Context, _parameter: click.Parameter, text: str) -> float:
    try:
        return seconds(text) if text else 0.0
    except ValueError as wrong:
        raise click.BadParameter(f"expected {wrong}") from None


@click.command()
@_target
@click.option(
    "--message",
    default="",
    callback=_checked(is_message, f"expected one line of at most {MAX_MESSAGE} characters"),
    help="What the person who is kept out reads.",
)
@click.option(
    "--for",
    "lasting",
    default="",
    callback=_duration,
    help='How long, such as "2h" or "2d"; left out, until it is unlocked.',
)
@config_option
def lock(target: str, message: str, lasting: float, config: Path) -> None:
    """Keep somebody out: TARGET is sub:ID, token:NAME or all.

    Open WebSockets and downloads end, and nobody who is locked out can sign in. When the lock is
    lifted, sessions from before it are good again; sign-out ends them.
    """
    now = int(time.time())
    until = now + int(lasting) if lasting else None
    _append(loaded_from(config).settings, Lock(target, now, until, message))
    click.echo(f"{target} is locked {_end(until)}")


@click.command()
@_target
@config_option
def unlock(target: str, config: Path) -> None:
    """Lift the lock on TARGET: sub:ID, token:NAME or all."""
    settings = loaded_from(config).settings
    if target not in {found.target for found in _read(settings).locks}:
        fail(f"{target} is not locked", EXIT_FAILED)
    _append(settings, Unlock(target, int(time.time())))
    click.echo(f"{target} is not locked any more")


@click.command("sign-out")
@_person
@config_option
def sign_out(target: str, config: Path) -> None:
    """End every session that TARGET, sub:ID or all, has now; they can sign in again."""
    settings = loaded_from(config).settings
    now = int(time.time())
    until = now + int(settings.session.lifetime) + _CLOCK_SKEW
    _append(settings, SignedOut(target, now, until))
    who = "everybody" if target == "all" else target
    click.echo(f"{who} is signed out")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@config_option
def locks(*, as_json: bool, config: Path) -> None:
    """List the locks in force."""
    found = _read(loaded_from(config).settings).locks
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
            click.echo(f"{one.target:<{width}}  {_end(one.until):<29}  {one.message}".rstrip())


def locked(settings: Settings, sub: str | None, token: str) -> str:
    """Return what there is to say of a lock on a person or machine, "" where there is none.

    A file that cannot be read is a warning: whoever asks may not be its owner.
    """
    if not settings.locks.file or not (sub or token):
        return ""
    try:
        standing = _standing(settings)
    except LockFileError as error:
        click.echo(f"warning: locks are not looked at: {error}", err=True)
        return ""
    found = standing.lock_on_token(token) if token else standing.lock_on(sub) if sub else None
    return f"{found.target} is locked {_end(found.until)}" if found else ""


def _end(until: int | None) -> str:
    if until is None:
        return _FOR_EVER
    return f"until {datetime.fromtimestamp(until, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _file(settings: Settings) -> LockFile:
    if not settings.locks.file:
        fail("locks.file is empty: the running gate keeps locks in its memory alone", EXIT_USAGE)
    return LockFile(Path(settings.locks.file), time.time)


def _read(settings: Settings) -> Standing:
    """Return what the file says, nothing where there is none yet."""
    try:
        return _standing(settings)
    except LockFileError as error:
        fail(f"[locks] file: {error}", EXIT_FAILED)


def _standing(settings: Settings) -> Standing:
    """As _read; raises LockFileError."""
    try:
        found = _file(settings).read()
    except LockFileError as error:
        if error.missing:
            return Standing(time.time)
        raise
    if found.damaged:
        lines = "line" if found.damaged == 1 else "lines"
        told = f"warning: {found.damaged} damaged {lines} in {settings.locks.file}"
        click.echo(told, err=True)
    standing = Standing(time.time)
    standing.renew(found.entries)
    return standing


def _append(settings: Settings, entry: Entry) -> None:
    file = _file(settings)
    try:
        file.open()
        file.append((entry,))
    except LockFileError as error:
        fail(f"[locks] file: {error}", EXIT_FAILED)
    except OSError as error:
        fail(f"[locks] file: {settings.locks.file}: {error.strerror or error}", EXIT_FAILED)
