"""`explain`: says what the gate does with a request, and by which rules."""

import time
from collections.abc import Sequence
from pathlib import Path

import click

from tailchat_gate.access.remedies import Remedy
from tailchat_gate.commands import completed_names
from tailchat_gate.commands.common import (
    EXIT_FAILED,
    EXIT_USAGE,
    config_option,
    fail,
    fit_for_a_terminal,
    json_option,
    loaded_from,
    print_json,
    to_type,
)
from tailchat_gate.commands.state import read_or_warn
from tailchat_gate.config.model import Settings
from tailchat_gate.config.values import identifier
from tailchat_gate.config.values.identifier import no_tailchat_id
from tailchat_gate.people.api import CannotTell
from tailchat_gate.people.groups.memberships import Members, Memberships
from tailchat_gate.people.groups.watch import KEY_IS_PUBLIC, fill_from
from tailchat_gate.serving.explain_request import (
    NoRequestError,
    TypedRequest,
    field_lines,
    read_field,
    read_typed,
)
from tailchat_gate.serving.explanation import Asker, explained, lets_in, lock_on, remedy_line
from tailchat_gate.serving.wiring.config_parts import route_table


def _sub(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    if value is None or identifier.is_person_name(value):
        return value
    # `lock` and allow lists write sub:ID; the page shows only the ID.
    sub = value.removeprefix(identifier.SUB)
    _entry(identifier.SUB + sub, identifier.SUBS)
    return sub


def _token(_context: click.Context, _option: click.Parameter, value: str) -> str:
    name = value.removeprefix(identifier.TOKEN)
    if value:
        _entry(identifier.TOKEN + name, "the name of a token, as in token:NAME")
    return name


def _fields(
    _context: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> list[tuple[bytes, bytes | None]]:
    try:
        return [read_field(value) for value in values]
    except ValueError as wrong:
        raise click.BadParameter(str(wrong)) from None


def _entry(entry: str, expected: str) -> None:
    try:
        identifier.deny_entry(entry)
    except ValueError:
        raise click.BadParameter(f"expected {expected}") from None


@click.command()
@config_option
@click.argument("url", shell_complete=completed_names.urls)
@click.option(
    "--as",
    "sub",
    metavar="SUB",
    callback=_sub,
    shell_complete=completed_names.persons,
    help="The person who sends it: an ID, or a name such as Name#2114; left out, nobody.",
)
@click.option(
    "--token",
    metavar="NAME",
    default="",
    callback=_token,
    shell_complete=completed_names.tokens,
    help="The machine that sends it.",
)
@click.option("--method", "-X", metavar="METHOD", default="GET", show_default=True)
@click.option(
    "--header",
    "typed",
    metavar="NAME[=VALUE]",
    multiple=True,
    callback=_fields,
    help="A header of the request; the output says whether the tool gets it. Can be repeated.",
)
@json_option
def explain(
    *,
    config: Path,
    url: str,
    sub: str | None,
    token: str,
    method: str,
    typed: list[tuple[bytes, bytes | None]],
    as_json: bool,
) -> None:
    """Explain a request for URL: its route, rules and decision, and what the tool gets.

    URL may lack its scheme, or be a path on the gate's own host.
    A refusal of a person or a machine ends with what would let them in.

    The command looks up locks, grants and the members of Tailchat's groups in the stored state, but
    not ended sessions. Where such groups decide, it asks Tailchat whether its key is the public
    one.

    Exit codes: 0 it is let through, 1 it is refused, 2 wrong configuration or usage.
    """
    if sub is not None and token:
        fail("--as and --token: give one of them; a token makes the sender a machine", EXIT_USAGE)
    settings = loaded_from(config).settings
    if sub is not None and identifier.is_person_name(sub):
        from tailchat_gate.commands.people.accounts import known_person  # noqa: PLC0415 - for names alone

        sub = known_person(settings, sub)
    if token and token not in {known.name for known in settings.token}:
        warning = f"no [[token]] has the name {token}: the gate refuses it as token-unknown"
        click.echo(f"warning: {warning}", err=True)
    if sub is not None and (odd := no_tailchat_id(sub)):
        click.echo(f"warning: {odd}: nobody can sign in with it", err=True)
    try:
        request: TypedRequest = read_typed(url, method, settings, field_lines(typed))
    except NoRequestError as error:
        fail(str(error), EXIT_USAGE)
    stored = read_or_warn(settings)
    lock = lock_on(stored.revocation, sub, token)
    fields = [name for name, _ in typed]
    members, about_groups = _members(settings, stored.memberships, is_person=sub is not None)
    asker = Asker(sub, token, lock, fields, stored.grants, members, about_groups)
    table = route_table(settings, members, stored.grants)
    allowed, lines = explained(settings, request, asker, table)
    found = () if allowed else lets_in(settings, request, asker, table)
    remedies = [remedy._replace(line=to_type(remedy.line)) for remedy in found]
    if as_json:
        print_json(_document(lines, remedies, allowed=allowed))
    else:
        for line in (*lines, *map(remedy_line, remedies)):
            click.echo(fit_for_a_terminal(line))
    if not allowed:
        raise SystemExit(EXIT_FAILED)


def _members(settings: Settings, stored: Memberships, *, is_person: bool) -> tuple[Members, str]:
    """Return the members of Tailchat's groups, and a sentence if they may not count.

    `is_person`: the request is a person's. The store does not say whether Tailchat's key is the
    public one, and its records of groups may be older than the answer to that.
    """
    members = Members(settings.groups)
    public: bool | CannotTell = False
    if is_person and members.unknown:
        public = _key(settings)
    if public is True:
        members.unknown = frozenset()
        return members, KEY_IS_PUBLIC
    when = time.time(), settings.tailchat.groups_max_age
    fill_from(members, settings.groups, stored, when)
    if public is False:
        return members, ""
    doubt = f"Tailchat does not say whether its key is public: {public.why}"
    return members, f"{doubt}; if the gate knows that it is, its groups count for nothing"


def _key(settings: Settings) -> bool | CannotTell:
    """Ask Tailchat whether its key is the public one."""
    from tailchat_gate.commands.people.accounts import with_tailchat  # noqa: PLC0415 - for such groups alone
    from tailchat_gate.people.bot import has_public_key  # noqa: PLC0415 - as above

    return with_tailchat(settings, lambda api: has_public_key(api, time.time()))


def _document(lines: list[str], remedies: Sequence[Remedy], *, allowed: bool) -> dict[str, object]:
    end = lines.index("") if "" in lines else len(lines)
    steps = (line.partition(":") for line in lines[:end])
    return {
        "allowed": allowed,
        "steps": [{"what": what, "text": text.strip()} for what, _, text in steps],
        "lets_in": [{"table": remedy.table or None, "line": remedy.line} for remedy in remedies],
        "sent": lines[end + 1 :],
    }
