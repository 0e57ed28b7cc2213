"""Who is let in by a rule, and with which reason."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailchat_gate.access.policy import (
    AS_NOBODY,
    NO_METHOD,
    NO_ROUTE,
    NOBODY,
    Decision,
    Listed,
    Rule,
    decide,
    listed,
    make_rule,
)
from tailchat_gate.people.groups.memberships import Members
from tailchat_gate.reasons import Reason

GROUPS = {"ops": ["alice", "bob"], "dev": ["carol"], "empty": []}
PUBLIC = Rule(public=True)
SIGNED_IN = Rule(signed_in=True)
OPS = Rule(subs=frozenset({"alice", "bob"}))
NEVER = Rule()
MACHINE = Rule(tokens=frozenset({"backup"}))
PUBLIC_BUT = Rule(public=True, denied_subs=frozenset({"bob"}), denied_tokens=frozenset({"x"}))
SIGNED_IN_BUT = Rule(signed_in=True, denied_subs=frozenset({"bob"}))
MACHINE_BUT = Rule(tokens=frozenset({"backup", "x"}), denied_tokens=frozenset({"x"}))

people = st.sampled_from(["alice", "bob", "carol"])
machines = st.sampled_from(["backup", "x"])
rules = st.builds(
    Rule,
    st.booleans(),
    st.booleans(),
    st.frozensets(people),
    st.frozensets(machines),
    st.frozensets(people),
    st.frozensets(machines),
    refuses_method=st.just(value=False),
)
askers = st.one_of(
    st.tuples(st.sampled_from([None, "alice", "zoe"]), st.just("")),
    st.tuples(st.sampled_from([None, "alice"]), st.sampled_from(["backup", "x", "none"])),
)


@pytest.mark.parametrize(
    ("allow", "rule"),
    [
        (["public"], PUBLIC),
        (["signed-in"], SIGNED_IN),
        (["group:ops"], OPS),
        (["group:empty"], NEVER),
        (["sub:alice", "sub:bob"], OPS),
        (["sub:group:ops"], Rule(subs=frozenset({"group:ops"}))),
        (["sub:public"], Rule(subs=frozenset({"public"}))),
        (["group:ops", "sub:x"], Rule(subs=frozenset({"alice", "bob", "x"}))),
        (["token:ci", "sub:ci"], Rule(subs=frozenset({"ci"}), tokens=frozenset({"ci"}))),
        (["sub:token:ci"], Rule(subs=frozenset({"token:ci"}))),
        (["group:dev", "signed-in"], Rule(signed_in=True, subs=frozenset({"carol"}))),
        (["token:backup"], MACHINE),
        (["token:sub:alice"], Rule(tokens=frozenset({"sub:alice"}))),
        (["sub:backup"], Rule(subs=frozenset({"backup"}))),
    ],
)
def test_allow_list_makes_rule(allow: list[str], rule: Rule) -> None:
    """Each kind of entry adds those whom it names, and nobody else."""
    assert make_rule(allow, GROUPS) == rule


@pytest.mark.parametrize(
    ("deny", "everywhere", "subs", "tokens"),
    [
        ([], NOBODY, set(), set()),
        (["group:ops", "sub:x"], NOBODY, {"alice", "bob", "x"}, set()),
        (["token:backup"], NOBODY, set(), {"backup"}),
        ([], Listed(frozenset({"zoe"}), frozenset({"x"})), {"zoe"}, {"x"}),
        (["sub:x"], Listed(frozenset({"zoe"}), frozenset({"x"})), {"x", "zoe"}, {"x"}),
    ],
)
def test_deny_lists_make_rule(
    deny: list[str], everywhere: Listed, subs: set[str], tokens: set[str]
) -> None:
    """A rule denies those of the route's own list and those denied on all routes."""
    rule = make_rule(["signed-in"], GROUPS, deny, everywhere)

    assert rule.denied_subs == frozenset(subs)
    assert rule.denied_tokens == frozenset(tokens)
    assert rule.signed_in


def test_a_long_deny_list_is_kept_once() -> None:
    """Routes that deny nobody of their own share the list of all routes."""
    everywhere = listed([f"sub:{number}" for number in range(1000)], GROUPS)

    assert make_rule(["signed-in"], GROUPS, [], everywhere).denied_subs is everywhere.subs


BAD_ENTRIES = [
    "sub:",
    "group:",
    "token:",
    "Public",
    "public ",
    "signed_in",
    "alice",
    "*",
    "",
    "a:b",
]


@pytest.mark.parametrize(
    ("allow", "problem"),
    [
        ([], "an empty allow list"),
        (["group:none"], "unknown group 'none'"),
        (["group:"], "unknown group ''"),
        *(([entry], f"unknown entry {entry!r}") for entry in BAD_ENTRIES if entry != "group:"),
        (["public", "anyone"], "unknown entry 'anyone'"),
    ],
)
def test_unreadable_allow_list_is_refused(allow: list[str], problem: str) -> None:
    """A rule that cannot be read does not come into being."""
    with pytest.raises(ValueError, match=f"^{re.escape(problem)}$"):
        make_rule(allow, GROUPS)


