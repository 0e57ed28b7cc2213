"""Values of the explain box: the verdict on a request, why, and what would let it pass."""

from collections.abc import Iterable
from typing import Final

from tailchat_gate.config.model import Settings
from tailchat_gate.config.values.identifier import SUB, TOKEN, is_sub
from tailchat_gate.endpoints.form_outcome import FormOutcome
from tailchat_gate.people.groups.watch import KEY_IS_PUBLIC
from tailchat_gate.proxy.client.connection import ClientConnection
from tailchat_gate.serving.dashboard.typed_names import CONFIRM, resolve_person
from tailchat_gate.serving.explain_request import NoRequestError, TypedRequest, read_typed
from tailchat_gate.serving.explanation import Asker, explained, lets_in, lock_on, remedy_line
from tailchat_gate.serving.generations import Generation
from tailchat_gate.syntax import METHOD

_LONGEST: Final = 8192
_MOST_LINES: Final = 200


async def explained_shown(
    generation: Generation,
    connections: Iterable[ClientConnection],
    *,
    url: str,
    who: str,
    method: str,
) -> dict[str, object]:
    """Return whether a request would be let through, and the lines of `explain`.

    If an input is invalid, returns `wrong`, the message about it, and `field`, its name. The
    request that the tool would get is left out: a route's `headers` may hold a secret.
    """
    settings, method = generation.settings, method.strip().upper()
    outcome = _wrong_token(settings, who.strip())
    meant = "" if outcome else who.strip()
    if meant and not meant.startswith(TOKEN):
        meant, outcome = await _sub_of(meant, generation, connections)
    if outcome is not None and outcome.code != CONFIRM:
        return {"wrong": outcome.shown(), "field": "as"}
    if METHOD.fullmatch(method) is None:
        return {"wrong": FormOutcome("invalid-method", {"text": method}).shown(), "field": "method"}
    try:
        request: TypedRequest = read_typed(url.strip()[:_LONGEST], method, settings)
    except NoRequestError:
        return {"wrong": FormOutcome("invalid-url", {"text": url.strip()}).shown(), "field": "url"}
    shown = _explained(generation, request, _asker(generation, meant))
    return {**shown, "meant": outcome.values["who"] if outcome else ""}


def _explained(generation: Generation, request: TypedRequest, asker: Asker) -> dict[str, object]:
    settings, table = generation.settings, generation.gate.authorizer.routes
    allowed, lines = explained(settings, request, asker, table)
    if "" in lines:
        lines = lines[: lines.index("")]
    if not allowed:
        lines += map(remedy_line, lets_in(settings, request, asker, table))
    return {"allowed": allowed, "lines": lines[:_MOST_LINES]}


def _wrong_token(settings: Settings, who: str) -> FormOutcome | None:
    name = who.removeprefix(TOKEN)
    if name == who or any(token.name == name for token in settings.token):
        return None
    return FormOutcome("unknown-token", {"text": name})


async def _sub_of(
    text: str, generation: Generation, connections: Iterable[ClientConnection]
) -> tuple[str, FormOutcome | None]:
    """Return the person that a text means; a `sub:` from the configuration need not be an ID."""
    if text.startswith(SUB) and is_sub(text.removeprefix(SUB)):
        return text, None
    meant = await resolve_person(text, generation, connections)
    return meant.target, meant.outcome


def _asker(generation: Generation, who: str) -> Asker:
    """Return who sends the request: a person, a machine, or an anonymous visitor for ""."""
    process_state = generation.process_state
    token = who.removeprefix(TOKEN) if who.startswith(TOKEN) else ""
    sub = None if token or not who else who.removeprefix(SUB)
    lock = lock_on(process_state.revocation, sub, token)
    groups, watch = generation.groups, process_state.tailchat.group_watch
    about = KEY_IS_PUBLIC if sub is not None and groups.sources and watch.key_is_public else ""
    return Asker(sub, token, lock, (), process_state.grants.state, groups.members, about)
