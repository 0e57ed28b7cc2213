from collections.abc import Callable
from typing import Any

import pytest
from gatekit import RawClient, RawUpstream, Response, RunningGate
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from tailchat_gate.request.intent import Intent, glimpse, is_form, read_intent, wants_html

Start = Callable[..., Any]

BROWSER = (
    b"Accept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8\r\nAccept-Language: zh-CN\r\n\r\n"
)
REFUSED = {
    "bad-request": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n",
    "target-too-long": b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: gate.test\r\n",
    "head-too-large": b"GET / HTTP/1.1\r\nHost: gate.test\r\nCookie: " + b"a" * 60_000 + b"\r\n",
    "version-refused": b"GET / HTTP/3.0\r\nHost: gate.test\r\n",
    "coding-refused": b"GET / HTTP/1.1\r\nHost: gate.test\r\nTransfer-Encoding: gzip\r\n",
}
CHROME_ACCEPT = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,"
    "image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7"
)
NAVIGATE = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Accept": CHROME_ACCEPT}


@pytest.fixture
async def gate(start_gate: Start, upstream: RawUpstream) -> RunningGate:
    """Return a gate with one tool."""
    found = await start_gate(upstream.url)
    assert isinstance(found, RunningGate)
    return found


async def _answer(gate: RunningGate, sent: bytes) -> Response:
    async with RawClient.connect(gate.port) as client:
        client.send(sent)
        return await client.response()


@pytest.mark.parametrize("reason", REFUSED)
async def test_a_browser_gets_a_page_in_its_language(gate: RunningGate, reason: str) -> None:
    """It says what happened, has the policy of all pages, and a way on."""
    page = await _answer(gate, REFUSED[reason] + BROWSER)

    assert page.value("Content-Type") == "text/html; charset=utf-8"
    assert page.value("Content-Language") == "zh-Hans"
    assert page.value("Content-Security-Policy").startswith("default-src 'none'")
    assert f"{page.status} {reason}</code>" in page.body.decode()
    assert b'href="http://gate.test/' in page.body


@pytest.mark.parametrize("reason", REFUSED)
async def test_a_program_gets_json(gate: RunningGate, reason: str) -> None:
    """As before: without an Accept field that names HTML nobody reads a page."""
    answer = await _answer(gate, REFUSED[reason] + b"Accept: */*\r\n\r\n")

    assert answer.json["error"] == reason


def test_only_the_first_head_is_looked_at() -> None:
    """What another request behind it says of itself is not its own; no byte is too odd."""
    second = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nAccept: text/html\r\n\r\n"

    assert glimpse(second) == {"Host": "a"}
    assert glimpse(b"\x00\nACCEPT:\ttext/html\xff\r\nX") == {"Accept": "text/html\xff"}
    assert glimpse(b"") == {}