@pytest.mark.parametrize("entry", [*BAD_ENTRIES, "group:none", "public", "signed-in"])
def test_unreadable_deny_list_is_refused(entry: str) -> None:
    """A deny list names persons and machines; one that cannot be read denies everybody."""
    with pytest.raises(ValueError, match=r"^unknown "):
        make_rule(["public"], GROUPS, [entry])
    with pytest.raises(ValueError, match=r"^unknown "):
        listed([entry], GROUPS)


@pytest.mark.parametrize(
    ("met", "sub", "allowed", "reason"),
    [
        ([], None, False, Reason.NO_ROUTE),
        ([], "alice", False, Reason.NO_ROUTE),
        ([PUBLIC], None, True, Reason.PUBLIC),
        ([PUBLIC], "alice", True, Reason.SIGNED_IN),
        ([SIGNED_IN], None, False, Reason.NOT_SIGNED_IN),
        ([SIGNED_IN], "alice", True, Reason.SIGNED_IN),
        ([OPS], None, False, Reason.NOT_SIGNED_IN),
        ([OPS], "alice", True, Reason.SIGNED_IN),
        ([OPS], "carol", False, Reason.DENIED),
        ([OPS], "Alice", False, Reason.DENIED),
        ([OPS], "", False, Reason.DENIED),
        ([NEVER], "alice", False, Reason.DENIED),
        ([NEVER], None, False, Reason.NOT_SIGNED_IN),
        ([MACHINE], "backup", False, Reason.DENIED),
        ([PUBLIC, SIGNED_IN], None, False, Reason.NOT_SIGNED_IN),
        ([PUBLIC, SIGNED_IN], "carol", True, Reason.SIGNED_IN),
        ([PUBLIC, OPS], "carol", False, Reason.DENIED),
        ([SIGNED_IN, OPS], "carol", False, Reason.DENIED),
        ([OPS, PUBLIC, SIGNED_IN], "bob", True, Reason.SIGNED_IN),
        ([OPS, NEVER], "bob", False, Reason.DENIED),
        # Deny lists.
        ([PUBLIC_BUT], None, True, Reason.PUBLIC),
        ([PUBLIC_BUT], "alice", True, Reason.SIGNED_IN),
        ([PUBLIC_BUT], "bob", True, Reason.PUBLIC),
        ([PUBLIC_BUT, PUBLIC], "bob", True, Reason.PUBLIC),
        ([SIGNED_IN_BUT], "bob", False, Reason.DENY_LISTED),
        ([SIGNED_IN_BUT], "alice", True, Reason.SIGNED_IN),
        ([PUBLIC, SIGNED_IN_BUT], "bob", False, Reason.DENY_LISTED),
        ([PUBLIC_BUT, SIGNED_IN], "bob", False, Reason.DENY_LISTED),
        ([SIGNED_IN, PUBLIC_BUT], "bob", False, Reason.DENY_LISTED),
        ([NEVER, PUBLIC_BUT], "bob", False, Reason.DENY_LISTED),
        ([PUBLIC_BUT, NEVER], "carol", False, Reason.DENIED),
        # Methods.
        ([NO_METHOD], None, False, Reason.METHOD_REFUSED),
        ([NO_METHOD], "alice", False, Reason.METHOD_REFUSED),
    ],
)
def test_decision(met: list[Rule], sub: str | None, allowed: bool, reason: Reason) -> None:
    """Everybody needs the leave of every rule that is met, and each refusal has its reason."""
    assert decide(met, sub) == Decision(allowed, reason)


@pytest.mark.parametrize(
    ("met", "token", "allowed", "reason"),
    [
        ([], "backup", False, Reason.NO_ROUTE),
        ([MACHINE], "backup", True, Reason.TOKEN),
        ([MACHINE], "Backup", False, Reason.TOKEN_ELSEWHERE),
        ([MACHINE], "x", False, Reason.TOKEN_ELSEWHERE),
        ([SIGNED_IN], "backup", False, Reason.TOKEN_ELSEWHERE),
        ([OPS], "alice", False, Reason.TOKEN_ELSEWHERE),
        ([PUBLIC], "backup", True, Reason.TOKEN),
        ([PUBLIC, MACHINE], "backup", True, Reason.TOKEN),
        ([MACHINE, OPS], "backup", False, Reason.TOKEN_ELSEWHERE),
        ([MACHINE_BUT], "x", False, Reason.DENY_LISTED),
        ([MACHINE_BUT], "backup", True, Reason.TOKEN),
        ([PUBLIC_BUT], "x", True, Reason.PUBLIC),
        ([MACHINE_BUT, PUBLIC_BUT], "x", False, Reason.DENY_LISTED),
        ([NO_METHOD], "backup", False, Reason.METHOD_REFUSED),
    ],
)
def test_decision_for_a_machine(met: list[Rule], token: str, allowed: bool, reason: Reason) -> None:
    """A machine is let in by name alone, and by what lets everybody in; a session helps nothing."""
    assert decide(met, None, token) == Decision(allowed, reason)
    assert decide(met, "alice", token) == Decision(allowed, reason)


