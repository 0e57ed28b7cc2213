"""Who is locked out: refused everywhere, told why, and let in again when the lock is lifted."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from accounts import user_named
from gatekit import (
    ALICE,
    SECRET,
    START,
    SUB,
    Clock,
    RawUpstream,
    Response,
    RunningGate,
    ask,
    cookie_value,
    login_cookie,
    request_bytes,
    until,
)
from process import free_port
from storekit import StoredEntries
from storykit import story
from visitor import NAVIGATION

from tailchat_gate.identity.machine_tokens import hash_of, make_token
from tailchat_gate.identity.revocation.state import Entry, Lock, SignedOut, Unlock
from tailchat_gate.serving.server import StartError

NOW = int(START)
LOCK = Lock(f"sub:{SUB}", NOW, NOW + 2 * 86400, "Please call the help desk")
UNTIL = "2027-01-17T08:00:00Z"
PAGE = {name.replace("-", "_"): value for name, value in NAVIGATION.items()}
WIKI = "wiki.test"
HOSHINO = user_named("hoshino")
BOB = ALICE._replace(sub="660000000000000000000002", nickname="Bob")

Start = Callable[..., Any]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the gate's state is."""
    return tmp_path


@pytest.fixture
async def locked(start_gate: Start, upstream: RawUpstream, path: Path) -> RunningGate:
    """Return a gate before a tool, a public tool and a wiki of its own host; Alice is locked."""
    routes = [
        {"name": "tool"},
        {"name": "open", "path": "/open", "allow": ["public"]},
        {"name": "files", "path": "/files", "upstream": "static:204"},
        {"name": "wiki", "host": WIKI},
    ]
    server = {"trusted_proxies": ["127.0.0.1"]}
    gate = await start_gate(upstream.url, server=server, route=routes, state={"path": str(path)})
    assert isinstance(gate, RunningGate)
    await put(gate, LOCK)
    return gate


async def put(gate: RunningGate, *entries: Entry) -> None:
    """Write to the gate's file as another process, and wait until the gate has heard."""
    revocation = gate.generation.process_state.revocation
    before = revocation.version
    stored = StoredEntries(Path(gate.generation.settings.state.path), gate.clock)
    await asyncio.to_thread(stored.append, entries)
    await until(lambda: revocation.version >= before + len(entries))


async def _get(gate: RunningGate, target: str, **fields: str) -> Response:
    return await ask(gate.port, request_bytes(target, Cookie=gate.cookie(), **fields))


async def test_a_program_gets_the_reason_and_the_message(
    locked: RunningGate, upstream: RawUpstream
) -> None:
    """403 with the reason, the admin's words and the end of the lock; the tool hears nothing."""
    response = await _get(locked, "/x")

    assert (response.status, response.json["error"]) == (403, "locked")
    assert (response.json["notice"], response.json["until"]) == (LOCK.message, UNTIL)
    assert upstream.requests == []
    assert cookie_value(response, "tailchat_gate") == ""
    line = (await locked.log())[-1]
    assert (line["reason"], line["sub"], line["status"]) == ("locked", SUB, 403)


@pytest.mark.parametrize("language", ["en", "zh"])
async def test_a_person_gets_a_page(locked: RunningGate, language: str) -> None:
    """The page has the message, the end, the id to pass on, and a way to look again."""
    response = await _get(locked, "//x?a=1", **PAGE, Accept_Language=language)
    text = response.body.decode()

    assert response.status == 403
    for part in (LOCK.message, UNTIL, "2027-01-17 08:00:00 UTC", SUB, "Alice", "403 locked"):
        assert part in text
    assert 'href="http://gate.test//x?a=1"' in text


async def test_a_lock_without_an_end_says_so(locked: RunningGate) -> None:
    """Without --for neither the page nor the JSON names a time."""
    await put(locked, Lock(f"sub:{SUB}", NOW))
    page, call = await _get(locked, "/x", **PAGE), await _get(locked, "/x")

    assert b"until further notice" in page.body
    assert not {"until", "notice"} & call.json.keys()


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"])
async def test_no_method_gets_through(
    locked: RunningGate, upstream: RawUpstream, method: str
) -> None:
    """The lock is asked for before the method means anything."""
    data = request_bytes("/x", method=method, Cookie=locked.cookie())
    response = await ask(locked.port, data, to_head=method == "HEAD")

    assert response.status == 403
    assert upstream.requests == []


async def test_an_upgrade_is_refused(locked: RunningGate, upstream: RawUpstream) -> None:
    """A locked person opens no WebSocket."""
    response = await _get(locked, "/ws", Connection="Upgrade", Upgrade="websocket")

    assert (response.status, response.json["error"]) == (403, "locked")
    assert upstream.requests == []