@pytest.mark.parametrize(
    ("what", "method", "headers", "intent"),
    [
        ("a page", "GET", NAVIGATE, Intent.NAVIGATION),
        ("its head", "HEAD", NAVIGATE, Intent.NAVIGATION),
        ("field names in lower case", "GET", {"sec-fetch-mode": "navigate"}, Intent.NAVIGATION),
        ("mode alone", "GET", {"Sec-Fetch-Mode": "navigate"}, Intent.NAVIGATION),
        ("a form", "POST", NAVIGATE, Intent.CALL),
        ("PUT", "PUT", NAVIGATE, Intent.CALL),
        ("DELETE", "DELETE", NAVIGATE, Intent.CALL),
        ("OPTIONS", "OPTIONS", NAVIGATE, Intent.CALL),
        ("a method in lower case", "get", NAVIGATE, Intent.CALL),
        ("an unknown method", "BREW", NAVIGATE, Intent.CALL),
        ("a page by XHR", "GET", {**NAVIGATE, "X-Requested-With": "XMLHttpRequest"}, Intent.CALL),
        ("XHR, empty value", "GET", {**NAVIGATE, "X-Requested-With": ""}, Intent.CALL),
        ("fetch", "GET", {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}, Intent.CALL),
        ("fetch of HTML", "GET", {"Sec-Fetch-Mode": "cors", "Accept": "text/html"}, Intent.CALL),
        ("fetch same-origin", "GET", {"Sec-Fetch-Mode": "same-origin"}, Intent.CALL),
        ("image", "GET", {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, Intent.CALL),
        ("iframe", "GET", {**NAVIGATE, "Sec-Fetch-Dest": "iframe"}, Intent.FRAME),
        ("frame", "GET", {**NAVIGATE, "Sec-Fetch-Dest": "frame"}, Intent.FRAME),
        ("embed", "GET", {**NAVIGATE, "Sec-Fetch-Dest": "embed"}, Intent.CALL),
        ("empty mode", "GET", {"Sec-Fetch-Mode": "", "Accept": "text/html"}, Intent.CALL),
        ("odd mode", "GET", {"Sec-Fetch-Mode": "NAVIGATE", "Accept": "text/html"}, Intent.CALL),
        ("websocket", "GET", {"Upgrade": "websocket", "Connection": "Upgrade"}, Intent.UPGRADE),
        ("websocket by browser", "GET", {**NAVIGATE, "Upgrade": "websocket"}, Intent.UPGRADE),
        ("h2c", "GET", {"upgrade": "h2c", "Accept": "text/html"}, Intent.UPGRADE),
        ("upgrade by POST", "POST", {"Upgrade": "websocket"}, Intent.UPGRADE),
        ("an old browser", "GET", {"Accept": CHROME_ACCEPT}, Intent.NAVIGATION),
        ("an old browser's HEAD", "HEAD", {"Accept": "text/html"}, Intent.NAVIGATION),
        ("an old browser's form", "POST", {"Accept": "text/html"}, Intent.CALL),
        (
            "jQuery for HTML",
            "GET",
            {"Accept": "text/html, */*; q=0.01", "X-Requested-With": "XMLHttpRequest"},
            Intent.CALL,
        ),
        ("curl", "GET", {"Accept": "*/*"}, Intent.CALL),
        ("nothing said", "GET", {}, Intent.CALL),
        ("an API client", "GET", {"Accept": "application/json"}, Intent.CALL),
        ("an old browser's image", "GET", {"Accept": "image/webp,*/*;q=0.8"}, Intent.CALL),
        ("HTML refused", "GET", {"Accept": "text/html;q=0, */*"}, Intent.CALL),
    ],
)
def test_intent(what: str, method: str, headers: dict[str, str], intent: Intent) -> None:
    """Only what a person's tab waits for is a navigation; the rest cannot follow a redirect."""
    assert read_intent(method, CIMultiDict(headers)) is intent


@pytest.mark.parametrize(
    ("method", "headers", "form"),
    [
        ("POST", NAVIGATE, True),
        ("POST", {"Accept": "text/html"}, True),
        ("GET", NAVIGATE, False),
        ("PUT", NAVIGATE, False),
        ("POST", {"Sec-Fetch-Mode": "navigate"}, False),
        ("POST", {**NAVIGATE, "Accept": "application/json"}, False),
        ("POST", {**NAVIGATE, "Sec-Fetch-Dest": "iframe"}, False),
        ("POST", {**NAVIGATE, "X-Requested-With": "XMLHttpRequest"}, False),
        ("POST", {**NAVIGATE, "Upgrade": "websocket"}, False),
        ("POST", {"Sec-Fetch-Mode": "cors", "Accept": "text/html"}, False),
        ("POST", {"Accept": "*/*"}, False),
    ],
)
def test_is_form(method: str, headers: dict[str, str], form: bool) -> None:
    """A form is what a tab posts and shows the answer of, where it takes HTML."""
    assert is_form(method, CIMultiDict(headers)) is form


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("text/html", True),
        ("TEXT/HTML", True),
        (" text/html ;charset=utf-8", True),
        ("application/xhtml+xml", True),
        ("application/json, text/html;q=0.1", False),
        ("application/json;q=0.5, text/html;q=0.5", True),
        ("application/json, text/html", True),
        ("*/*, text/html;q=0.1", True),
        ("image/*, text/html;q=0.1", True),
        ("text/html;q=0.2;q=1, text/plain;q=0.3", False),
        ("text/html;q=0.5, text/plain;q=2", False),
        ("text/html;q=1.5, text/plain", True),
        ("text/html;level=1;q=0.001", True),
        ("text/html;q=1", True),
        ("text/html;q=", True),
        ("text/html;q=0", False),
        ("text/html;q=0.", False),
        ("text/html;q=0.0", False),
        ("text/html; Q = 0.000 ", False),
        ("text/html;level=1;q=0", False),
        ("text/html;q=0, application/xhtml+xml", True),
        ("application/xhtml+xml;q=0, text/html;q=0", False),
        ("text/*", False),
        ("*/*", False),
        ("*", False),
        ("", False),
        (",", False),
        ("text/html5", False),
        ("xtext/html", False),
        ("text/plain;x=text/html", False),
        ("application/json," * 1000 + "text/html", False),
    ],
)
def test_wants_html(accept: str, wanted: bool) -> None:
    """HTML is wanted where no named type is better, and where it is near the start of the field."""
    assert wants_html(CIMultiDict(Accept=accept)) is wanted


