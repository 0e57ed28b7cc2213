"""A text that quotes a secret is known, whatever encoding the secret is in."""

import base64
import html
import json
import time
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailchat_gate.identity.oauth.responses import MAX_TEXT, quotes_any

SECRET = "h4Qz-9+/tK~w_Vb2Lr7.NxPd0YsG3mEa"
SHORT = "s3cr3t!"

ENCODINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "percent": lambda text: quote(text, safe=""),
    "percent, each character": lambda text: "".join(f"%{ord(char):02x}" for char in text),
    "percent, twice": lambda text: quote(quote(f"{text}%", safe=""), safe=""),
    "percent, three times": lambda text: quote(quote(quote(f"{text}%", safe=""))),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64url without padding": lambda t: (
        base64.urlsafe_b64encode(t.encode()).decode().rstrip("=")
    ),
    "Basic": lambda text: "Basic " + base64.b64encode(f"tc_1:{text}".encode()).decode(),
    "base64, one byte on": lambda text: base64.b64encode(f"x{text}".encode()).decode(),
    "base64, two bytes on": lambda text: base64.b64encode(f"xy{text}".encode()).decode(),
    "base64 behind letters": lambda text: "xyz" + base64.b64encode(text.encode()).decode(),
    "base64 in lines": lambda text: base64.encodebytes(text.encode() * 4).decode(),
    "base64 of percent": lambda text: base64.b64encode(quote(text, safe="").encode()).decode(),
    "percent of base64": lambda t: quote(base64.b64encode(t.encode()).decode() + "=", safe=""),
    "base64, twice": lambda t: base64.b64encode(base64.b64encode(t.encode())).decode(),
    "base32": lambda text: base64.b32encode(text.encode()).decode(),
    "hex": lambda text: text.encode().hex(),
    "HEX": lambda text: text.encode().hex().upper(),
    "hex behind a digit": lambda text: "0x" + text.encode().hex(),
    "JSON escapes": lambda text: "".join(f"\\u{ord(char):04x}" for char in text),
    "C escapes": lambda text: "".join(f"\\x{ord(char):02x}" for char in text),
    "JSON": lambda text: json.dumps(json.dumps(text + '"')).replace("/", "\\/"),
    "HTML": lambda text: "".join(f"&#{ord(char)};" for char in text),
    "HTML, by names": lambda text: html.escape(f"<{text}>"),
    "with controls between": "\0".join,
    "with spaces between": " ".join,
    "cut": lambda text: text[:20],
    "cut at the front": lambda text: text[10:],
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_each_encoding_is_undone(name: str) -> None:
    """A secret between other words is found in every usual spelling."""
    text = f"the request {ENCODINGS[name](SECRET)} was refused"

    assert quotes_any(text, ["another-secret", SECRET])


@pytest.mark.parametrize("name", [name for name in ENCODINGS if "cut" not in name])
def test_a_short_secret_is_found_whole(name: str) -> None:
    """A secret of a few characters is known by all of them."""
    assert quotes_any(f"no: {ENCODINGS[name](SHORT)}.", [SHORT])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "grant request is invalid",
        "client authentication must only be provided using one mechanism",
        "redirect_uris must only contain valid uris: https%3A%2F%2Fgate.example.com%2Fcb",
        "session 5f2b8c1e9a7d4f6083b1c2d3e4f5a6b7 not found; aGVsbG8gd29ybGQ=",
        "星野さんは見つかりません \\u661f & <b>",
    ],
)
def test_words_that_quote_nothing_stay(text: str) -> None:
    """What Tailchat usually says, other encoded words among it, is no quotation."""
    assert not quotes_any(text, [SECRET, SHORT, ""])


@given(text=st.text(max_size=600))
def test_any_text_has_an_answer(text: str) -> None:
    """Whatever a text is, it is judged, and with the secret in it found."""
    quotes_any(text, [SECRET])

    assert quotes_any(text[:300] + SECRET, [SECRET])


def test_a_text_of_many_readings_is_taken_for_a_quotation() -> None:
    """A text that is made to be read in ever more ways is not shown, and takes little time."""
    text = " ".join(base64.b64encode(f"word-{number}".encode()).decode() for number in range(900))
    started = time.process_time()

    assert quotes_any(text, [SECRET])
    assert len(text) > MAX_TEXT
    assert time.process_time() - started < 2
