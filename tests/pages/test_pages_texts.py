"""The words and colours of the pages: complete in every language, documented, easy to read."""

import json
import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from tailchat_gate.pages.language import LANGUAGES
from tailchat_gate.pages.render import MAX_JSON_VALUE, Pages
from tailchat_gate.reasons import STATUS

REASONS = {reason.value: int(status) for reason, status in STATUS.items()}


def catalogue(language: str) -> dict[str, Any]:
    """Return a catalogue as it stands in its file."""
    path = files("tailchat_gate.pages").joinpath("locales", f"{language}.toml")
    return tomllib.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_reason_is_explained(language: str) -> None:
    """A reason has a title, what happened, what to do next and a button, and no other exists."""
    told = catalogue(language)["reason"]

    assert set(told) == set(REASONS)
    for reason in REASONS:
        assert set(told[reason]) == {"title", "text", "next", "action"}
        assert all("{" not in text for text in told[reason].values())


@pytest.mark.parametrize("reason", REASONS)
def test_a_program_gets_json(reason: str) -> None:
    """The JSON body names the reason, says it in a sentence and carries the request id."""
    body = json.loads(Pages().problem_json(reason, "r3qu3st", sign_in="https://g/oauth2/start"))

    assert body == {
        "error": reason,
        "message": catalogue("en")["reason"][reason]["text"],
        "request_id": "r3qu3st",
        "sign_in": "https://g/oauth2/start",
    }


def test_json_detail_is_bounded_and_cannot_replace_the_facts() -> None:
    """Detail is left out where it is empty, too long, or has the name of a fixed member."""
    long = "x" * (MAX_JSON_VALUE + 1)
    body = Pages().problem_json(
        "denied", "r", error="x", message="x", a="", b=long, c='\u202e\ud800<"\x00'
    )

    assert body.isascii()
    assert json.loads(body).keys() == {"error", "message", "request_id", "c"}
    assert json.loads(body)["error"] == "denied"
    named = json.loads(Pages().problem_json("denied", "r", reason="why", request_id="x"))
    assert (named["reason"], named["request_id"]) == ("why", "r")
    with pytest.raises(KeyError):
        Pages().problem_json("made-up", "r")


def luminance(colour: str) -> float:
    """Return the relative luminance of #rrggbb (WCAG 2.2)."""
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("front", "back", "ratio"),
    [
        ("text", "card", 7.0),
        ("quiet", "card", 4.5),
        ("link", "card", 4.5),
        ("link", "hover", 4.5),
        ("on-button", "button", 4.5),
        ("on-button", "button-hover", 4.5),
        ("on-notice", "notice", 4.5),
        ("edge", "card", 3.0),
        ("button", "card", 3.0),
        ("focus", "card", 3.0),
    ],
)
def test_colours_can_be_told_apart(scheme: str, front: str, back: str, ratio: float) -> None:
    """Text, edges and the focus ring keep the contrast of WCAG 2.2 AA in light and dark."""
    style = files("tailchat_gate.pages").joinpath("templates", "style.css").read_text("utf-8")
    blocks = [
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", b))
        for b in re.findall(r":root {(.*?)}", style, re.DOTALL)
    ]
    assert len(blocks) == 2
    assert blocks[0].keys() == blocks[1].keys()
    colours = blocks[scheme == "dark"]
    high, low = sorted((luminance(colours[front]), luminance(colours[back])), reverse=True)

    assert (high + 0.05) / (low + 0.05) >= ratio


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_is_documented_with_its_status(reason: str) -> None:
    """The admin finds each reason and its status in the table of docs/pages.md."""
    text = (Path(__file__).parents[2] / "docs" / "pages.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (\d{3}) \|", text, re.MULTILINE))

    assert rows[reason] == str(REASONS[reason])
    assert set(rows) == set(REASONS)
