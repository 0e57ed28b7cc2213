"""Faults of Tailchat, of the way there and of the set-up: who is told, and what helps."""

import json
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from gatekit import Clock, RawUpstream, Response, RunningGate, ask, login_cookie, request_bytes
from storykit import CLIENT_ID, CLIENT_SECRET, HOSHINO, Story, served, story, until_callback
from tlskit import Authority
from usual_faults import CLOSE, HTML

from tailchat_gate.demo.faults import Fault, Hang, Rewrite
from tailchat_gate.demo.faults import Response as Said
from tailchat_gate.demo.store import App
from tailchat_gate.demo.tailchat import StandInTailchat
from tailchat_gate.observe.log import LOGGER_NAME

Start = Callable[..., Any]
WRONG_SECRET = Said(401, b'{"error":"invalid_client","error_description":"no"}')
GOOD_PROXY = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 25\r\n"
GOOD_PROXY += b'Connection: close\r\n\r\n{"error":"invalid_grant"}'


@pytest.fixture
async def scene(tmp_path: Path, clock: Clock) -> AsyncIterator[Story]:
    """Return the setting of a login."""
    async with story(tmp_path / "access.log", clock, tailchat={"timeout": "6s"}) as found:
        yield found


@pytest.fixture
def errors(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Return a function that gives the errors in the gate's own log so far."""
    with caplog.at_level(logging.WARNING, LOGGER_NAME):
        yield lambda: [
            {"message": record.getMessage(), **record.__dict__["details"]}
            for record in caplog.records
            if record.name == LOGGER_NAME and record.levelno == logging.ERROR
        ]


@pytest.mark.parametrize(
    ("endpoint", "fault", "reason"),
    [
        ("token", WRONG_SECRET, "gate-not-accepted"),
        ("token", HTML, "tailchat-broken"),
        ("token", CLOSE, "tailchat-broken"),
        ("token", Rewrite(lambda good: {**good, "id_token": "a.b.c"}), "login-id-token"),
        ("token", Rewrite(lambda good: {**good, "id_token": None}), "login-id-token"),
        ("token", Hang(), "tailchat-slow"),
        ("token", Said(429, b"", headers={"Retry-After": "7"}), "tailchat-busy"),
        ("discovery", HTML, "tailchat-broken"),
        ("me", CLOSE, "tailchat-broken"),
    ],
)
async def test_a_fault_for_all_is_an_error_and_the_way_back_is_kept(
    scene: Story,
    errors: Callable[[], list[dict[str, Any]]],
    endpoint: str,
    fault: Fault,
    reason: str,
) -> None:
    """To try again leads to the page that was asked for; the log has one error, without secrets."""
    setattr(scene.tailchat.faults, endpoint, fault)
    async with scene.visitor() as visitor:
        callback = await until_callback(visitor, scene, "/deep?x=1")
        page = await visitor.open(callback)

    assert f"<code>{page.status} {reason}</code>" in page.text
    assert 'href="/oauth2/start?rd=/deep%3Fx%3D1"' in page.text
    assert page.headers.get("Retry-After", "") == ("7" if reason == "tailchat-busy" else "")
    (error,) = errors()
    assert (error["reason"], error["count"]) == (reason, 1)
    assert CLIENT_SECRET not in json.dumps(error)
    if isinstance(fault, Hang):
        fault.release()


async def test_a_fault_for_all_is_told_once_a_minute(
    scene: Story, clock: Clock, errors: Callable[[], list[dict[str, Any]]]
) -> None:
    """Ten logins that fail for the same fault give one error, and the next minute's counts them."""
    scene.tailchat.faults.token = WRONG_SECRET
    async with scene.visitor() as visitor:
        callback = await until_callback(visitor, scene)
        for _ in range(10):
            await visitor.open(callback)
    clock.now += 60
    async with scene.visitor() as visitor:
        await visitor.open(await until_callback(visitor, scene))

    assert [error["count"] for error in errors()] == [1, 10]


async def test_no_tailchat_is_an_error(
    scene: Story, errors: Callable[[], list[dict[str, Any]]]
) -> None:
    """Where there is no connection the log has an error that names the setting."""
    async with scene.visitor() as visitor:
        callback = await until_callback(visitor, scene, "/deep")
        await scene.stop_tailchat()
        page = await visitor.open(callback)

    assert "tailchat-down" in page.text
    assert 'href="/oauth2/start?rd=/deep"' in page.text
    assert "tailchat.api_url" in errors()[0]["message"]


async def test_a_session_that_is_too_large_keeps_the_way_back(tmp_path: Path, clock: Clock) -> None:
    """A cookie that browsers would drop is not set, and to try again leads to the page."""
    session = {"recheck": "15m"}
    async with story(tmp_path / "access.log", clock, session=session) as scene:
        scene.tailchat.faults.token = Rewrite(lambda good: {**good, "refresh_token": "r" * 4000})
        async with scene.visitor() as visitor:
            page = await visitor.open(await until_callback(visitor, scene, "/deep"))

    assert (page.status, "session-too-large" in page.text) == (500, True)
    assert 'href="/oauth2/start?rd=/deep"' in page.text


async def test_a_strangers_refusal_is_no_error(
    scene: Story, errors: Callable[[], list[dict[str, Any]]]
) -> None:
    """What anybody can cause, by a state or code of one's own making, is in the audit log alone."""
    async with scene.visitor() as visitor:
        await visitor.open(f"{scene.url}/oauth2/callback?code=x&state=y&iss=z")
        callback = await until_callback(visitor, scene)
        await visitor.open(callback.replace("code=", "code=x"))

    assert errors() == []


async def test_a_mended_issuer_is_learned_at_once(
    scene: Story, clock: Clock, errors: Callable[[], list[dict[str, Any]]]
) -> None:
    """After Tailchat's API_URL was changed the next sign-in but five seconds succeeds."""
    async with scene.visitor() as visitor:
        await visitor.sign_in(f"{scene.url}/", HOSHINO.email, HOSHINO.password)
    scene.tailchat._front._issuer = "https://mended.example"
    async with scene.visitor() as visitor:
        callback = await until_callback(visitor, scene, "/deep")
        refused = await visitor.open(callback)
        expected = scene.gate.generation.settings.tailchat.api_url
        assert "login-issuer-wrong" in refused.text
        assert expected in refused.text
        assert 'href="/oauth2/start?rd=/deep"' in refused.text
        assert (errors()[0]["iss"], errors()[0]["expected"]) == ("https://mended.example", expected)
        clock.now += 6
        page = await visitor.open(callback)
    assert (page.status, page.url) == (200, f"{scene.url}/deep")


async def test_strangers_issuers_do_not_drive_discovery(scene: Story, clock: Clock) -> None:
    """Callbacks in the name of ever other issuers have Tailchat asked once in five seconds."""
    async with scene.visitor() as visitor:
        callback = await until_callback(visitor, scene)
        for number in range(20):
            page = await visitor.open(f"{callback}{number}")
            assert "login-issuer-wrong" in page.text
        assert scene.tailchat.seen["discovery"].count == 1
        clock.now += 6
        for number in range(20):
            await visitor.open(f"{callback}{number}")
    assert scene.tailchat.seen["discovery"].count == 2


async def test_a_nickname_of_any_length_signs_in(scene: Story) -> None:
    """20,000 characters of four bytes are cut to 128 whole ones, and an endless avatar dropped."""
    long = {"nickname": "\U0001f600" * 20_000, "avatar": "https://x/" + "y" * 200_000}
    users = scene.tailchat.store.users
    users[HOSHINO.sub] = replace(HOSHINO, claims={**HOSHINO.claims, **long})
    async with scene.visitor() as visitor:
        page = await visitor.sign_in(f"{scene.url}/x", HOSHINO.email, HOSHINO.password)

    assert (page.status, page.url) == (200, f"{scene.url}/x")
    assert scene.tool.requests[-1].value("X-Tailchat-Nickname") == b"%F0%9F%98%80" * 128
    assert scene.tool.requests[-1].value("X-Tailchat-Avatar") is None


async def test_who_registered_anew_is_told_what_helps(scene: Story) -> None:
    """Tailchat's 500 for a deleted account leads to a page that speaks of Tailchat's cookies."""
    scene.tailchat.faults.me = Said(500, b'{"error":"server_error"}')
    async with scene.visitor() as visitor:
        page = await visitor.open(await until_callback(visitor, scene))

    assert "clear the cookies of your Tailchat site" in page.text


# The way to Tailchat.


async def _made_up(gate: RunningGate) -> Response:
    """Come back with a code of one's own making, so that Tailchat is asked."""
    begun = await ask(gate.port, request_bytes("/oauth2/start?rd=/x"))
    state = parse_qs(urlsplit(begun.value("Location")).query)["state"][0]
    target = f"/oauth2/callback?code=made-up&state={state}&iss=http://iss.test"
    return await ask(gate.port, request_bytes(target, Cookie=login_cookie(begun)))


@pytest.fixture
async def secure_tailchat(tmp_path: Path, clock: Clock) -> AsyncIterator[tuple[str, Path]]:
    """Return the address of a Tailchat whose certificate a private authority signed, and that."""
    authority = Authority.create(tmp_path)
    context: ssl.SSLContext = authority.issue("localhost").server_context()
    tailchat = StandInTailchat(apps=[App(CLIENT_ID, CLIENT_SECRET, ())], clock=clock)
    async with served(tailchat.app(), tls=context) as port:
        yield f"https://localhost:{port}", authority.file


def _app(url: str, **more: str) -> dict[str, str]:
    given = {"api_url": url, "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}
    return {**given, "issuer": "http://iss.test", **more}


async def test_an_untrusted_certificate_is_named(
    start_gate: Start,
    secure_tailchat: tuple[str, Path],
    errors: Callable[[], list[dict[str, Any]]],
) -> None:
    """Without its authority the refusal, the page and the log say so; with ca_file it is asked."""
    url, authority = secure_tailchat
    refused = await _made_up(await start_gate(tailchat=_app(url)))
    assert (refused.status, refused.json["error"]) == (502, "tailchat-untrusted")
    assert "tailchat.ca_file" in errors()[0]["message"]
    assert "SSL_CERT_FILE" in errors()[0]["message"]
    assert errors()[0]["problem"].startswith("certificate not trusted: ")

    asked = await _made_up(await start_gate(tailchat=_app(url, ca_file=str(authority))))
    assert asked.json["error"] == "login-code-refused"


async def test_a_certificate_for_another_name_is_untrusted(
    start_gate: Start, secure_tailchat: tuple[str, Path]
) -> None:
    """A certificate of the right authority for another host is none."""
    url, authority = secure_tailchat
    other = url.replace("localhost", "127.0.0.1")
    refused = await _made_up(await start_gate(tailchat=_app(other, ca_file=str(authority))))

    assert refused.json["error"] == "tailchat-untrusted"


def _logins(upstream: RawUpstream) -> list[bytes]:
    """Return the requests of sign-ins; the gate asks about people and groups besides."""
    return [one.line for one in upstream.requests if b"/open/" in one.line]


async def test_the_back_channel_has_an_address_of_its_own(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """With internal_url the gate asks there; browsers go to api_url all the same."""
    upstream.answer = GOOD_PROXY
    url = "http://chat.invalid:9"
    gate = await start_gate(tailchat=_app(url, internal_url=f"{upstream.url}/base"))
    begun = await ask(gate.port, request_bytes("/oauth2/start?rd=/x"))
    response = await _made_up(gate)

    assert begun.value("Location").startswith(f"{url}/open/auth?")
    assert response.json["error"] == "login-code-refused"
    assert _logins(upstream) == [b"POST /base/open/token HTTP/1.1"]


@pytest.mark.parametrize(
    ("setting", "environ", "proxied"),
    [
        ("URL", {}, True),
        ("environment", {"http_proxy": "URL"}, True),
        ("environment", {"http_proxy": "URL", "no_proxy": "chat.invalid"}, False),
        ("environment", {"https_proxy": "URL"}, False),
        ("environment", {"http_proxy": "socks5://127.0.0.1:9"}, False),
        ("", {"http_proxy": "URL", "HTTP_PROXY": "URL"}, False),
    ],
)
async def test_a_proxy_is_used_where_it_is_asked_for(
    start_gate: Start,
    upstream: RawUpstream,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    environ: dict[str, str],
    proxied: bool,
) -> None:
    """A proxy that is named is used, one of the environment where that is wanted, and else none."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with_user = upstream.url.replace("//", "//user:word@")
    for name, value in environ.items():
        monkeypatch.setenv(name, value.replace("URL", with_user))
    upstream.answer = GOOD_PROXY
    proxy = setting.replace("URL", upstream.url)
    gate = await start_gate(tailchat=_app("http://chat.invalid:9/base", proxy=proxy))
    response = await _made_up(gate)

    if proxied:
        assert response.json["error"] == "login-code-refused"
        assert _logins(upstream) == [b"POST http://chat.invalid:9/base/open/token HTTP/1.1"]
        request = upstream.requests[-1]
        assert (request.value("Proxy-Authorization") is not None) is (setting == "environment")
    else:
        assert response.json["error"] == "tailchat-down"
        assert upstream.requests == []
