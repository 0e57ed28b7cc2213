"""Commands that keep people out and end their sessions: lock, unlock, sign-out, locks.

They write the store that the gate reads, so they work while it runs, which hears of it within a
second, and while it does not.
"""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from tailchat_gate.commands.common import EXIT_FAILED, config_option, fail
from tailchat_gate.commands.lock_place import (
    append,
    lock_place,
    standing,
    standing_or_end,
    state_option,
)
from tailchat_gate.config.duration import seconds
from tailchat_gate.config.lint_people import is_tailchat_id, no_tailchat_id
from tailchat_gate.config.model import Settings
from tailchat_gate.config.word import SUB, TOKEN
from tailchat_gate.identity.lock_lines import MAX_MESSAGE, is_message, is_person, is_target
from tailchat_gate.identity.locks import Lock, SignedOut, Unlock
from tailchat_gate.state.store import StoreError
from tailchat_gate.syntax import CLOCK_SKEW

_FOR_EVER: Final = "until unlocked"


def _checked(check: Callable[[str], bool], wanted: str) -> Callable[..., str]:
    def inspect(_context: click.Context, _parameter: click.Parameter, text: str) -> str:
        if not check(text):
            meant = f'; did you mean "sub:{text}"?' if is_tailchat_id(text) else ""
            raise click.BadParameter(wanted + meant)
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
@state_option
def lock(target: str, message: str, lasting: float, config: Path, state: Path | None) -> None:
    """Keep somebody out: TARGET is sub:ID, token:NAME or all.

    Open WebSockets and downloads end, and nobody who is locked out can sign in. When the lock is
    lifted, sessions from before it are good again; sign-out ends them.

    The ID of a person is on their pages, in the access log and in what `refusals` lists.
    """
    place = lock_place(config, state)
    now = int(time.time())
    until = now + int(lasting) if lasting else None
    append(place.path, Lock(target, now, until, message))
    _warn_of_unknown(target, place.tokens)
    click.echo(f"{target} is locked {_end(until)}")


@click.command()
@_target
@config_option
@state_option
def unlock(target: str, config: Path, state: Path | None) -> None:
    """Lift the lock on TARGET: sub:ID, token:NAME or all."""
    place = lock_place(config, state)
    path = place.path
    if target not in {found.target for found in standing_or_end(path).locks}:
        _warn_of_unknown(target, place.tokens)
        fail(f"{target} is not locked", EXIT_FAILED)
    append(path, Unlock(target, int(time.time())))
    click.echo(f"{target} is not locked any more")


@click.command("sign-out")
@_person
@config_option
@state_option
def sign_out(target: str, config: Path, state: Path | None) -> None:
    """End every session that TARGET, sub:ID or all, has now; they can sign in again."""
    place = lock_place(config, state)
    now = int(time.time())
    until = now + int(place.lifetime) + CLOCK_SKEW
    append(place.path, SignedOut(target, now, until))
    _warn_of_unknown(target, place.tokens)
    who = "everybody" if target == "all" else target
    click.echo(f"{who} is signed out")


@click.command()
@config_option
@state_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def locks(*, as_json: bool, config: Path, state: Path | None) -> None:
    """List the locks in force."""
    found = standing_or_end(lock_place(config, state).path).locks
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

    A store that cannot be read is a warning: whoever asks may not be its owner.
    """
    if not settings.state.path or not (sub or token):
        return ""
    try:
        in_force = standing(Path(settings.state.path))
    except StoreError as error:
        click.echo(f"warning: locks are not looked at: {error}", err=True)
        return ""
    found = in_force.lock_on_token(token) if token else in_force.lock_on(sub) if sub else None
    return f"{found.target} is locked {_end(found.until)}" if found else ""


def _end(until: int | None) -> str:
    if until is None:
        return _FOR_EVER
    return f"until {datetime.fromtimestamp(until, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _warn_of_unknown(target: str, tokens: frozenset[str] | None) -> None:
    """Warn of a target that is nobody: a misspelt one would be believed to be kept out."""
    if target.startswith(SUB):
        told = no_tailchat_id(target.removeprefix(SUB))
        if told:
            click.echo(f"warning: {SUB}{told}, so it is nobody", err=True)
        return
    name = target.removeprefix(TOKEN)
    if tokens is not None and name != target and name not in tokens:
        click.echo(f"warning: no [[token]] of the configuration has the name {name}", err=True)
