"""The keys of several backends of a route: what is read, and what is a problem."""

import pytest
from gatekit import make_settings
from pydantic import ValidationError

ONE, OTHER = "http://wiki-1:80", "http://wiki-2:80"


def _backends(upstream: object) -> tuple[str, ...]:
    return make_settings(route=[{"name": "wiki", "upstream": upstream}]).route[0].backends


def test_an_upstream_is_one_or_several() -> None:
    """A list of one is that one; the order of several stays."""
    assert _backends(ONE) == _backends([ONE]) == (ONE,)
    assert _backends([OTHER, ONE, "unix:/run/wiki.sock"]) == (
        *(OTHER, ONE),
        "unix:/run/wiki.sock",
    )


@pytest.mark.parametrize(
    "upstream",
    [
        [],
        [ONE, ONE],
        [ONE, "http://WIKI-1"],
        [ONE, "https://wiki-2"],
        [ONE, "static:204"],
        ["file:/srv", ONE],
        [ONE, 7],
        [ONE, "http://wiki-2/path"],
        [f"http://wiki-{number}" for number in range(65)],
        7,
    ],
)
def test_what_are_not_backends_of_one_tool_is_refused(upstream: object) -> None:
    """Repeated, mixed, too many or none, and what is no tool."""
    with pytest.raises(ValidationError):
        _backends(upstream)


def test_keys_of_several_backends_need_several() -> None:
    """With one backend they would change nothing, which is said."""
    keys = {"sticky": True, "health": {"path": "/up"}, "slow_start": "10s", "fail_timeout": "1m"}
    route = {"name": "wiki", "upstream": [ONE, OTHER], **keys}
    assert make_settings(route=[route]).route[0].sticky

    with pytest.raises(ValidationError) as problem:
        make_settings(route=[{**route, "upstream": ONE}])

    for key in keys:
        assert f"route[0].{key}: the key left out, or a list of backends" in str(problem.value)
