"""`lock`, `unlock`, `sign-out`, `locks`: change and list locks in the gate's store."""

import time
from collections.abc import Callable
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
from tailchat_gate.commands.state import append, read_or_end, state_location, state_option
from tailchat_gate.config.values.identifier import (
    NAME,
    SUB,
    TOKEN,
    is_person_name,
    is_tailchat_id,
    no_tailchat_id,
)
from tailchat_gate.config.values.quantities import end_text, read_duration
from tailchat_gate.identity.revocation.records import (
    MAX_MESSAGE,
    is_message,
    is_person,
    is_target,
)
from tailchat_gate.identity.revocation.state import Lock, SignedOut, Unlock
from tailchat_gate.syntax import CLOCK_SKEW


def person_meant(target: str, config: Path) -> str:
    """Return a target; look a name up in Tailchat, and return `sub:ID` after a confirmation."""
    if not is_person_name(target):
        return target
    from tailchat_gate.commands.people.accounts import confirmed_target  # noqa: PLC0415 - for names alone

    return confirmed_target(target, config)


def checked(check: Callable[[str], bool], wanted: str) -> Callable[..., str]:
    """Return a click callback that refuses a text for which `check` is false; `wanted` says why."""

    def inspect(_context: click.Context, _parameter: click.Parameter, text: str) -> str:
        if not check(text):
            meant = f'; did you mean "sub:{text}"?' if is_tailchat_id(text) else ""
            raise click.BadParameter(wanted + meant)
        return text

    return inspect


def check_id(target: str) -> None:
    """End the command if `sub:ID` has an ID that nobody can have: the change would do nothing."""
    wrong = no_tailchat_id(target.removeprefix(SUB)) if target.startswith(SUB) else ""
    if wrong:
        where = "the page /oauth2/userinfo, and `tailchat-gate refusals` lists those of others"
        fail(f"{SUB}{wrong}: nobody can have it; people see their ID on {where}", EXIT_USAGE)


_target = click.argument(
    "target",
    shell_complete=completed_names.targets,
    callback=checked(
        lambda text: is_target(text) or is_person_name(text),
        f'expected "sub:ID", {NAME}, "token:NAME" or "all"',
    ),
)
_person = click.argument(
    "target",
    shell_complete=completed_names.people_or_all,
    callback=checked(
        lambda text: is_person(text) or is_person_name(text),
        f'expected "sub:ID", {NAME} or "all"',
    ),
)


def duration(_context: click.Context, _parameter: click.Parameter, text: str) -> float:
    """Read a duration into seconds, "" into 0: a click callback."""
    try:
        return read_duration(text) if text else 0.0
    except ValueError:
        # The error is about the file, which wants quotes.
        example = "90s, 15m, 8h, 2d or 1h30m, of at most 365d"
        raise click.BadParameter(f"expected a duration such as {example}") from None


@click.command()
@_target
@click.option(
    "--message",
    default="",
    callback=checked(is_message, f"expected one line of at most {MAX_MESSAGE} characters"),
    help="Text for the locked-out person; with `all`, for everybody who opens the site.",
)
@click.option(
    "--for",
    "lifetime",
    default="",
    metavar="DURATION",
    callback=duration,
    help="How long, such as 2h or 2d. Without it, the lock lasts until `unlock`.",
)
@config_option
@state_option
def lock(target: str, message: str, lifetime: float, config: Path, state: Path | None) -> None:
    """Lock out a person, a machine or everyone: TARGET is sub:ID, Name#2114, token:NAME or all.

    Open WebSockets and downloads end, and a locked-out person cannot sign in. Once the lock is
    lifted, earlier sessions are valid again; `sign-out` ends them.

    The gate's bot looks a name up in Tailchat, and you confirm the ID that it finds. People see
    their ID on the gate's pages; it is also in the access log and in the list of `refusals`.
    """
    target = person_meant(target, config)
    check_id(target)
    location = state_location(config, state)
    now = int(time.time())
    until = now + int(lifetime) if lifetime else None
    append(location.place, Lock(target, now, until, message))
    _warn_of_unknown(target, location.tokens)
    click.echo(f"{target} is locked {end_text(until)}")


@click.command()
@_target
@config_option
@state_option
def unlock(target: str, config: Path, state: Path | None) -> None:
    """Lift the lock on TARGET: sub:ID, Name#2114, token:NAME or all."""
    target = person_meant(target, config)
    location = state_location(config, state)
    place = location.place
    if target not in {entry.target for entry in read_or_end(place).revocation.locks}:
        check_id(target)
        _warn_of_unknown(target, location.tokens)
        fail(f"{target} is not locked; `tailchat-gate locks` lists who is", EXIT_FAILED)
    append(place, Unlock(target, int(time.time())))
    click.echo(f"{target} is no longer locked")


@click.command("sign-out")
@_person
@config_option
@state_option
def sign_out(target: str, config: Path, state: Path | None) -> None:
    """End every session of TARGET, sub:ID, Name#2114 or all; people can sign in again."""
    target = person_meant(target, config)
    check_id(target)
    location = state_location(config, state)
    now = int(time.time())
    until = now + int(location.lifetime) + CLOCK_SKEW
    append(location.place, SignedOut(target, now, until))
    who = "everybody" if target == "all" else target
    click.echo(f"{who} is signed out")


@click.command()
@config_option
@state_option
@json_option
def locks(*, as_json: bool, config: Path, state: Path | None) -> None:
    """List the locks in force."""
    in_force = read_or_end(state_location(config, state).place).revocation.locks
    print_list(
        in_force,
        lambda entry: (entry.target, end_text(entry.until), entry.message),
        lambda entry: {
            "target": entry.target,
            "locked_at": entry.at,
            "until": entry.until,
            "message": entry.message,
        },
        nothing="nobody is locked out",
        as_json=as_json,
    )


def _warn_of_unknown(target: str, tokens: frozenset[str] | None) -> None:
    """Warn of a machine that no [[token]] names: its lock may be about a misspelt name."""
    name = target.removeprefix(TOKEN)
    if tokens is not None and name != target and name not in tokens:
        click.echo(f"warning: no [[token]] of the configuration has the name {name}", err=True)
