"""Whether a visitor may use a route: one decision with one reason; anything unexpected denies."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from tailchat_gate.config.values.group import Group
from tailchat_gate.config.values.identifier import GROUP, PUBLIC, SIGNED_IN, SUB, TOKEN
from tailchat_gate.identity.grants import GrantState
from tailchat_gate.people.groups.memberships import Members
from tailchat_gate.reasons import Reason

Groups = Mapping[str, Iterable[str]]
#: For a configuration without groups from Tailchat.
NO_MEMBERS: Final = Members()
NO_GRANTS: Final = GrantState(lambda: 0.0)


class Listed(NamedTuple):
    """The persons (by sub) and machines (by token) that the entries of a list name.

    `groups` are the names of groups that also have members from Tailchat.
    """

    subs: frozenset[str] = frozenset()
    tokens: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()


NOBODY: Final = Listed()


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may enter: everybody, any signed-in person, or the persons and machines named.

    Only `public` lets those in `denied_subs` and `denied_tokens` in, as anonymous visitors.
    `refuses_method`: the place does not take the request's method. `preflight`: browsers may send
    anonymous CORS preflights. `route` is the name under which `grants` let persons in for a while,
    "" if none can.
    """

    public: bool = False
    signed_in: bool = False
    subs: frozenset[str] = frozenset()
    tokens: frozenset[str] = frozenset()
    denied_subs: frozenset[str] = frozenset()
    denied_tokens: frozenset[str] = frozenset()
    refuses_method: bool = False
    preflight: bool = False
    groups: frozenset[str] = frozenset()
    members: Members = field(default=NO_MEMBERS, compare=False)
    route: str = ""
    grants: GrantState = field(default=NO_GRANTS, compare=False)


