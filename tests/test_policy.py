import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailchat_gate.access.policy import NO_ROUTE, Decision, Rule, decide, make_rule
from tailchat_gate.reasons import Reason

GROUPS = {"ops": ["alice", "bob"], "dev": ["carol"], "empty": []}
PUBLIC = Rule(public=True)
SIGNED_IN = Rule(signed_in=True)
OPS = Rule(subs=frozenset({"alice", "bob"}))
NOBODY = Rule()

rules = st.builds(
    Rule, st.booleans(), st.booleans(), st.frozensets(st.sampled_from(["alice", "bob", "carol"]))
)


@pytest.mark.parametrize(
    ("allow", "rule"),
    [
        (["public"], PUBLIC),
        (["signed-in"], SIGNED_IN),
        (["group:ops"], OPS),
        (["group:empty"], NOBODY),
        (["sub:alice", "sub:bob"], OPS),
        (["sub:group:ops"], Rule(subs=frozenset({"group:ops"}))),
        (["sub:public"], Rule(subs=frozenset({"public"}))),
        (["group:ops", "sub:x"], Rule(subs=frozenset({"alice", "bob", "x"}))),
        (["group:dev", "signed-in"], Rule(signed_in=True, subs=frozenset({"carol"}))),
    ],
)
def test_allow_list_makes_rule(allow: list[str], rule: Rule) -> None:
    """Each kind of entry adds those whom it names, and nobody else."""
    assert make_rule(allow, GROUPS) == rule


@pytest.mark.parametrize(
    ("allow", "problem"),
    [
        ([], "an empty allow list"),
        (["group:none"], "unknown group 'none'"),
        (["group:"], "unknown group ''"),
        (["sub:"], "unknown allow entry 'sub:'"),
        (["Public"], "unknown allow entry 'Public'"),
        (["public "], "unknown allow entry 'public '"),
        (["signed_in"], "unknown allow entry 'signed_in'"),
        (["alice"], "unknown allow entry 'alice'"),
        (["*"], "unknown allow entry '*'"),
        ([""], "unknown allow entry ''"),
        (["public", "anyone"], "unknown allow entry 'anyone'"),
    ],
)
def test_unreadable_allow_list_is_refused(allow: list[str], problem: str) -> None:
    """A rule that cannot be read does not come into being."""
    with pytest.raises(ValueError, match=f"^{re.escape(problem)}$"):
        make_rule(allow, GROUPS)


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
        ([NOBODY], "alice", False, Reason.DENIED),
        ([NOBODY], None, False, Reason.NOT_SIGNED_IN),
        ([PUBLIC, SIGNED_IN], None, False, Reason.NOT_SIGNED_IN),
        ([PUBLIC, SIGNED_IN], "carol", True, Reason.SIGNED_IN),
        ([PUBLIC, OPS], "carol", False, Reason.DENIED),
        ([SIGNED_IN, OPS], "carol", False, Reason.DENIED),
        ([OPS, PUBLIC, SIGNED_IN], "bob", True, Reason.SIGNED_IN),
        ([OPS, NOBODY], "bob", False, Reason.DENIED),
    ],
)
def test_decision(met: list[Rule], sub: str | None, allowed: bool, reason: Reason) -> None:
    """Everybody needs the leave of every rule that is met, and each refusal has its reason."""
    assert decide(met, sub) == Decision(allowed, reason)


def test_no_rule_is_no_route() -> None:
    """Where no rule is met the outcome is the one that says so."""
    assert decide((), None) is NO_ROUTE


@given(met=st.lists(rules, max_size=4), more=rules, sub=st.sampled_from([None, "alice", "zoe"]))
def test_one_more_rule_never_opens(met: list[Rule], more: Rule, sub: str | None) -> None:
    """A further reading of a path can take leave away and never give it."""
    if met and not decide(met, sub).allowed:
        assert not decide([*met, more], sub).allowed


@given(met=st.lists(rules, min_size=1, max_size=4))
def test_signing_in_takes_nothing_away(met: list[Rule]) -> None:
    """What is open to a stranger is open to every signed-in person."""
    if decide(met, None).allowed:
        assert decide(met, "zoe").allowed