async def test_what_the_gate_answers_itself_is_refused(locked: RunningGate) -> None:
    """A route without a tool behind it is no way round."""
    assert (await _get(locked, "/files")).status == 403


async def test_a_request_on_an_open_connection_is_refused(
    start_gate: Start, upstream: RawUpstream, path: Path
) -> None:
    """A connection that was good before the lock is no way round, though its fields are kept."""
    gate = await start_gate(upstream.url, state={"path": str(path)})
    reader, writer = await asyncio.open_connection("127.0.0.1", gate.port)
    request = request_bytes("/x", Cookie=gate.cookie())
    writer.write(request)
    assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 ")
    await put(gate, LOCK)
    writer.write(request)
    assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 403 ")
    await put(gate, Unlock(LOCK.target, NOW))
    writer.write(request)
    assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_own_pages_refuse_as_tools_do(locked: RunningGate) -> None:
    """Forward-auth and who-am-I answer 403 with the reason, and no identity."""
    asked = {"X_Forwarded_Uri": "/x", "X_Forwarded_Method": "GET"}
    for target, fields in (
        ("/oauth2/auth", asked),
        ("/oauth2/auth", {**asked, **PAGE}),
        ("/oauth2/userinfo", {}),
        ("/oauth2/userinfo", PAGE),
    ):
        response = await _get(locked, target, **fields)
        assert response.status == 403
        assert b"locked" in response.body
        assert response.value("X-Tailchat-Sub") == ""
        assert (await locked.log())[-1]["sub"] == SUB


async def test_what_is_public_stays_so_without_a_name(
    locked: RunningGate, upstream: RawUpstream
) -> None:
    """A locked person gets what everybody gets, as nobody in particular."""
    response = await _get(locked, "/open/x")

    assert response.status == 200
    assert upstream.requests[-1].value("X-Tailchat-Sub") is None
    assert (await locked.log())[-1]["reason"] == "public"


async def test_others_are_let_in(locked: RunningGate) -> None:
    """A lock on one person is nobody else's."""
    response = await ask(locked.port, request_bytes("/x", Cookie=locked.cookie(BOB)))

    assert response.status == 200


async def test_a_locked_cookie_beside_a_good_one_costs_nothing(locked: RunningGate) -> None:
    """A planted cookie of somebody who is locked out does not lock out its finder."""
    both = f"{locked.cookie()}; {locked.cookie(BOB)}"

    assert (await ask(locked.port, request_bytes("/x", Cookie=both))).status == 200


async def test_a_lock_ends_at_its_time(locked: RunningGate, clock: Clock) -> None:
    """Nobody has to lift a lock whose time is over; the metric follows."""
    clock.now = START + 3600
    await put(locked, Lock(LOCK.target, NOW, NOW + 7200))
    assert (await _get(locked, "/x")).status == 403
    assert b"gate_locks 1.0" in locked.generation.process_state.metrics.render()
    clock.now = START + 7200

    assert (await _get(locked, "/x")).status == 200
    assert b"gate_locks 0.0" in locked.generation.process_state.metrics.render()


async def test_an_unlock_lets_the_same_session_in_again(locked: RunningGate) -> None:
    """After the unlock the cookie from before is good."""
    cookie = locked.cookie()
    assert (await ask(locked.port, request_bytes("/x", Cookie=cookie))).status == 403
    await put(locked, Unlock(LOCK.target, NOW))

    assert (await ask(locked.port, request_bytes("/x", Cookie=cookie))).status == 200


async def test_a_session_goes_to_no_other_host(locked: RunningGate) -> None:
    """A locked person's session makes no pass: the way leads to the login, which refuses."""
    begun = await ask(
        locked.port, request_bytes("/oauth2/start?rd=/", host=WIKI, Sec_Fetch_Mode="navigate")
    )
    target = begun.value("Location").removeprefix("http://gate.test")
    handed = await _get(locked, target, Sec_Fetch_Mode="navigate")

    assert handed.value("Location").startswith("http://127.0.0.1:9/open/auth?")


@pytest.mark.parametrize(
    ("entry", "status", "word"),
    [(LOCK, 403, b"locked"), (SignedOut(LOCK.target, NOW, NOW + 60), 401, b"session-ended")],
)
async def test_a_pass_made_before_is_refused(
    start_gate: Start, upstream: RawUpstream, path: Path, entry: Entry, status: int, word: bytes
) -> None:
    """A session on its way to another host when its owner is locked or signed out ends there."""
    routes = [{"name": "tool"}, {"name": "wiki", "host": WIKI}]
    gate = await start_gate(upstream.url, route=routes, state={"path": str(path)})
    begun = await ask(gate.port, request_bytes("/oauth2/start?rd=/", host=WIKI))
    login = login_cookie(begun)
    target = begun.value("Location").removeprefix("http://gate.test")
    handed = urlsplit((await _get(gate, target)).value("Location"))
    await put(gate, entry)

    refused = await ask(
        gate.port, request_bytes(f"{handed.path}?{handed.query}", host=WIKI, Cookie=login)
    )

    assert (refused.status, word in refused.body) == (status, True)
    assert cookie_value(refused, "tailchat_gate") == ""


