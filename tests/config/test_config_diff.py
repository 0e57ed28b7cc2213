"""What is told of the difference between two configurations, and what only a restart changes."""

from typing import Any

import pytest
from configkit import OTHER_SECRET
from gatekit import make_settings

from tailchat_gate.config.model import changes, restart_problems

A, B = "66000000000000000000000a", "66000000000000000000000b"


def _told(old: dict[str, Any], new: dict[str, Any]) -> tuple[str, ...]:
    return changes(make_settings(**old), make_settings(**new))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({}, {}, ()),
        ({}, {"server": {"via": "x", "prefix": "/door"}}, ("server.prefix", "server.via")),
        ({}, {"session": {"secrets": [OTHER_SECRET]}}, ("session.secrets",)),
        ({"groups": {"a": [A]}}, {"groups": {"a": [B]}}, ("groups.a",)),
        ({"groups": {"a": [A]}}, {"groups": {"b": [A]}}, ("groups.b", "groups.a")),
        ({}, {"groups": {"odd.name": [A]}}, ('groups."odd.name"',)),
        (
            {"route": [{"name": "one"}, {"name": "two", "path": "/two"}]},
            {"route": [{"name": "two", "path": "/2", "trace": True}, {"name": "new"}]},
            ("route two: path, trace", "route new: added", "route one: removed"),
        ),
        ({}, {"route": [{"name": "tool", "headers": {"X-A": "{sub}"}}]}, ("route tool: headers",)),
        ({}, {"log": {"level": "debug"}, "limits": {"header_count": 9}}, None),
    ],
)
def test_changes_name_what_differs(
    old: dict[str, Any], new: dict[str, Any], expected: tuple[str, ...] | None
) -> None:
    """Keys, groups and routes are named in the order of the file, and no value is."""
    told = _told(old, new)

    assert told == (("limits.header_count", "log.level") if expected is None else expected)


def test_the_order_of_routes_is_no_change() -> None:
    """Routes are known by name, and which one a path meets does not depend on their order."""
    one, two = {"name": "one", "path": "/one"}, {"name": "two", "path": "/two"}

    assert _told({"route": [one, two]}, {"route": [two, one]}) == ()


def test_what_is_settled_at_the_start_is_refused() -> None:
    """Another number of workers is a problem that names its key and a restart; the same is none."""
    settings = make_settings()
    other = settings.model_copy(
        update={"server": settings.server.model_copy(update={"workers": 2})}
    )

    assert restart_problems(settings, make_settings(server={"via": "x"})) == ()
    (problem,) = restart_problems(settings, other)
    assert problem.key_path == "server.workers"
    assert problem.found == "the number 2"
    assert problem.expected == "the number 1, the value in force; another one needs a restart"
    (problem,) = restart_problems(settings, make_settings(state={"path": "/elsewhere"}))
    assert (problem.key_path, problem.found) == ("state.path", '"/elsewhere"')
    server = {"url": "redis://one.test", "password": "hunter2-hunter2"}
    problems = restart_problems(make_settings(), make_settings(state=server))
    assert {one.key_path: one.found for one in problems}["state.password"] == "a secret"
    assert "hunter2" not in str(problems)