#: What programs send of their own accord.
BROWSERS = {
    "Chrome": CHROME_ACCEPT,
    "Firefox": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Internet Explorer 11": "text/html, application/xhtml+xml, image/jxr, */*",
    "Android 4": (
        "application/xml,application/xhtml+xml,text/html;q=0.9,text/plain;q=0.8,*/*;q=0.5"
    ),
    "Lynx": "text/html, text/plain, text/sgml, text/css, application/xhtml+xml, */*;q=0.01",
    "w3m": "text/html, text/*;q=0.5, image/*, application/*, audio/*",
}
OTHERS = {
    "pip": (
        "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, "
        "text/html; q=0.01"
    ),
    "uv": (
        "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, "
        "text/html;q=0.01"
    ),
    "SimplePie": (
        "application/atom+xml, application/rss+xml, application/rdf+xml;q=0.9, "
        "application/xml;q=0.8, text/xml;q=0.8, text/html;q=0.7, unknown/unknown;q=0.1"
    ),
}


@pytest.mark.parametrize("client", [*BROWSERS, *OTHERS])
def test_what_real_clients_want(client: str) -> None:
    """Browsers prefer HTML; a program that only reads it at need gets 401, which it understands."""
    intent = read_intent("GET", CIMultiDict(Accept={**BROWSERS, **OTHERS}[client]))

    assert intent is (Intent.NAVIGATION if client in BROWSERS else Intent.CALL)


def test_without_accept_no_html_is_wanted() -> None:
    """A client that names no type is a program."""
    assert not wants_html(CIMultiDict())


@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "get", ""]),
    headers=st.dictionaries(
        st.sampled_from(
            ["Accept", "Upgrade", "Sec-Fetch-Mode", "Sec-Fetch-Dest", "X-Requested-With"]
        ),
        st.sampled_from(["navigate", "document", "text/html", "*/*", "", "iframe", "cors", "é"]),
    ),
)
def test_navigations_are_few(method: str, headers: dict[str, str]) -> None:
    """Nothing but a GET or HEAD, without upgrade or XHR mark, is ever a navigation."""
    if read_intent(method, CIMultiDict(headers)) is Intent.NAVIGATION:
        assert method in {"GET", "HEAD"}
        assert not {"Upgrade", "X-Requested-With"} & headers.keys()
        assert headers.get("Sec-Fetch-Mode", "navigate") == "navigate"
        assert headers.get("Sec-Fetch-Dest", "document") == "document" or (
            "Sec-Fetch-Mode" not in headers
        )
