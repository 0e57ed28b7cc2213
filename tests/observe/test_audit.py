"""The audit log: sign-ins, sign-outs, refusals; the refusals that are kept for an admin."""

import asyncio
import json
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from accounts import user_named
from aiohttp import ClientSession
from click.testing import CliRunner
from gatekit import (
    SECRET,
    SUB,
    Clock,
    RawClient,
    RawUpstream,
    RunningGate,
    ask,
    request_bytes,
    until,
)
from storykit import Story, story

from tailchat_gate.cli import main
from tailchat_gate.identity.machine_tokens import hash_of, make_token
from tailchat_gate.identity.oauth.responses import Profile
from tailchat_gate.observe.audit import MAX_REFUSALS, MAX_SIGN_INS, Audit, Person
from tailchat_gate.observe.log import AUDIT_LOGGER_NAME, set_up_logging
from tailchat_gate.reasons import Reason
from tailchat_gate.request.context import RequestContext
from tailchat_gate.state.sqlite.files import NAME

Start = Callable[..., Any]
HOSHINO = user_named("hoshino")
EVE = Profile("660000000000000000000009", 'Eve"\r\n{"event":"signed-in"}', "0666", "")


@pytest.fixture
def events(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Return a function that gives the audit events so far."""
    with caplog.at_level(logging.INFO, AUDIT_LOGGER_NAME):
        yield lambda: [
            record.__dict__["details"]
            for record in caplog.records
            if record.name == AUDIT_LOGGER_NAME
        ]


@pytest.fixture
async def scene(tmp_path: Path, clock: Clock) -> AsyncIterator[Story]:
    """Return the setting of a login."""
    async with story(tmp_path / "access.log", clock) as found:
        yield found


@pytest.fixture
async def closed(start_gate: Start, upstream: RawUpstream) -> RunningGate:
    """Return a gate with a tool that is somebody else's, and an admin listener."""
    gate: RunningGate = await start_gate(
        upstream.url,
        server={"admin_listen": "127.0.0.1:0", "trusted_proxies": ["127.0.0.1"]},
        route=[{"name": "vault", "allow": ["sub:somebody-else"]}],
    )
    return gate


async def admin(gate: RunningGate, path: str) -> Any:  # noqa: ANN401 - JSON
    """Return what a page of the admin listener says."""
    host, port = gate.admin_address
    async with ClientSession() as session, session.get(f"http://{host}:{port}{path}") as answer:
        return await answer.json()


async def test_a_client_that_leaves_at_once_is_signed_out_all_the_same(
    start_gate: Start,
    upstream: RawUpstream,
    tmp_path: Path,
    events: Callable[[], list[dict[str, Any]]],
) -> None:
    """Nobody ends sessions without a trace by not waiting for the answer."""
    gate = await start_gate(
        upstream.url, state={"path": str(tmp_path)}, server={"half_closed_timeout": "0s"}
    )
    reached = gate.generation.process_state.revocation.version
    fields = {"Cookie": gate.cookie(), "Sec_Fetch_Site": "same-origin", "Content_Length": "0"}
    # As long as another writer is at it nothing is answered.
    with closing(sqlite3.connect(tmp_path / NAME, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with RawClient.connect(gate.port) as client:
            client.send(request_bytes("/oauth2/sign_out", method="POST", **fields))
            await until(lambda: gate.generation.process_state.revocation.version > reached)
        await until(lambda: not gate.server._server.connections)

    assert [event["event"] for event in events()] == ["signed-out"]


async def test_a_refusal_is_written_and_kept(
    closed: RunningGate, events: Callable[[], list[dict[str, Any]]]
) -> None:
    """Who was refused which tool and why: in the audit log, and for the admin to copy."""
    await ask(closed.port, request_bytes("/a?secret=1", Cookie=closed.cookie()))

    (event,) = events()
    assert (event["event"], event["sub"], event["route"], event["reason"]) == (
        *("refused", SUB, "vault", "denied"),
    )
    (kept,) = (await admin(closed, "/refusals"))["refusals"]
    assert (kept["sub"], kept["nickname"], kept["discriminator"]) == (SUB, "Alice", "0042")
    assert (kept["route"], kept["path"], kept["reason"]) == ("vault", "/a", "denied")
    assert (kept["count"], kept["last"]) == (1, "2027-01-15T08:00:00Z")
    assert "secret" not in json.dumps([event, kept])


async def test_a_proxys_question_is_a_refusal_too(
    closed: RunningGate, events: Callable[[], list[dict[str, Any]]]
) -> None:
    """What was asked about is named, not the question."""
    fields = {"X_Forwarded_Uri": "/deep?q", "Cookie": closed.cookie()}
    await ask(closed.port, request_bytes("/oauth2/auth", **fields))

    assert events()[0]["path"] == "/deep"


ODD_PATH = "/a" + "%CC%80%CC%96" * 16


@pytest.mark.parametrize("question", [False, True], ids=["request", "forward-auth"])
@pytest.mark.parametrize(
    ("path", "fields", "reason", "audited"),
    [
        ("/vault", {"Destination": "https://evil.test/x"}, "claim-refused", 1),
        ("/vault", {"Destination": ""}, "claim-refused", 1),
        (ODD_PATH, {}, "bad-request", 0),
    ],
)
async def test_what_is_refused_before_a_decision_has_a_name_too(
    start_gate: Start,
    upstream: RawUpstream,
    events: Callable[[], list[dict[str, Any]]],
    path: str,
    fields: dict[str, str],
    reason: str,
    audited: int,
    *,
    question: bool,
) -> None:
    """The access log names the person or machine, the audit log as well where it is about them."""
    secret = make_token(bytes(32))
    gate = await start_gate(
        upstream.url,
        server={"trusted_proxies": ["127.0.0.1"]},
        token=[{"name": "ci", "hash": hash_of(secret)}],
        route=[
            {"name": "vault", "allow": ["signed-in", "token:ci"]},
            {"name": "open", "path": "/open", "allow": ["public"]},
        ],
    )
    asked = {"X_Forwarded_Uri": path, "X_Forwarded_Method": "COPY"} if question else {}
    for who in ({"Cookie": gate.cookie()}, {"Authorization": f"Bearer {secret}"}):
        sent = request_bytes(
            "/oauth2/auth" if question else path,
            method="GET" if question else "COPY",
            **who,
            **fields,
            **asked,
        )
        assert (await ask(gate.port, sent)).status in {400, 403}

    lines = (await gate.log())[-2:]
    assert [(line["sub"], line["token"]) for line in lines] == [(SUB, ""), ("", "ci")]
    assert [line["reason"] for line in lines] == [reason] * 2
    written = [(event["sub"], event["reason"], event["path"]) for event in events()]
    assert written == [(SUB, reason, path), ("token:ci", reason, path)] * audited


async def test_repeated_refusals_are_counted(
    closed: RunningGate, clock: Clock, events: Callable[[], list[dict[str, Any]]]
) -> None:
    """A page that asks again and again is one line a minute, and one entry."""
    for _ in range(5):
        await ask(closed.port, request_bytes(Cookie=closed.cookie()))
    clock.now += 60
    await ask(closed.port, request_bytes(Cookie=closed.cookie()))

    assert [event["count"] for event in events()] == [1, 6]
    assert [kept["count"] for kept in (await admin(closed, "/refusals"))["refusals"]] == [6]


async def test_an_address_that_does_not_exist_is_nobodys_refusal(
    start_gate: Start, upstream: RawUpstream, events: Callable[[], list[dict[str, Any]]]
) -> None:
    """What is refused to everybody alike is in the access log alone."""
    gate = await start_gate(
        upstream.url, route=[{"name": "wiki", "path": "/wiki", "methods": ["GET"]}]
    )
    for method, path in (("GET", "/typo"), ("POST", "/wiki")):
        await ask(gate.port, request_bytes(path, method=method, Cookie=gate.cookie()))

    assert events() == []


async def test_strangers_leave_no_trace_in_it(
    closed: RunningGate, events: Callable[[], list[dict[str, Any]]]
) -> None:
    """Requests of nobody are in the access log alone, so that they cannot flood this one."""
    for cookie in ("", "tailchat_gate=junk"):
        await ask(closed.port, request_bytes(Cookie=cookie))

    assert events() == []
    assert (await admin(closed, "/refusals"))["refusals"] == []


async def test_a_login_and_a_sign_out_are_written(
    scene: Story, events: Callable[[], list[dict[str, Any]]]
) -> None:
    """Who signed in and out, and which callback was refused; no code or token."""
    async with scene.visitor() as visitor:
        await visitor.open(f"{scene.url}/oauth2/callback?code=stolen&state=x&iss=y")
        await visitor.sign_in(scene.url, HOSHINO.email, HOSHINO.password)
        page = await visitor.open(scene.url + "/oauth2/sign_out")
        await visitor.submit(page, "/oauth2/sign_out")

    found = events()
    assert [event["event"] for event in found] == ["sign-in-refused", "signed-in", "signed-out"]
    assert [event["sub"] for event in found] == ["", HOSHINO.sub, HOSHINO.sub]
    assert found[0]["reason"] == "login-state-forged"
    assert "stolen" not in repr(found)


async def test_strangers_cannot_flood_it(
    gate: RunningGate, events: Callable[[], list[dict[str, Any]]], clock: Clock
) -> None:
    """Of 500 made-up callbacks five a reason and minute are written, and the others counted."""
    async with RawClient.connect(gate.port) as client:
        for number in range(500):
            target = f"/oauth2/callback?state=x{number}&code=y"
            client.send(request_bytes(target if number % 2 else "/oauth2/callback?code=y"))
            assert (await client.response()).status == 400
        found = events()
        assert [event["reason"] for event in found].count("login-state-forged") == MAX_SIGN_INS
        assert [event["reason"] for event in found].count("login-state-missing") == MAX_SIGN_INS
        assert len(found) == 2 * MAX_SIGN_INS
        clock.now += 60
        client.send(request_bytes("/oauth2/callback?state=x&code=y"))
        await client.response()

    told = events()[2 * MAX_SIGN_INS :]
    assert [(event["event"], event["reason"], event.get("count")) for event in told] == [
        ("sign-ins-left-out", "login-state-missing", 250 - MAX_SIGN_INS),
        ("sign-ins-left-out", "login-state-forged", 250 - MAX_SIGN_INS),
        ("sign-in-refused", "login-state-forged", None),
    ]


def test_what_was_left_out_is_told_in_the_end(
    events: Callable[[], list[dict[str, Any]]], clock: Clock
) -> None:
    """The lines of the last minute that were left out are counted when the process ends."""
    audit = Audit(clock)
    context = RequestContext("id", 0.0, reason=Reason.LOGIN_STATE_FORGED)
    for _ in range(MAX_SIGN_INS + 3):
        audit.sign_in_refused(context, {})
    audit.log_left_out()
    audit.log_left_out()

    assert len(events()) == MAX_SIGN_INS + 1
    assert (events()[-1]["event"], events()[-1]["count"]) == ("sign-ins-left-out", 3)


def test_the_refusals_that_are_kept_are_bounded(clock: Clock) -> None:
    """The one that is longest ago leaves first; one that came again is young again."""
    audit = Audit(clock)
    for number in range(MAX_REFUSALS + 10):
        context = RequestContext("id", 0.0, route=f"r{number}", reason=Reason.DENIED)
        audit.refused(context, Person("s", "n", "1"))
        if number == MAX_REFUSALS - 1:
            audit.refused(
                RequestContext("id", 0.0, route="r0", reason=Reason.DENIED), Person("s", "m", "1")
            )

    kept = audit.refusals
    assert len(kept) == MAX_REFUSALS
    assert kept[0].route == f"r{MAX_REFUSALS + 9}"
    assert ("r0", "m", 2) in {(one.route, one.person.nickname, one.count) for one in kept}
    assert "r1" not in {one.route for one in kept}


def test_a_file_of_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The events go to the file alone, as lines of JSON, and on to a new one after a move."""
    path = tmp_path / "audit.log"
    set_up_logging("error", audit_file=str(path))
    audit = logging.getLogger(AUDIT_LOGGER_NAME)
    audit.info("audit", extra={"details": {"event": "one", "nickname": EVE.nickname}})
    _wait_for(path)
    path.rename(tmp_path / "audit.log.1")
    audit.info("audit", extra={"details": {"event": "two"}})
    _wait_for(path)

    (first,) = (tmp_path / "audit.log.1").read_text().splitlines()
    assert json.loads(first)["nickname"] == EVE.nickname
    assert json.loads(path.read_text())["event"] == "two"
    assert capfd.readouterr().err == ""


def _wait_for(path: Path) -> None:
    for _ in range(500):
        if path.exists() and path.read_text():
            return
        _pause()
    pytest.fail(f"{path} was not written")


def _pause() -> None:
    asyncio.run(asyncio.sleep(0.01))


async def test_the_command_lists_them(closed: RunningGate, tmp_path: Path) -> None:
    """`tailchat-gate refusals` prints subs to copy, and nothing that a terminal would act on."""
    await ask(closed.port, request_bytes(Cookie=closed.cookie(EVE)))
    host, port = closed.admin_address
    config = tmp_path / "config.toml"
    await asyncio.to_thread(
        config.write_text,
        f'server = {{ public_url = "http://gate.test", admin_listen = "{host}:{port}" }}\n'
        'tailchat = { api_url = "http://t.test", client_id = "tc_1", client_secret = "a-secret" }\n'
        f'session.secret = "{SECRET}"\n'
        'route = [{ name = "vault", upstream = "http://127.0.0.1:9" }]\n',
    )
    found = await asyncio.to_thread(CliRunner().invoke, main, ["refusals", "--config", str(config)])

    assert found.exit_code == 0, found.output
    assert EVE.sub in found.output
    assert "vault: denied, once" in found.output
    assert "\r" not in found.output
    assert len(found.output.splitlines()) == 2


async def test_another_visitor_is_another_entry(closed: RunningGate) -> None:
    """The latest refusal stands first."""
    for profile in (EVE, Profile(SUB, "Alice", "0042", "")):
        await ask(closed.port, request_bytes(Cookie=closed.cookie(profile)))

    kept = (await admin(closed, "/refusals"))["refusals"]
    assert [one["sub"] for one in kept] == [SUB, EVE.sub]
