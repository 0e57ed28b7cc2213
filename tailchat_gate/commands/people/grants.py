"""`grant`, `revoke`, `grants`, `requests`: let a person use a route for a while."""

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
from tailchat_gate.commands.people.locks import check_id, checked, duration, person_meant
from tailchat_gate.commands.state import (
    OpenedStore,
    StateLocation,
    change,
    read_or_end,
    state_location,
    state_option,
)
from tailchat_gate.config.problems import did_you_mean
from tailchat_gate.config.tables.admin_page import takes_grants
from tailchat_gate.config.values.identifier import NAME, SUB, is_person_name
from tailchat_gate.config.values.quantities import end_text
from tailchat_gate.identity.grants import Grant
from tailchat_gate.identity.revocation.records import MAX_MESSAGE, is_message, is_person
from tailchat_gate.identity.revocation.state import ALL
from tailchat_gate.state.places import Place


def _is_one_person(text: str) -> bool:
    return is_person_name(text) or (text != ALL and is_person(text))


_person = click.argument(
    "person",
    shell_complete=completed_names.persons,
    callback=checked(_is_one_person, f'expected "sub:ID" or {NAME}'),
)
_route = click.argument("route", shell_complete=completed_names.routes)


@click.command()
@_person
@_route
@click.option(
    "--for",
    "lifetime",
    metavar="DURATION",
    required=True,
    callback=duration,
    help="How long, such as 8h or 7d.",
)
@click.option(
    "--reason",
    default="",
    callback=checked(is_message, f"expected one line of at most {MAX_MESSAGE} characters"),
    help="Why; it is in the audit log and in the list of `grants`.",
)
@config_option
@state_option
def grant(
    *, person: str, route: str, lifetime: float, reason: str, config: Path, state: Path | None
) -> None:
    """Let PERSON, sub:ID or Name#2114, use ROUTE for a while.

    The route's `allow` need not list the person, but a lock or a deny list still keeps them out. A
    second grant for the same route replaces the first one. Open WebSockets and downloads end with
    the grant.
    """
    if not lifetime:
        fail("--for: expected a duration above 0, such as 8h", EXIT_USAGE)
    person = person_meant(person, config)
    check_id(person)
    location = state_location(config, state)
    _check_route(location, route)
    sub = person.removeprefix(SUB)
    now = int(time.time())
    made = Grant(sub, route, now, now + int(lifetime), reason)
    _put(location.place, made)
    click.echo(f"{person} may use {route} {end_text(made.until)}")


@click.command()
@_person
@_route
@config_option
@state_option
def revoke(*, person: str, route: str, config: Path, state: Path | None) -> None:
    """End the grant of PERSON, sub:ID or Name#2114, for ROUTE before its time."""
    person = person_meant(person, config)
    place = state_location(config, state).place
    sub = person.removeprefix(SUB)
    known = {granted.route: granted for granted in read_or_end(place).grants.of(sub)}
    if route not in known:
        check_id(person)
        listed = "`tailchat-gate grants` lists who has one"
        fail(f"{person} has no grant for {route}; {listed}", EXIT_FAILED)
    _put(place, known[route].revoked(time.time()))
    click.echo(f"the grant of {person} for {route} has ended")


@click.command()
@config_option
@state_option
@json_option
def grants(*, as_json: bool, config: Path, state: Path | None) -> None:
    """List the grants in force."""
    in_force = read_or_end(state_location(config, state).place).grants.in_force
    print_list(
        in_force,
        lambda granted: (SUB + granted.sub, granted.route, end_text(granted.until), granted.reason),
        lambda granted: {
            "sub": granted.sub,
            "route": granted.route,
            "granted_at": granted.at,
            "until": granted.until,
            "reason": granted.reason,
            "by": granted.by,
        },
        nothing="nobody has a grant",
        as_json=as_json,
    )


@click.command()
@config_option
@state_option
@json_option
def requests(*, as_json: bool, config: Path, state: Path | None) -> None:
    """List the requests for access that wait for a decision.

    Approvers decide on the page /oauth2/approvals; `grant` lets a person in as well.
    """
    open_requests = read_or_end(state_location(config, state).place).requests.open
    print_list(
        open_requests,
        # Strangers choose names and reasons, which may contain control characters.
        lambda request: (
            SUB + request.sub,
            request.route,
            ascii(f"{request.nickname}#{request.discriminator}"),
            ascii(request.reason) if request.reason else "",
        ),
        lambda request: {
            "sub": request.sub,
            "nickname": request.nickname,
            "discriminator": request.discriminator,
            "route": request.route,
            "reason": request.reason,
            "asked_at": request.at,
        },
        nothing="nobody asks for access",
        as_json=as_json,
    )


def _check_route(location: StateLocation, route: str) -> None:
    """End the command for a route that no grant can open; without a configuration, do not check."""
    routes = location.routes
    if routes is None:
        return
    settings = routes.get(route)
    if settings is None:
        fail(f"no [[route]] has the name {route}{did_you_mean(route, routes)}", EXIT_USAGE)
    if not takes_grants(settings):
        fail(
            f"{route} takes no grants: its route has grants = false, or is the admin page",
            EXIT_USAGE,
        )
    if not {"public", "signed-in"}.isdisjoint(settings.allow):
        click.echo(f"warning: {route} already lets in everybody who is signed in", err=True)


def _put(place: Place, entry: Grant) -> None:
    async def write(opened: OpenedStore) -> None:
        await opened.grants.put(entry)

    change(place, write)
