"""What can never work is refused: addresses of the gate itself, and people that nobody can be."""

import json
from pathlib import Path
from typing import Any

import pytest
from configkit import good, refused

TOOL = {"upstream": "http://127.0.0.1:3000"}
ID = "660000000000000000000001"


def _routes(*routes: dict[str, Any]) -> str:
    named = ({**TOOL, "name": f"tool-{at}", "path": f"/{at}"} for at, _ in enumerate(routes))
    return json.dumps([{**tool, **route} for tool, route in zip(named, routes, strict=True)])


@pytest.mark.parametrize(
    ("variables", "places"),
    [
        ({"TAILCHAT__API_URL": "https://chat.lan/open"}, ["TAILCHAT__API_URL"]),
        ({"TAILCHAT__INTERNAL_URL": "http://chat:11000/open"}, ["TAILCHAT__INTERNAL_URL"]),
        ({"TAILCHAT__INTERNAL_URL": "http://localhost:4180"}, ["TAILCHAT__INTERNAL_URL"]),
        ({"TAILCHAT__API_URL": "http://127.0.0.1:4180"}, ["TAILCHAT__API_URL"]),
        ({"GROUPS": '{"ops": ["hoshino"], "dev": []}'}, ["GROUPS.ops[0]"]),
        ({"GROUPS": f'{{"ops": ["{ID}", "{ID[:-1]}A"]}}'}, ["GROUPS.ops[1]"]),
        ({"ACCESS__DENY": "sub:hoshino"}, ["ACCESS__DENY[0]"]),
        ({"ACCESS__APPROVERS": "sub:hoshino"}, ["ACCESS__APPROVERS[0]"]),
        ({"ROUTE": _routes({"allow": ["sub:" + ID, "sub:hoshino"]})}, ["ROUTE[0].allow[1]"]),
        ({"ROUTE": _routes({}, {"deny": ["sub:hoshino"]})}, ["ROUTE[1].deny[0]"]),
        ({"ROUTE": _routes({"upstream": "https://gate.example.com"})}, ["ROUTE[0].upstream"]),
        ({"ROUTE": _routes({"upstream": "http://gate.example.com:443"})}, ["ROUTE[0].upstream"]),
        ({"ROUTE": _routes({"upstream": "http://localhost:4180"})}, ["ROUTE[0].upstream"]),
        (
            {"ROUTE": _routes({"upstream": ["http://127.0.0.1:1", "http://127.0.0.1:4180"]})},
            ["ROUTE[0].upstream[1]"],
        ),
        (
            {
                "ROUTE": _routes({"upstream": "http://127.0.0.1:4190"}),
                "SERVER__REDIRECT_LISTEN": "127.0.0.1:4190",
            },
            ["ROUTE[0].upstream"],
        ),
    ],
)
def test_what_can_never_work_is_an_error(
    smallest: Path, variables: dict[str, str], places: list[str]
) -> None:
    """It is named by its place, instead of a start with people who cannot get in or loop."""
    found = [problem.key_path for problem in refused(smallest, **variables)]
    assert found == [f"TAILCHAT_GATE_{place}" for place in places]


@pytest.mark.parametrize(
    "variables",
    [
        {"TAILCHAT__API_URL": "https://chat.lan/open/tailchat"},
        {"TAILCHAT__INTERNAL_URL": "http://127.0.0.1:4181"},
        {"GROUPS": '{"ops": ["tailchat-group:660000000000000000000002"]}'},
        {"ROUTE": _routes({"upstream": "http://gate.example.com:3000"})},
        {
            "TAILCHAT__INTERNAL_URL": "http://127.0.0.1:4180",
            "ROUTE": _routes({"path": "/open", "allow": ["public"]}),
        },
    ],
)
def test_what_may_work_is_none(smallest: Path, variables: dict[str, str]) -> None:
    """Another port, another path, and a gate that leads to Tailchat itself."""
    assert good(smallest, **variables).settings.route


def test_the_words_say_what_to_write(smallest: Path) -> None:
    """An address without what is too much, and an id in its own letters."""
    (url,) = refused(smallest, TAILCHAT__API_URL="https://chat.lan/open")
    (entry,) = refused(smallest, GROUPS=f'{{"ops": ["{ID[:-1]}A"]}}')

    assert url.expected == '"https://chat.lan": the gate adds /open itself'
    assert entry.expected == "a Tailchat id, which has 24 hex digits in lower case"
    assert "/oauth2/userinfo" in entry.hint