#: Refuses everybody: the route does not take the request's method.
NO_METHOD: Final = Rule(refuses_method=True)


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome for one request."""

    allowed: bool
    reason: Reason


#: Let in as an anonymous visitor, signed in or not.
AS_NOBODY: Final = Decision(allowed=True, reason=Reason.PUBLIC)
#: Let in anonymously, for a preflight (Fetch, "CORS-preflight request").
PREFLIGHT: Final = Decision(allowed=True, reason=Reason.PREFLIGHT)
_SIGNED_IN: Final = Decision(allowed=True, reason=Reason.SIGNED_IN)
_TOKEN: Final = Decision(allowed=True, reason=Reason.TOKEN)
_NOT_SIGNED_IN: Final = Decision(allowed=False, reason=Reason.NOT_SIGNED_IN)
_DENIED: Final = Decision(allowed=False, reason=Reason.DENIED)
_DENY_LISTED: Final = Decision(allowed=False, reason=Reason.DENY_LISTED)
_TOKEN_ELSEWHERE: Final = Decision(allowed=False, reason=Reason.TOKEN_ELSEWHERE)
_GROUPS_UNKNOWN: Final = Decision(allowed=False, reason=Reason.GROUPS_UNKNOWN)
_METHOD_REFUSED: Final = Decision(allowed=False, reason=Reason.METHOD_REFUSED)
NO_ROUTE: Final = Decision(allowed=False, reason=Reason.NO_ROUTE)


def listed(entries: Iterable[str], groups: Groups) -> Listed:
    """Return the persons and machines that a list names: `group:NAME`, `sub:ID`, `token:NAME`.

    Raises ValueError for any other entry and for an unknown group.
    """
    subs: set[str] = set()
    tokens: set[str] = set()
    from_tailchat: set[str] = set()
    for entry in entries:
        kind, colon, name = entry.partition(":")
        if kind + colon == GROUP:
            if name not in groups:
                raise ValueError(f"unknown group {name!r}")
            group = Group(groups[name])
            subs.update(group.subs)
            from_tailchat.update((name,) if group.sources else ())
        elif kind + colon == SUB and name:
            subs.add(name)
        elif kind + colon == TOKEN and name:
            tokens.add(name)
        else:
            raise ValueError(f"unknown entry {entry!r}")
    if not (subs or tokens or from_tailchat):
        return NOBODY
    return Listed(frozenset(subs), frozenset(tokens), frozenset(from_tailchat))


def make_rule(
    allow: Sequence[str],
    groups: Groups,
    deny: Sequence[str] = (),
    everywhere: Listed = NOBODY,
    members: Members = NO_MEMBERS,
) -> Rule:
    """Return the rule for a route's `allow` and `deny` lists.

    An entry of `allow` may also be `public` or `signed-in`. `everywhere` are those denied on all
    routes. Raises ValueError for an unknown entry or group, an empty `allow`, and a denied group
    with members from Tailchat, which would let its members in while Tailchat does not answer.
    """
    if not allow:
        raise ValueError("an empty allow list")
    named = listed((entry for entry in allow if entry not in {PUBLIC, SIGNED_IN}), groups)
    # A route that denies nobody else shares the list with the other routes, as it may be long.
    denied = everywhere
    if deny:
        own = listed(deny, groups)
        denied = Listed(
            own.subs | everywhere.subs,
            own.tokens | everywhere.tokens,
            own.groups | everywhere.groups,
        )
    if denied.groups:
        raise ValueError(f"groups of Tailchat in a deny list: {', '.join(sorted(denied.groups))}")
    return Rule(
        PUBLIC in allow,
        SIGNED_IN in allow,
        named.subs,
        named.tokens,
        denied.subs,
        denied.tokens,
        groups=named.groups,
        members=members,
    )


def decide(rules: Sequence[Rule], sub: str | None, token: str = "") -> Decision:
    """Return the decision for the person `sub` (None = not signed in) or the machine `token`.

    `token` is the name of a machine's verified token, "" for none; with a token, `sub` is ignored.
    `rules` are those for every reading of the path, and each must allow. `public` also lets
    signed-in persons and machines in, under their own names.
    """
    if not rules:
        return NO_ROUTE
    if token:
        return _of_machine(rules, token)
    if sub is None:
        return _of_nobody(rules)
    decision = _SIGNED_IN
    for rule in rules:
        if sub in rule.denied_subs:
            return _of_denied(rules)
        if not (rule.public or rule.signed_in or sub in rule.subs):
            refusal = _by_groups(rule, sub)
            # A certain refusal takes precedence over an uncertain one.
            if refusal is not None and (refusal is not _GROUPS_UNKNOWN or decision is _SIGNED_IN):
                decision = refusal
    return decision


def takes_preflights(rules: Sequence[Rule]) -> bool:
    """Whether the rules for every reading of a path take anonymous preflights."""
    return bool(rules) and all(rule.public or rule.preflight for rule in rules)


def takes_tokens(rules: Sequence[Rule]) -> bool:
    """Whether each of the rules lets some machine in, or everybody."""
    return bool(rules) and all(rule.public or rule.tokens for rule in rules)


def _by_groups(rule: Rule, sub: str) -> Decision | None:
    """Return the refusal of a person whom a rule does not list, None if it lets them in.

    A grant or a group may do that; a grant also while the gate does not know who is in a group.
    """
    if rule.route and rule.grants.has(sub, rule.route):
        return None
    if rule.groups:
        members = rule.members
        if not rule.groups.isdisjoint(members.of(sub)):
            return None
        if not rule.groups.isdisjoint(members.unknown):
            return _GROUPS_UNKNOWN
    return _METHOD_REFUSED if rule.refuses_method else _DENIED


def _of_nobody(rules: Sequence[Rule]) -> Decision:
    for rule in rules:
        if not rule.public:
            return _METHOD_REFUSED if rule.refuses_method else _NOT_SIGNED_IN
    return AS_NOBODY


def _of_machine(rules: Sequence[Rule], token: str) -> Decision:
    decision = _TOKEN
    for rule in rules:
        if token in rule.denied_tokens:
            return _of_denied(rules)
        if not (rule.public or token in rule.tokens):
            decision = _METHOD_REFUSED if rule.refuses_method else _TOKEN_ELSEWHERE
    return decision


def _of_denied(rules: Sequence[Rule]) -> Decision:
    """Decide about a denied person or machine: they may enter only as anonymous visitors."""
    return AS_NOBODY if all(rule.public for rule in rules) else _DENY_LISTED
