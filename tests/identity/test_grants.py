"""Who may use a route for a while: by the store, for one route, and until an end."""

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from clikit import invoke
from gatekit import (
    ALICE,
    SECRET,
    SUB,
    Clock,
    RawUpstream,
    RunningGate,
    ask,
    request_bytes,
    until,
)
from tunnelkit import opened

from tailchat_gate.identity.grants import GRANT, Grant, Grants, GrantState
from tailchat_gate.identity.revocation.records import MAX_MESSAGE
from tailchat_gate.identity.revocation.state import Lock
from tailchat_gate.observe.log import AUDIT_LOGGER_NAME
from tailchat_gate.proxy.message.websocket_frames import close_frame
from tailchat_gate.state.memory import MemoryStore
from tailchat_gate.state.store import Changes, Record

OPS = ["sub:660000000000000000000009"]
ROUTES = [
    {"name": "wiki", "allow": OPS},
    {"name": "export", "path": "/export", "allow": OPS},
    {"name": "never", "path": "/never", "allow": OPS, "grants": False},
]
PAGE = {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document", "Accept": "text/html"}

Start = Callable[..., Any]


@pytest.fixture
def start_stored(start_gate: Start, upstream: RawUpstream, tmp_path: Path) -> Start:
    """Return a function that starts a gate on one and the same store."""
    return partial(start_gate, upstream.url, route=ROUTES, state={"path": str(tmp_path)})


@pytest.fixture
async def gate(start_stored: Start) -> RunningGate:
    """Return a gate with three routes that do not list Alice."""
    found = await start_stored()
    assert isinstance(found, RunningGate)
    return found


async def _status(gate: RunningGate, target: str = "/x") -> int:
    return (await ask(gate.port, request_bytes(target, Cookie=gate.cookie()))).status


def _grant(
    gate: RunningGate, route: str = "wiki", seconds: int = 3600, reason: str = "", by: str = ""
) -> Grant:
    now = int(gate.clock())
    return Grant(SUB, route, now, now + seconds, reason, by)


async def _put(gate: RunningGate, grant: Grant) -> None:
    await gate.generation.process_state.grants.put(grant)


async def test_a_grant_opens_its_route_and_no_other(
    gate: RunningGate, upstream: RawUpstream
) -> None:
    """The tool gets the person as always; a path that may be read as the other stays closed."""
    assert await _status(gate) == 403
    await _put(gate, _grant(gate))

    assert await _status(gate) == 200
    assert upstream.requests[-1].value("X-Tailchat-Sub") == SUB.encode()
    closed = [await _status(gate, path) for path in ("/export", "/x/..%2fexport", "/EXPORT")]
    assert closed == [403, 403, 403]


async def test_a_grant_opens_nothing_that_forbids_grants(gate: RunningGate) -> None:
    """The configuration counts, whatever the store says."""
    await _put(gate, _grant(gate, "never"))

    assert await _status(gate, "/never") == 403


async def test_a_grant_ends_at_its_second(gate: RunningGate) -> None:
    """And a new one begins again."""
    await _put(gate, _grant(gate))
    gate.clock.now += 3599
    assert await _status(gate) == 200
    gate.clock.now += 1
    assert await _status(gate) == 403
    await _put(gate, _grant(gate))
    assert await _status(gate) == 200


async def test_a_lock_and_a_deny_list_beat_a_grant(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """Who is to be kept out is kept out."""
    routes = [
        {"name": "wiki", "allow": OPS},
        {"name": "mail", "path": "/mail", "allow": OPS, "deny": [f"sub:{SUB}"]},
    ]
    gate = await start_gate(upstream.url, route=routes)
    for route in ("wiki", "mail"):
        await _put(gate, _grant(gate, route))
    assert [await _status(gate, path) for path in ("/", "/mail")] == [200, 403]

    gate.generation.process_state.revocation.apply(Lock(f"sub:{SUB}", int(gate.clock()), None, ""))
    assert await _status(gate) == 403


@pytest.mark.parametrize("how", ["revoked", "over"])
async def test_a_websocket_ends_with_its_grant(
    gate: RunningGate, upstream: RawUpstream, how: str
) -> None:
    """With the reason of a new request, within a second."""
    grant = _grant(gate, seconds=1)
    await _put(gate, grant)
    async with opened(gate, upstream) as tunnel:
        if how == "revoked":
            await _put(gate, grant.revoked(gate.clock()))
        else:
            gate.clock.now += 1
        expected = close_frame(3003, "denied")
        async with asyncio.timeout(15):
            assert await tunnel.client.reader.readexactly(len(expected)) == expected


async def test_a_grant_is_known_after_a_restart(start_stored: Start) -> None:
    """A second gate reads it from the store, and hears of its end while it runs."""
    first = await start_stored()
    grant = _grant(first)
    await _put(first, grant)
    second = await start_stored()
    assert await _status(second) == 200

    await _put(first, grant.revoked(first.clock()))
    state = second.generation.process_state.grants.state
    await until(lambda: not state.has(SUB, "wiki"))
    assert await _status(second) == 403


async def test_a_clock_that_is_set_back_revives_no_revoked_grant(start_stored: Start) -> None:
    """Neither in the gate that runs nor in one that reads the store then."""
    first = await start_stored()
    grant = _grant(first)
    await _put(first, grant)
    first.clock.now += 1200
    await _put(first, grant.revoked(first.clock()))
    first.clock.now -= 600
    second = await start_stored()

    assert [await _status(gate) for gate in (first, second)] == [403, 403]


async def test_the_person_and_programs_are_told(gate: RunningGate) -> None:
    """The page of who-am-I and its JSON name the tool and the end."""
    await _put(gate, _grant(gate))
    cookie = gate.cookie()
    told = await ask(gate.port, request_bytes("/oauth2/userinfo", Cookie=cookie))
    page = await ask(gate.port, request_bytes("/oauth2/userinfo", Cookie=cookie, **PAGE))

    assert told.json["grants"] == [{"route": "wiki", "until": int(gate.clock()) + 3600}]
    assert "Access for a while" in page.body.decode()


async def test_the_audit_log_has_the_beginning_and_the_end(
    gate: RunningGate, caplog: pytest.LogCaptureFixture
) -> None:
    """Once each, with who, which tool, until when, by whom and why."""
    caplog.set_level(logging.INFO, AUDIT_LOGGER_NAME)
    grant = _grant(gate, reason="on call", by="660000000000000000000009")
    await _put(gate, grant)
    await _put(gate, grant)
    await _put(gate, grant.revoked(gate.clock()))

    found = [vars(record)["details"] for record in caplog.records if record.message == "audit"]
    assert [(line["event"], line["sub"], line["route"]) for line in found] == [
        ("granted", SUB, "wiki"),
        ("grant-ended", SUB, "wiki"),
    ]
    assert (found[0]["by"], found[0]["why"]) == ("660000000000000000000009", "on call")


async def test_forgetting_a_person_ends_their_grants(gate: RunningGate) -> None:
    """A grant is stored about a person; nobody is let in by what was erased."""
    await _put(gate, _grant(gate))
    gate.generation.process_state.grants.erase(SUB, in_force=False)

    assert await _status(gate) == 403


@pytest.mark.parametrize(
    ("intact", "body"),
    [
        (False, None),
        (True, "{"),
        (True, "[]"),
        (True, json.dumps({"sub": SUB})),
        (True, json.dumps({"sub": SUB, "route": "", "at": 0, "until": 9})),
        (True, json.dumps({"sub": SUB, "route": "wiki", "at": 0, "until": 9.5})),
        (True, json.dumps({"sub": SUB, "route": "wiki", "at": 0, "until": True})),
        (True, json.dumps({"sub": "a b", "route": "wiki", "at": 0, "until": 9})),
        (True, json.dumps({"sub": SUB, "route": "wiki", "at": 0, "until": 10**15})),
        (True, json.dumps({"sub": SUB, "route": "wiki", "at": 0, "until": 9, "x": 1})),
    ],
)
def test_a_damaged_record_lets_nobody_in(intact: bool, body: str | None) -> None:
    """Only what the gate wrote, unchanged, counts."""
    record = Grant(SUB, "wiki", 0, 9).to_record()

    assert Grant.from_record(record) == Grant(SUB, "wiki", 0, 9)
    assert Grant.from_record(replace(record, intact=intact, body=body or record.body)) is None


def test_a_whole_reading_of_the_store_drops_what_it_lacks(clock: Clock) -> None:
    """As after the store was restored from an older copy."""
    grants = Grants(MemoryStore(clock), clock)
    first, second = (
        Grant(ALICE.sub, route, 0, int(clock()) + 60).to_record() for route in ("wiki", "mail")
    )
    grants.take(Changes((first, second), complete=True))
    grants.take(Changes((second,), complete=True))

    assert [grant.route for grant in grants.state.in_force] == ["mail"]
    assert [record.key for record in grants.known(lost=True)] == [f"{ALICE.sub} mail"]


def test_the_state_shows_no_person(clock: Clock) -> None:
    """Its repr is for logs."""
    state = GrantState(clock)
    state.apply(Grant(SUB, "wiki", 0, int(clock()) + 60))

    assert SUB not in repr(state)
    assert Record(GRANT, "k", "b").intact


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return a configuration with a route that takes grants, and one that does not."""
    path, state = tmp_path / "config.toml", tmp_path / "state"
    state.mkdir(mode=0o700)
    path.write_text(
        f"""
        server.public_url = "https://gate.example.com"
        tailchat = {{api_url = "https://chat.example.com", client_id = "tc_1", client_secret = "x"}}
        session.secrets = ["{SECRET}"]
        state.path = "{state}"
        [[route]]
        name = "wiki"
        upstream = "http://127.0.0.1:9"
        allow = ["sub:660000000000000000000009"]
        [[route]]
        name = "never"
        path = "/never"
        upstream = "http://127.0.0.1:9"
        allow = ["sub:660000000000000000000009"]
        grants = false
        """,
        encoding="utf-8",
    )
    path.chmod(0o600)
    return path


def test_the_commands_grant_list_explain_and_revoke(config: Path) -> None:
    """What one writes, the others read; a gate need not run."""
    file = ("--config", str(config))
    person = f"sub:{SUB}"
    explain = ("explain", "https://gate.example.com/x", "--as", SUB, *file)
    assert invoke(*explain)[0] == 1
    code, out, _ = invoke("grant", person, "wiki", "--for", "8h", "--reason", "on call", *file)
    assert (code, out[:45]) == (0, f"{person} may use wiki until"[:45])

    assert "on call" in invoke("grants", *file)[1]
    (row,) = json.loads(invoke("grants", "--json", *file)[1])
    assert (row["sub"], row["route"], row["until"] - row["granted_at"]) == (SUB, "wiki", 28_800)
    code, out, _ = invoke(*explain)
    assert (code, "grant:      wiki, until" in out) == (0, True)

    assert invoke("revoke", person, "wiki", *file)[0] == 0
    assert invoke(*explain)[0] == 1
    assert invoke("grants", *file)[1] == "nobody has a grant\n"
    code, _, err = invoke("revoke", person, "wiki", *file)
    assert (code, "has no grant" in err) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((f"sub:{SUB}", "wikki", "--for", "8h"), 'did you mean "wiki"?'),
        ((f"sub:{SUB}", "never", "--for", "8h"), "grants = false"),
        ((f"sub:{SUB}", "wiki"), "--for"),
        ((f"sub:{SUB}", "wiki", "--for", "0"), "above 0"),
        ((f"sub:{SUB}", "wiki", "--for", "soon"), "--for"),
        (("all", "wiki", "--for", "8h"), "sub:ID"),
        ((SUB, "wiki", "--for", "8h"), f"sub:{SUB}"),
        ((f"sub:{SUB}", "wiki", "--for", "8h", "--reason", "a\nb"), "one line"),
        ((f"sub:{SUB}", "wiki", "--for", "8h", "--reason", "x" * (MAX_MESSAGE + 1)), "one line"),
    ],
)
def test_a_grant_that_cannot_count_is_refused(
    config: Path, arguments: tuple[str, ...], told: str
) -> None:
    """With exit code 2 and what to write instead; nothing is stored."""
    code, _, err = invoke("grant", *arguments, "--config", str(config))

    assert (code, told in err) == (2, True), err
    assert invoke("grants", "--config", str(config))[1] == "nobody has a grant\n"