def test_no_rule_is_no_route() -> None:
    """Where no rule is met the outcome is the one that says so."""
    assert decide((), None) is NO_ROUTE


@pytest.mark.parametrize(
    ("met", "sub", "token"),
    [([PUBLIC], None, ""), ([PUBLIC_BUT], "bob", ""), ([PUBLIC_BUT], None, "x")],
)
def test_whom_the_tool_must_take_for_nobody(met: list[Rule], sub: str | None, token: str) -> None:
    """A stranger, and who is denied but may have what is public, get one and the same decision."""
    assert decide(met, sub, token) is AS_NOBODY
    assert decide([PUBLIC], "alice") is not AS_NOBODY


@given(met=st.lists(rules, max_size=4), more=rules, asker=askers)
def test_one_more_rule_never_opens(
    met: list[Rule], more: Rule, asker: tuple[str | None, str]
) -> None:
    """A further reading of a request can take leave away and never give it."""
    if met and not decide(met, *asker).allowed:
        assert not decide([*met, more], *asker).allowed


@given(met=st.lists(rules, min_size=1, max_size=4), asker=askers)
def test_the_order_of_rules_does_not_count(met: list[Rule], asker: tuple[str | None, str]) -> None:
    """The same rules in another order give the same decision with the same reason."""
    assert decide(met, *asker) == decide(met[::-1], *asker)


@given(met=st.lists(rules, min_size=1, max_size=4), asker=askers)
def test_nobody_is_refused_more_than_a_stranger(
    met: list[Rule], asker: tuple[str | None, str]
) -> None:
    """What is open to a stranger is open to everybody."""
    if decide(met, None).allowed:
        assert decide(met, *asker).allowed


@given(met=st.lists(rules, min_size=1, max_size=4))
def test_a_denied_person_is_let_in_as_a_stranger_or_not_at_all(met: list[Rule]) -> None:
    """Whom a rule that is met denies has what a stranger has, and never a name."""
    if any("bob" in rule.denied_subs for rule in met):
        decision = decide(met, "bob")
        assert decision.allowed == decide(met, None).allowed
        assert decision is AS_NOBODY or decision.reason is Reason.DENY_LISTED


# Groups from Tailchat


FROM_TAILCHAT = {
    "ops": (f"tailchat-group:{'6b' * 12}", "u9"),
    "devs": (f"tailchat-role:{'6b' * 12}/{'6c' * 12}",),
    "plain": ("u8",),
}


def _members(unknown: tuple[str, ...] = (), **people: tuple[str, ...]) -> Members:
    members = Members()
    members.groups_of = {sub: frozenset(groups) for sub, groups in people.items()}
    members.unknown = frozenset(unknown)
    return members


@pytest.mark.parametrize(
    ("sub", "unknown", "reason"),
    [
        ("u1", (), Reason.SIGNED_IN),
        ("u2", (), Reason.DENIED),
        ("u9", ("ops", "devs"), Reason.SIGNED_IN),
        ("u8", ("ops", "devs"), Reason.SIGNED_IN),
        ("u1", ("ops", "devs"), Reason.SIGNED_IN),
        ("u2", ("ops",), Reason.GROUPS_UNKNOWN),
        ("u2", ("devs",), Reason.DENIED),
        (None, ("ops",), Reason.NOT_SIGNED_IN),
    ],
)
def test_tailchats_groups_let_in_and_never_say_no_without_knowing(
    sub: str | None, unknown: tuple[str, ...], reason: Reason
) -> None:
    """Who is listed or known is in; of others the gate says no only where it can tell."""
    members = _members(unknown, u1=("ops",), u2=("devs",))
    rule = make_rule(["group:ops", "group:plain"], FROM_TAILCHAT, members=members)

    assert decide([rule], sub).reason is reason


def test_a_certain_no_counts_before_what_the_gate_cannot_tell() -> None:
    """Of several readings the strictest counts, in any order, and a deny list before all."""
    members = _members(("ops",))
    unknown = make_rule(["group:ops"], FROM_TAILCHAT, members=members)
    closed = make_rule(["sub:u3"], FROM_TAILCHAT, members=members)
    denied = make_rule(["group:ops"], FROM_TAILCHAT, ["sub:u2"], members=members)
    open_ = make_rule(["signed-in"], FROM_TAILCHAT)

    for rules in ([unknown, closed], [closed, unknown]):
        assert decide(rules, "u2").reason is Reason.DENIED
    for rules in ([unknown, open_], [open_, unknown]):
        assert decide(rules, "u2").reason is Reason.GROUPS_UNKNOWN
    assert decide([unknown, denied], "u2").reason is Reason.DENY_LISTED
    assert decide([unknown, NO_METHOD], "u2").reason is Reason.METHOD_REFUSED


def test_a_group_of_tailchat_in_a_deny_list_makes_no_rule() -> None:
    """A rule that could let in whom it means to keep out must not exist."""
    for deny, everywhere in ((["group:devs"], NOBODY), ([], listed(["group:ops"], FROM_TAILCHAT))):
        with pytest.raises(ValueError, match="groups of Tailchat in a deny list"):
            make_rule(["signed-in"], FROM_TAILCHAT, deny, everywhere)