async def test_a_locked_person_cannot_sign_in(tmp_path: Path, clock: Clock) -> None:
    """The login ends on the page that says so, sets no session, and is counted as refused."""
    async with (
        story(tmp_path / "log", clock, state={"path": str(tmp_path)}) as scene,
        scene.visitor() as visitor,
    ):
        await put(scene.gate, Lock(f"sub:{HOSHINO.sub}", NOW, None, "星" * 300))
        page = await visitor.sign_in(f"{scene.url}/d", HOSHINO.email, HOSHINO.password)

        assert (page.status, "403 locked" in page.text) == (403, True)
        assert "星" * 300 in page.text
        assert HOSHINO.sub in page.text
        assert "tailchat_gate" not in visitor.cookies(scene.url)
        assert scene.tool.requests == []
        line = next(line for line in await scene.gate.log() if line["reason"] == "locked")
        assert line["sub"] == HOSHINO.sub
        metrics = scene.gate.generation.process_state.metrics.render()
        assert b'gate_logins_total{result="locked"} 1.0' in metrics
        await put(scene.gate, Unlock(f"sub:{HOSHINO.sub}", NOW))
        (retry,) = [link for link in page.links if "/oauth2/start" in link]
        assert "d" in retry
        await visitor.open(retry)

        assert scene.tool.requests[-1].line == b"GET /d HTTP/1.1"


async def test_a_locked_person_can_use_another_account(tmp_path: Path, clock: Clock) -> None:
    """The page leads to the sign-out, which works for who is locked out."""
    async with (
        story(tmp_path / "log", clock, state={"path": str(tmp_path)}) as scene,
        scene.visitor() as visitor,
    ):
        await visitor.sign_in(scene.url, HOSHINO.email, HOSHINO.password)
        await put(scene.gate, Lock(f"sub:{HOSHINO.sub}", NOW))
        page = await visitor.open(scene.url)
        (way,) = [link for link in page.links if link.endswith("/sign_out")]
        await visitor.submit(await visitor.open(way), "/sign_out")

        assert "tailchat_gate" not in visitor.cookies(scene.url)


BACKUP = make_token(bytes(32))


@pytest.mark.parametrize(
    ("target", "status", "reason"),
    [("token:backup", 403, "locked"), ("all", 503, "maintenance")],
)
async def test_a_locked_machine_is_refused(
    start_gate: Start, upstream: RawUpstream, path: Path, target: str, status: int, reason: str
) -> None:
    """A lock on a token refuses its machine everywhere, until it is lifted, and nobody else."""
    gate = await start_gate(
        upstream.url,
        route=[
            {"name": "tool", "allow": ["signed-in", "token:backup", "token:other"]},
            {"name": "open", "path": "/open", "allow": ["public"]},
        ],
        token=[
            {"name": "backup", "hash": hash_of(BACKUP)},
            {"name": "other", "hash": hash_of(make_token(bytes(range(32))))},
        ],
        server={"trusted_proxies": ["127.0.0.1"]},
        state={"path": str(path)},
    )
    bearer = {"Authorization": f"Bearer {BACKUP}"}
    other = {"Authorization": f"Bearer {make_token(bytes(range(32)))}"}
    assert (await ask(gate.port, request_bytes("/x", **bearer))).status == 200
    await put(gate, Lock(target, NOW, LOCK.until, "rotated"))
    before = len(upstream.requests)

    for where, more in (
        ("/x", {}),
        ("/open", {}),
        ("/oauth2/userinfo", {}),
        ("/oauth2/auth", {"X_Forwarded_Uri": "/x"}),
    ):
        response = await ask(gate.port, request_bytes(where, **bearer, **more))
        assert (response.status, response.json["error"]) == (status, reason)
        assert (response.json["notice"], response.json["until"]) == ("rotated", UNTIL)
        assert response.json.get("token") == ("backup" if reason == "locked" else None)
        line = (await gate.log())[-1]
        assert (line["reason"], line["token"]) == (reason, "backup")
    assert len(upstream.requests) == before
    expected = 200 if target == "token:backup" else 503
    assert (await ask(gate.port, request_bytes("/x", **other))).status == expected
    assert (await _get(gate, "/x")).status == expected
    await put(gate, Unlock(target, NOW))
    assert (await ask(gate.port, request_bytes("/x", **bearer))).status == 200


