"""The switch of the pages' language: what it sets, where it leads back to, who hears of it."""

import re
from collections.abc import Callable
from html import unescape
from typing import Any
from urllib.parse import quote

import pytest
from gatekit import RawClient, RawUpstream, Response, RunningGate, ask, request_bytes
from visitor import NAVIGATION

from tailchat_gate.pages.language import LANGUAGES

Start = Callable[..., Any]

PAGE = {name.replace("-", "_"): value for name, value in NAVIGATION.items()}
GERMAN = "tailchat_gate_language=de"
WIKI = "wiki.test"


@pytest.fixture
async def gate(start_gate: Start, upstream: RawUpstream) -> RunningGate:
    """Return a gate with a tool for everybody, one for nobody, and one on a host of its own."""
    routes = [
        {"name": "open", "allow": ["public"]},
        {"name": "ops", "path": "/ops", "allow": ["group:ops"]},
        {"name": "wiki", "host": WIKI, "allow": ["group:ops"]},
    ]
    found = await start_gate(upstream.url, route=routes, groups={"ops": []})
    assert isinstance(found, RunningGate)
    return found


async def _get(gate: RunningGate, target: str, host: str = "gate.test", **fields: str) -> Response:
    return await ask(gate.port, request_bytes(target, host=host, **PAGE, **fields))


def links(page: Response) -> dict[str, str]:
    """Return the links of a page's switch, by the language that each names."""
    found = re.findall(r'<a href="([^"]+)" lang="[^"]+" hreflang="([^"]+)"', page.body.decode())
    return {language: unescape(address) for address, language in found}


def kept(answer: Response) -> str:
    """Return the cookie that an answer sets, as a browser sends it, "" for none."""
    return answer.value("Set-Cookie").partition(";")[0]


@pytest.mark.parametrize("host", ["gate.test", WIKI])
async def test_a_choice_counts_on_the_host_it_was_made_on(gate: RunningGate, host: str) -> None:
    """A link of a refusal leads back to it, in the language chosen; the browser's no longer counts.

    It is the same on the public host and on a tool's own.
    """
    person = gate.cookie() if host == "gate.test" else gate.cookie_for(host)
    target = "/ops/a?b=c&d=%C3%A9"
    page = await _get(gate, target, host, Cookie=person, Accept_Language="ja")
    assert (page.status, page.value("Content-Language")) == (403, "ja")

    answer = await _get(gate, links(page)["de"], host, Cookie=person, Sec_Fetch_Site="same-origin")
    assert (answer.status, answer.value("Location")) == (303, target)
    assert answer.value("Set-Cookie") == (
        f"{GERMAN}; HttpOnly; Max-Age=31536000; Path=/; SameSite=Lax"
    )
    assert answer.value("Cache-Control") == "no-store"

    both = f"{person}; {kept(answer)}"
    again = await _get(gate, answer.value("Location"), host, Cookie=both, Accept_Language="ja")
    assert (again.status, again.value("Content-Language")) == (403, "de")
    assert again.value("Vary") == "Accept-Language, Cookie"
    assert "Dieses Konto hat hier keinen Zugriff" in again.body.decode()
    assert len(links(again)) == len(LANGUAGES)


async def test_no_tool_hears_of_the_choice(gate: RunningGate, upstream: RawUpstream) -> None:
    """The cookie is taken away as the gate's others are, and no tool can set it."""
    upstream.answer = (
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nSet-Cookie: tailchat_gate_language=ru\r\n"
        b"Set-Cookie: own=1\r\n\r\n"
    )
    answer = await _get(gate, "/", Cookie=f"a=1; {GERMAN}; __Host-{GERMAN}; b=2")

    assert upstream.requests[-1].value("Cookie") == b"a=1; b=2"
    assert answer.values("Set-Cookie") == ["own=1"]


