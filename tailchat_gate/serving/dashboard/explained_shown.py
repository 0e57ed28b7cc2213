"""What the explain box shows: the verdict on a request, why, and what would let it pass."""

from typing import Final

from tailchat_gate.config.values.identifier import SUB, TOKEN, is_sub
from tailchat_gate.people.group_watch import KEY_IS_PUBLIC
from tailchat_gate.serving.explain_request import Asked, NotAskedError, read_asked
from tailchat_gate.serving.explanation import Asker, explained, lets_in, lock_on, remedy_line
from tailchat_gate.serving.generations import Generation

_LONGEST: Final = 8192
_MOST_LINES: Final = 200


def explained_shown(
    generation: Generation, *, url: str, who: str, method: str
) -> dict[str, object]:
    """Return whether a request is let through, and the lines of `explain`.

    Without the request that the tool gets: a route's `headers` may hold a secret.
    """
    settings = generation.settings
    try:
        asker = _asker(generation, who.strip())
        asked: Asked = read_asked(url.strip()[:_LONGEST], method.strip().upper(), settings)
    except (NotAskedError, ValueError) as error:
        return {"allowed": False, "lines": [str(error)]}
    table = generation.gate.authorizer.routes
    allowed, lines = explained(settings, asked, asker, table)
    if "" in lines:
        lines = lines[: lines.index("")]
    if not allowed:
        lines += map(remedy_line, lets_in(settings, asked, asker, table))
    return {"allowed": allowed, "lines": lines[:_MOST_LINES]}


def _asker(generation: Generation, who: str) -> Asker:
    """Return who asks. Raises ValueError."""
    process_state = generation.process_state
    token = who.removeprefix(TOKEN) if who.startswith(TOKEN) else ""
    sub = None if token or not who else who.removeprefix(SUB)
    if sub is not None and not is_sub(sub):
        raise ValueError("expected an ID, such as sub:660000000000000000000001, or token:NAME")
    lock = lock_on(process_state.revocation, sub, token)
    groups, watch = generation.groups, process_state.tailchat.group_watch
    about = KEY_IS_PUBLIC if sub is not None and groups.sources and watch.key_is_public else ""
    return Asker(sub, token, lock, (), process_state.grants.state, groups.members, about)
