"""Warns of people, groups and tokens that are listed without effect."""

from collections.abc import Container, Iterator, Sequence

from tailchat_gate.config.model import Route, Settings
from tailchat_gate.config.values.identifier import GROUP, PUBLIC, SIGNED_IN, SUB, TOKEN
from tailchat_gate.syntax import TAILCHAT_ID

#: Tailchat: a sub is a MongoDB id, as pages and logs show it.
_NO_ID = "is not a Tailchat id, which has 24 hex digits"


def is_tailchat_id(sub: str) -> bool:
    """Whether a sub has the form of Tailchat's subs."""
    return TAILCHAT_ID.fullmatch(sub) is not None


def no_tailchat_id(sub: str) -> str:
    """Return a warning about a sub that no user of Tailchat can have, "" for any other."""
    if is_tailchat_id(sub):
        return ""
    return f"{sub} {_NO_ID}{' in lower case' if is_tailchat_id(sub.lower()) else ''}"


def of_groups(settings: Settings) -> Iterator[str]:
    """Warn of people in groups who can never match, and of groups that nothing uses."""
    entries = {entry for route in settings.route for entry in (*route.allow, *route.deny)}
    entries.update(settings.access.deny)
    for name, subs in settings.groups.items():
        if subs and GROUP + name not in entries:
            yield f"groups.{name}: no route allows or denies it, so it decides nothing"
        odd = next(filter(None, map(no_tailchat_id, subs)), "")
        if odd:
            yield f"groups.{name}: {odd}"


def of_tokens(settings: Settings) -> Iterator[str]:
    """Warn of tokens that open no route, or not every route that names them."""
    for index, token in enumerate(settings.token):
        naming = [route.name for route in settings.route if TOKEN + token.name in route.allow]
        if not naming:
            yield f"token[{index}]: no route allows it, so it opens nothing"
        elsewhere = [name for name in naming if token.routes and name not in token.routes]
        if elsewhere:
            yield f"token[{index}].routes: {elsewhere[0]} names the token and stays closed to it"


def of_route(route: Route) -> Iterator[tuple[str, str]]:
    """Yield warnings about entries of a route's `allow` and `deny`, with the key's name."""
    for entry in route.allow:
        if told := _nobody(entry):
            yield "allow", f"{told}, so it lets nobody in"
    if SIGNED_IN in route.allow and any(
        entry != SIGNED_IN and not entry.startswith(TOKEN) for entry in route.allow
    ):
        told = (
            '"signed-in" already lets every Tailchat user in, other entries for users add nothing'
        )
        yield "allow", told
    if PUBLIC in route.allow and route.deny:
        yield "deny", "the route is public, so these still enter, but as nobody"
    else:
        yield from (("deny", told) for told in of_deny(route.deny, route.allow))


def of_deny(denied: Sequence[str], allowed: Container[str]) -> Iterator[str]:
    """Warn of entries of a deny list that are also in an allow list, or have no effect."""
    for entry in denied:
        if entry in allowed:
            yield f"{entry} is in allow too, and deny wins"
        if told := _nobody(entry):
            yield f"{told}, so it keeps nobody out"


def _nobody(entry: str) -> str:
    """Return a warning about an entry that can match no user, "" for any other."""
    return (
        SUB + told if entry.startswith(SUB) and (told := no_tailchat_id(entry[len(SUB) :])) else ""
    )