async def test_who_was_locked_out_is_among_the_refusals(locked: RunningGate) -> None:
    """The audit log names the person, the tool and the reason; an ended session is nobody's."""
    await _get(locked, "/x")
    (refusal,) = locked.generation.process_state.audit.refusals
    assert (refusal.person.sub, refusal.person.nickname) == (SUB, "Alice")
    assert (refusal.route, refusal.reason, refusal.path) == ("tool", "locked", "/x")

    await put(locked, Unlock(LOCK.target, NOW), SignedOut(LOCK.target, NOW, NOW + 60))
    assert (await _get(locked, "/x")).status == 401
    assert len(locked.generation.process_state.audit.refusals) == 1


async def test_the_status_tells_how_many_and_not_who(
    start_gate: Start, path: Path, tmp_path: Path
) -> None:
    """The admin listener has the number of locks and no name."""
    server = {"admin_listen": "127.0.0.1:0"}
    gate = await start_gate(server=server, state={"path": str(path)})
    await put(gate, LOCK)
    host, port = gate.admin_address
    response = await ask(port, request_bytes("/status", host=host))

    assert response.json["locks"] == 1
    assert SUB.encode() not in response.body


async def test_a_gate_that_cannot_have_its_file_does_not_start(
    start_gate: Start, tmp_path: Path
) -> None:
    """The error names the key, the path, and what else can be done."""
    with pytest.raises(StartError, match=r'\[state\] path .*none: No such .*set "" to keep'):
        await start_gate(state={"path": str(tmp_path / "none")})


# With the command line, in processes of their own.

GATE = (sys.executable, "-W", "error", "-m", "tailchat_gate")


async def _run(config: Path, *arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(*GATE, *arguments, "--config", str(config)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


def _config(tmp_path: Path, upstream: str, port: int = 4180) -> Path:
    config = tmp_path / "config.toml"
    config.write_text(
        f"""
        server.public_url = "http://gate.test"
        server.listen = "127.0.0.1:{port}"
        server.admin_listen = ""
        tailchat = {{ api_url = "http://127.0.0.1:9", client_id = "tc_x", client_secret = "s" }}
        session.secret = "{SECRET}"
        state.path = "{tmp_path}"
        route = [{{ name = "tool", upstream = "{upstream}" }}]
        """
    )
    config.chmod(0o600)
    return config


async def test_the_command_is_heard_by_a_running_gate_within_a_second(
    start_gate: Start, upstream: RawUpstream, path: Path, tmp_path: Path
) -> None:
    """`lock` in one process keeps a person out in another, `unlock` lets them in again."""
    gate = await start_gate(upstream.url, state={"path": str(path)})
    revocation = gate.generation.process_state.revocation
    config = await asyncio.to_thread(_config, tmp_path, upstream.url)
    assert (await _get(gate, "/x")).status == 200

    done = await _run(config, "lock", f"sub:{SUB}", "--message", "hands off")
    await until(lambda: revocation.lock_on(SUB) is not None)
    refused = await _get(gate, "/x")
    lifted = await _run(config, "unlock", f"sub:{SUB}")
    await until(lambda: revocation.lock_on(SUB) is None)

    assert done == (0, f"sub:{SUB} is locked until unlocked\n", "")
    assert (refused.json["error"], refused.json["notice"]) == ("locked", "hands off")
    assert lifted[0] == 0
    assert (await _get(gate, "/x")).status == 200


async def test_the_command_is_heard_by_a_gate_of_its_own_process(
    gate: RunningGate, upstream: RawUpstream, tmp_path: Path
) -> None:
    """A served gate and two commands, three processes: locked soon, and logged."""
    port = await asyncio.to_thread(free_port)
    config = await asyncio.to_thread(_config, tmp_path, upstream.url, port)
    gate.clock.now = float((await asyncio.to_thread(config.stat)).st_mtime)
    request = request_bytes("/x", Cookie=gate.cookie())
    served = await asyncio.create_subprocess_exec(
        *(*GATE, "serve", "--config", str(config)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert served.stderr is not None
    await served.stderr.readuntil(b'"the gate is open"')
    try:
        assert (await ask(port, request)).status == 200
        assert (await _run(config, "lock", "all", "--for", "1h"))[0] == 0
        await served.stderr.readuntil(b'"a lock is in force"')
        assert (await ask(port, request)).json["error"] == "maintenance"
        assert (await _run(config, "unlock", "all"))[0] == 0
        await served.stderr.readuntil(b'"a lock is lifted"')
        assert (await ask(port, request)).status == 200
        assert (await _run(config, "sign-out", f"sub:{SUB}"))[0] == 0
        while (found := await ask(port, request)).status == 200:  # noqa: ASYNC110 - it is another process
            await asyncio.sleep(0.01)
        assert found.json["error"] == "session-ended"
    finally:
        served.terminate()
        await served.communicate()
    assert served.returncode == 0