async def test_the_name_of_the_session_changes_nothing(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """On https the cookie is one that only the host sets; it is hidden whatever the session is."""
    gate = await start_gate(
        upstream.url,
        session={"cookie_name": "mine"},
        server={"public_url": "https://gate.test", "trusted_proxies": ["127.0.0.1"]},
        route=[{"name": "open", "allow": ["public"]}],
    )
    fields = {"X_Forwarded_Proto": "https"}
    answer = await _get(gate, "/oauth2/language?to=fr", **fields)
    cookie = "__Host-tailchat_gate_language=fr"
    assert answer.value("Set-Cookie").startswith(f"{cookie}; ")
    assert answer.value("Set-Cookie").endswith("; Secure")

    for sent, language in ((cookie, "fr"), (GERMAN, "en")):
        page = await _get(gate, "/oauth2/sign_in", Cookie=sent, **fields)
        assert page.value("Content-Language") == language
        await _get(gate, "/", Cookie=sent, **fields)
        assert upstream.requests[-1].value("Cookie") is None


@pytest.mark.parametrize(
    ("query", "location"),
    [
        ("", "/"),
        ("&rd=/a/b%3Fc%3Dd", "/a/b?c=d"),
        ("&rd=/oauth2/sign_in%3Frd%3D/x", "/oauth2/sign_in?rd=/x"),
        ("&rd=//evil.example/", "/"),
        ("&rd=/%2Fevil.example/", "/"),
        ("&rd=/%5Cevil.example/", "/"),
        ("&rd=/%09/evil.example/", "/"),
        ("&rd=/a/..//evil.example", "/"),
        ("&rd=https://evil.example/", "/"),
        ("&rd=http://gate.test/", "/"),
        ("&rd=http://gate.test@evil.example/", "/"),
        ("&rd=javascript:alert(1)", "/"),
        ("&rd=/a%0D%0ASet-Cookie:%20a=b", "/"),
        ("&rd=/" + "a" * 9000, "/"),
    ],
)
async def test_it_leads_to_a_path_of_this_host_alone(
    gate: RunningGate, query: str, location: str
) -> None:
    """The way back is what the gate's rule for return targets lets through, else the first page."""
    answer = await _get(gate, f"/oauth2/language?to=de{query}")

    assert (answer.status, answer.value("Location")) == (303, location)
    assert kept(answer) == GERMAN


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_a_page_of_another_host_chooses_nothing(gate: RunningGate, site: str) -> None:
    """Its link leads on, and sets no cookie."""
    answer = await _get(gate, "/oauth2/language?to=ru&rd=/a", Sec_Fetch_Site=site)

    assert (answer.status, answer.value("Location"), kept(answer)) == (303, "/a", "")


@pytest.mark.parametrize("value", ["xx", "DE", "de-DE", "", "../en", "de%0D%0AX: y", "de%3Bde"])
async def test_only_a_language_of_the_pages_is_kept(gate: RunningGate, value: str) -> None:
    """Any other value is neither set nor, where a browser sends it, read."""
    answer = await _get(gate, f"/oauth2/language?to={quote(value, safe='%')}")
    assert (answer.status, kept(answer)) == (303, "")

    sent = f"tailchat_gate_language={value.partition('%')[0]}x"
    page = await _get(gate, "/oauth2/sign_in", Cookie=sent, Accept_Language="es")
    assert page.value("Content-Language") == "es"


@pytest.mark.parametrize("method", ["HEAD", "POST"])
async def test_only_a_link_chooses(gate: RunningGate, method: str) -> None:
    """A look at the address and a form set nothing."""
    data = request_bytes("/oauth2/language?to=de", method=method, **PAGE)
    async with RawClient.connect(gate.port) as client:
        client.send(data)
        answer = await client.response(to_head=method == "HEAD")

    assert (answer.status, kept(answer)) == (405, "")


@pytest.mark.parametrize(
    ("target", "method", "fields", "back"),
    [
        ("/ops/" + "a" * 2100 + "?b", "GET", {}, "/"),
        ("/ops/a?" + "b" * 2100, "GET", {}, "/ops/a"),
        ("/ops/form", "POST", {}, "/"),
        ("/ops/form", "POST", {"Referer": "http://gate.test/ops/new?a=1"}, "/ops/new?a=1"),
        ("/ops/form", "POST", {"Referer": "http://evil.example/ops"}, "/"),
        ("/ops/form", "POST", {"Referer": "http://gate.test.evil.example/"}, "/"),
        ("/oauth2/request", "POST", {}, "/oauth2/request"),
    ],
)
async def test_the_way_back_shows_a_page_again(
    gate: RunningGate, target: str, method: str, fields: dict[str, str], back: str
) -> None:
    """After a form it is the page that had it; an address that is too long goes without a query."""
    data = request_bytes(target, method=method, Cookie=gate.cookie(), **PAGE, **fields)
    page = await ask(gate.port, data)

    assert page.status in {400, 403}
    assert links(page)["fr"] == f"/oauth2/language?to=fr&rd={quote(back, safe='/')}"


async def test_a_login_that_was_refused_is_explained_again(gate: RunningGate) -> None:
    """Its page has an address without the code, which the switch leads back to."""
    refused = await _get(gate, "/oauth2/callback?code=c&state=s&iss=i")
    page = await _get(gate, refused.value("Location"))
    answer = await _get(gate, links(page)["es"])
    again = await _get(gate, answer.value("Location"), Cookie=kept(answer))

    assert answer.value("Location") == refused.value("Location")
    assert "login-state-forged" in again.body.decode()
    assert again.value("Content-Language") == "es"


async def test_a_page_in_a_frame_has_no_switch(gate: RunningGate) -> None:
    """A frame of another site keeps no cookie, and any page may frame that page."""
    fields = {**PAGE, "Sec_Fetch_Dest": "iframe", "Cookie": gate.cookie()}
    page = await ask(gate.port, request_bytes("/ops/", **fields))

    assert (page.status, links(page)) == (403, {})
    assert b"<footer>" not in page.body


async def test_the_choice_is_found_among_too_many_cookies(gate: RunningGate) -> None:
    """What cannot be read as a request is answered in the language chosen, too."""
    many = "; ".join(f"c{number}={'a' * 3000}" for number in range(8))
    fields = {**PAGE, "Accept_Language": "ja"}
    page = await ask(
        gate.port,
        request_bytes("/", Cookie=f"{many}; {GERMAN}; {many}", Connection="close", **fields),
    )

    assert (page.status, page.value("Content-Language")) == (431, "de")
    assert links(page) == {}
