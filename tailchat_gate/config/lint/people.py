"""Warns of people, groups and tokens that are named and let nobody in, or keep nobody out."""

from collections.abc import Container, Iterator, Sequence

from tailchat_gate.config.model import Route, Settings
from tailchat_gate.config.values.identifier import GROUP, PUBLIC, SIGNED_IN, SUB, TOKEN
from tailchat_gate.syntax import TAILCHAT_ID

#: Tailchat: a sub is a MongoDB id, as pages and logs show it.
_NO_ID = "is not a Tailchat id, which has 24 hex digits"


def is_tailchat_id(sub: str) -> bool:
    """Tell whether a sub has the form of those that Tailchat gives."""
    return TAILCHAT_ID.fullmatch(sub) is not None


def no_tailchat_id(sub: str) -> str:
    """Return what there is to say of a sub that no user of Tailchat can have, "" of any other."""
    if is_tailchat_id(sub):
        return ""
    return f"{sub} {_NO_ID}{' in lower case' if is_tailchat_id(sub.lower()) else ''}"


def of_groups(settings: Settings) -> Iterator[str]:
    """Warn of people who are listed and will never be met, or never asked for."""
    entries = {entry for route in settings.route for entry in (*route.allow, *route.deny)}
    entries.update(settings.access.deny)
    for name, subs in settings.groups.items():
        if subs and GROUP + name not in entries:
            yield f"groups.{name}: no route allows or denies it, so it decides nothing"
        odd = next(filter(None, map(no_tailchat_id, subs)), "")
        if odd:
            yield f"groups.{name}: {odd}"


def of_tokens(settings: Settings) -> Iterator[str]:
    """Warn of tokens that open nothing, or not all that names them."""
    for index, token in enumerate(settings.token):
        naming = [route.name for route in settings.route if TOKEN + token.name in route.allow]
        if not naming:
            yield f"token[{index}]: no route allows it, so it opens nothing"
        elsewhere = [name for name in naming if token.routes and name not in token.routes]
        if elsewhere:
            yield f"token[{index}].routes: {elsewhere[0]} names the token and stays closed to it"


def of_route(route: Route) -> Iterator[tuple[str, str]]:
    """Pair `allow` and `deny` of a route with what is to be said of their entries."""
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
    """Warn of entries of a deny list that are in an allow list too, or keep nobody out."""
    for entry in denied:
        if entry in allowed:
            yield f"{entry} is in allow too, and deny wins"
        if told := _nobody(entry):
            yield f"{told}, so it keeps nobody out"


def _nobody(entry: str) -> str:
    """Return what there is to say of an entry that names no possible user, "" of any other."""
    return (
        SUB + told if entry.startswith(SUB) and (told := no_tailchat_id(entry[len(SUB) :])) else ""
    )
