"""Whether a visitor may use a route: one decision with one reason; anything unexpected denies."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tailchat_gate.config.word import GROUP, PUBLIC, SIGNED_IN, SUB
from tailchat_gate.reasons import Reason


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may enter: everybody, any signed-in person, or the persons in `subs`."""

    public: bool = False
    signed_in: bool = False
    subs: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome for one request."""

    allowed: bool
    reason: Reason


_PUBLIC: Final = Decision(allowed=True, reason=Reason.PUBLIC)
_SIGNED_IN: Final = Decision(allowed=True, reason=Reason.SIGNED_IN)
_NOT_SIGNED_IN: Final = Decision(allowed=False, reason=Reason.NOT_SIGNED_IN)
_DENIED: Final = Decision(allowed=False, reason=Reason.DENIED)
NO_ROUTE: Final = Decision(allowed=False, reason=Reason.NO_ROUTE)


def make_rule(allow: Sequence[str], groups: Mapping[str, Iterable[str]]) -> Rule:
    """Return the rule that a route's `allow` list states.

    An entry is `public`, `signed-in`, `group:NAME` or `sub:ID`. Raises ValueError for any other
    entry, an unknown group or an empty list: a rule that cannot be read must not exist.
    """
    if not allow:
        raise ValueError("an empty allow list")
    subs: set[str] = set()
    for entry in allow:
        if entry.startswith(GROUP):
            name = entry.removeprefix(GROUP)
            if name not in groups:
                raise ValueError(f"unknown group {name!r}")
            subs.update(groups[name])
        elif entry.startswith(SUB) and entry != SUB:
            subs.add(entry.removeprefix(SUB))
        elif entry not in {PUBLIC, SIGNED_IN}:
            raise ValueError(f"unknown allow entry {entry!r}")
    return Rule(PUBLIC in allow, SIGNED_IN in allow, frozenset(subs))


def decide(rules: Sequence[Rule], sub: str | None) -> Decision:
    """Return the decision for the visitor `sub` (None = not signed in).

    `rules` are those of every reading of the path; each must allow, so the strictest counts.
    A person who is signed in is let in by `public` as well, but counts as signed in.
    """
    if not rules:
        return NO_ROUTE
    for rule in rules:
        if rule.public:
            continue
        if sub is None:
            return _NOT_SIGNED_IN
        if not rule.signed_in and sub not in rule.subs:
            return _DENIED
    return _PUBLIC if sub is None else _SIGNED_IN
