"""Groups of the configuration: people, and Tailchat's own groups and roles by their ids."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from configkit import good, problems

from tailchat_gate.config.values.group import Group, MemberSource

GROUP, ROLE, SUB = "6b" * 12, "6c" * 12, "66" * 12
BASE = """
[server]
public_url = "http://gate.test"
[tailchat]
api_url = "http://tailchat.test"
client_id = "tc"
[[route]]
name = "tool"
upstream = "http://127.0.0.1:9"
allow = ["group:ops"]
"""


Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a file which its owner alone can read."""

    def write(text: str) -> Path:
        file = tmp_path / "gate.toml"
        file.write_text(text, encoding="utf-8")
        file.chmod(0o600)
        return file

    return write


def groups_of(file: Path, **environ: str) -> Mapping[str, Group]:
    """Return the groups of a file."""
    return good(file, **environ).settings.groups


def test_a_group_lists_people_and_tailchats_groups_and_roles(write: Write) -> None:
    """Subs, groups and roles stand side by side, in a list or in a table with a limit."""
    entries = f'["{SUB}", "tailchat-group:{GROUP}", "tailchat-role:{GROUP}/{ROLE}"]'
    as_list = groups_of(write(f"{BASE}[groups]\nops = {entries}\n"))["ops"]
    as_table = groups_of(write(f"{BASE}[groups.ops]\nmembers = {entries}\nmax = 50\n"))["ops"]

    for group in (as_list, as_table):
        assert group.subs == (SUB,)
        assert group.sources == (MemberSource(GROUP), MemberSource(GROUP, ROLE))
    assert [source.entry for source in as_list.sources] == list(as_list[1:])
    assert (as_list.most, as_table.most) == (None, 50)
    assert as_list != as_table
    assert as_list == Group(as_list) == tuple(as_list)


@pytest.mark.parametrize(
    ("groups", "at", "expected"),
    [
        ('ops = ["tailchat-group:Ops"]', "groups.ops[0]", "24 hex digits in lower case"),
        (f'ops = ["tailchat-group:{GROUP.upper()}"]', "groups.ops[0]", "24 hex digits"),
        (f'ops = ["tailchat-role:{ROLE}"]', "groups.ops[0]", "tailchat-role:GROUP/ROLE"),
        (f'ops = ["tailchat-groups:{GROUP}"]', "groups.ops[0]", "tailchat-groups` prints"),
        (f'ops = {{ members = ["{SUB}", "a b"] }}', "groups.ops.members[1]", "visible ASCII"),
        ("ops = { members = [], max = 0 }", "groups.ops.max", "a whole number from 1"),
        (f'ops = {{ members = ["{SUB}", "x"], max = 1 }}', "groups.ops", "max of at least 2"),
        ("ops = { most = 3 }", "groups.ops.most", '"members" or "max"'),
        ("ops = 3", "groups.ops", "a list"),
    ],
)
def test_what_is_no_member_is_told(write: Write, groups: str, at: str, expected: str) -> None:
    """Every wrong entry is a problem with its place and what would be right."""
    found = problems(write(f"{BASE}[groups]\n{groups}\n"))

    assert [problem.key_path for problem in found if problem.key_path.startswith("groups")] == [at]
    assert expected in next(problem.expected for problem in found if problem.key_path == at)


@pytest.mark.parametrize(
    ("tables", "at"),
    [
        ('[access]\ndeny = ["group:ops"]\n', "access.deny[0]"),
        ('[[route]]\nname = "x"\nupstream = "static:204"\npath = "/x"\ndeny = ["group:ops"]\n',
         "route[1].deny[0]"),
    ],
)  # fmt: skip
def test_tailchats_groups_cannot_deny(write: Write, tables: str, at: str) -> None:
    """A deny list that sometimes cannot tell who is meant would let them in: it is refused."""
    groups = f'[groups]\nops = ["{SUB}", "tailchat-group:{GROUP}"]\n'
    (found,) = problems(write(f"{BASE}{groups}{tables}"))

    assert found.key_path == at
    assert f"tailchat-group:{GROUP}" in found.expected


def test_the_age_is_at_least_the_refresh(write: Write) -> None:
    """An answer that is too old before the next question is refused."""
    text = BASE.replace('client_id = "tc"', 'client_id = "tc"\ngroups_refresh = "20m"')
    (found,) = problems(write(text + "[groups]\nops = []\n"))

    assert found.key_path == "tailchat"
    assert 'groups_max_age of at least "20m"' in found.expected


def test_groups_come_from_the_environment_too(write: Write) -> None:
    """TAILCHAT_GATE_GROUPS takes both forms."""
    value = f'{{ops = {{members = ["tailchat-group:{GROUP}"]}}}}'
    found = groups_of(write(BASE), GROUPS=value)

    assert found["ops"].sources == (MemberSource(GROUP),)
