"""`doctor` on a set-up that is good, and what it says of tools, of this machine and of its gate."""

import asyncio
import json
import re
import shlex
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, replace
from datetime import timedelta
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from clikit import invoke, run
from doctorkit import Diagnosis, diagnose, tailchat_front, write_config
from gatekit import SECRET, ask, make_settings, request_bytes
from netkit import run_in_network
from openid_provider_process import openid_provider
from processkit import GateProcess, gate_process
from storykit import served
from tailchat_browser import APP
from tlskit import Authority

from tailchat_gate.config.tables.identity import LONGEST_CALL
from tailchat_gate.config.values.address import TcpAddress
from tailchat_gate.config.values.quantities import counted
from tailchat_gate.demo.tailchat import StandInTailchat
from tailchat_gate.diagnosis.edge import after_sign_in
from tailchat_gate.diagnosis.statement import (
    CALL_SECONDS,
    CHECK_SECONDS,
    REPEATED,
    RUNNING_GATE,
    Check,
    Mark,
    Statement,
    joined,
    ok,
    run_checks,
    unknown,
    warning,
    wrong,
)
from tailchat_gate.diagnosis.tools import answers, of_network, read_listeners, tools
from tailchat_gate.proxy.upstream.backends import Dialer
from tailchat_gate.proxy.upstream.resolver import Names
from tailchat_gate.serving.dashboard import doctor_run

# The first start of the provider fetches its packages.
pytestmark = pytest.mark.timeout(300)

OTHER_SECRET = "secret-of-a-gate-on-an-older-machine-0123456789"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return an authority that no system knows."""
    return Authority.create(tmp_path_factory.mktemp("authority"))


async def _answer(_: web.Request) -> web.Response:
    return web.Response(text="a tool")


@asynccontextmanager
async def tool(tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve a tool on loopback until the block ends; yields its port."""
    app = web.Application()
    app.router.add_get("/{rest:.*}", _answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def _admin_answers(gate: GateProcess) -> None:
    """Return once the gate is open: its sockets take connections before it does."""
    while True:
        with suppress(OSError):
            await gate.metric("gate_sign_in_broken")
            return
        await asyncio.sleep(0.02)


async def _knows_its_groups(gate: GateProcess) -> None:
    """Return once the gate has no fault: at first it does not know who is in a group."""
    ready = request_bytes("/readyz", host="localhost", Connection="close")
    while True:
        if (await ask(gate.admin_port, ready)).body == b"ready\n":
            return
        await asyncio.sleep(0.02)


async def examine(folder: Path, *, apart: bool = False, **given: Any) -> Diagnosis:  # noqa: ANN401 - as in the file
    """Run `doctor` on a file."""
    return await diagnose(await asyncio.to_thread(write_config, folder, **given), apart=apart)


async def test_a_good_set_up(authority: Authority, tmp_path: Path) -> None:
    """The real provider over TLS, a gate that runs, a plain and an https tool: nothing is wrong."""
    listener = socket.create_server(("127.0.0.1", 0))
    public_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    app = replace(APP, redirect_uris=(f"{public_url}/oauth2/callback",))
    apps = [{**asdict(app), "redirect_uris": list(app.redirect_uris)}]
    issued = authority.issue("localhost", ends=timedelta(days=90))
    stand_in = StandInTailchat(apps=(app,))
    stand_in.store.client_config.update(disableUserRegister=True, emailVerification=True)
    group = stand_in.groups.add("Ops", "660000000000000000000001")
    stand_in.groups.add_bot(group, app.client_id)
    await asyncio.to_thread((tmp_path / "state").mkdir, 0o700)
    async with AsyncExitStack() as stack:
        stack.enter_context(listener)
        provider = stack.enter_context(openid_provider(apps=apps))
        front = await stack.enter_async_context(
            tailchat_front(provider, stand_in, tls=issued.server_context())
        )
        plain = await stack.enter_async_context(tool())
        secure = await stack.enter_async_context(tool(issued.server_context()))
        gate = await stack.enter_async_context(
            gate_process(
                tmp_path,
                sockets=(listener,),
                server={"public_url": public_url},
                tailchat={
                    "api_url": front.url,
                    "client_id": app.client_id,
                    "client_secret": app.client_secret,
                    "ca_file": str(authority.file),
                    "issuer": provider.issuer,
                    "people_refresh": "30s",
                },
                state={"path": str(tmp_path / "state")},
                groups={"ops": [f"tailchat-group:{group.id}"]},
                route=[
                    {"name": "plain", "allow": ["group:ops"], "host": "plain.localhost"}
                    | {"upstream": f"http://127.0.0.1:{plain}"},
                    {"name": "secure", "allow": ["group:ops"], "host": "secure.localhost"}
                    | {"upstream": f"https://localhost:{secure}", "tls_ca": str(authority.file)},
                ],
            )
        )
        await _admin_answers(gate)
        await _knows_its_groups(gate)
        found = await diagnose(tmp_path / "config.toml", apart=True)
        code, out, _ = await run("doctor", "--config", str(tmp_path / "config.toml"))

    assert (found.code, found.wrong) == (0, set()), found.checks
    not_ok = {one["check"]: one["text"] for one in found.checks if one["mark"] != "ok"}
    # Whether "*.localhost" has an address, and how many files a process may open, is the machine's.
    assert not_ok.keys() <= {"dns", "file-descriptors"}, not_ok
    assert {one["check"] for one in found.checks} >= {
        *("configuration", "secret-files", "start", "gate", "file-descriptors", "store"),
        *("tailchat", "issuer", "under-proxy", "clock", "client-id", "redirect-uri"),
        *("client-secret", "people", "registration", "key", "bot", "groups"),
        *("public-url", "cookies", "tool", "around", "certificate"),
    }
    assert (code, out.splitlines()[-1].split(",")[0]) == (0, "0 wrong")
    for secret in (app.client_secret, SECRET):
        assert secret not in out + str(found.checks)


async def test_lines_have_words_and_a_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No colour is needed to read them, NO_COLOR turns it off, and controls are taken out."""
    path = await asyncio.to_thread(write_config, tmp_path)
    monkeypatch.setattr("click._compat.isatty", lambda _: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    code, coloured, _ = await asyncio.to_thread(invoke, "doctor", "--config", str(path))
    monkeypatch.setenv("NO_COLOR", "1")
    _, plain, _ = await asyncio.to_thread(invoke, "doctor", "--config", str(path))

    assert code == 1
    assert "\x1b" not in plain
    assert "wrong   tailchat         Tailchat does not answer properly: Connection refused" in plain
    assert "\n                         -> check that it runs" in plain
    assert coloured
    counts = re.findall(r"(\d+) (wrong|warning|unknown|ok)s?\b", plain.splitlines()[-1])
    marks = re.findall(r"^(wrong|warning|unknown|ok) ", plain, re.MULTILINE)
    assert sorted(counts) == sorted((str(marks.count(mark)), mark.value) for mark in Mark)
    assert [counted(number, "warning") for number in (0, 1, 2)] == [
        "0 warnings",
        "1 warning",
        "2 warnings",
    ]


async def test_an_invalid_file_ends_with_its_problems(tmp_path: Path) -> None:
    """As other commands do: exit code 2, and each problem with what would be right."""
    path = tmp_path / "bad.toml"
    await asyncio.to_thread(path.write_text, "[server]\nlisten = 1\n", "utf-8")
    code, out, _ = await asyncio.to_thread(invoke, "doctor", "--json", "--config", str(path))

    found = json.loads(out)
    assert (code, found["ok"]) == (2, False)
    assert any("server.listen: found" in one["text"] for one in found["checks"])


async def test_an_invalid_file_leaves_the_running_gate_in_reach(tmp_path: Path) -> None:
    """In an incident doctor still says how the gate is, and lock says the command that works."""
    state, path = tmp_path / "the state", tmp_path / "config.toml"
    await asyncio.to_thread(state.mkdir, mode=0o700)
    lock = ("lock", "sub:66000000000000000000000a", "--config", str(path))
    async with gate_process(tmp_path, state={"path": str(state)}) as gate:
        await _admin_answers(gate)
        text = await asyncio.to_thread(path.read_text, "utf-8")
        broken = text.replace(json.dumps(str(state)), '"relative"')
        await asyncio.to_thread(path.write_text, broken, "utf-8")
        found = await diagnose(path)
        code, _, errors = await run(*lock)
        command = errors.rstrip().rpartition("\n")[2]
        done, _, told = await run(*shlex.split(command)[1:])
    stopped = await diagnose(path)
    _, _, unasked = await run(*lock)

    assert (found.code, found.wrong, found.marks("gate")) == (2, {"configuration"}, {"ok"})
    assert found.said("file-descriptors")
    assert (code, "where the running gate says that it is" in errors) == (2, True)
    assert command == f"tailchat-gate {shlex.join(lock)} --state '{state}'"
    assert (done, told) == (0, "")
    assert (stopped.code, stopped.marks("gate")) == (2, {"warning"})
    assert f"tailchat-gate {shlex.join(lock)} --state DIRECTORY" in unasked


async def test_a_check_that_hangs_or_fails_takes_nothing_from_the_others() -> None:
    """What it said until then stays; what went wrong inside is named without its text."""

    async def hangs() -> AsyncIterator[Statement]:
        yield ok("one", "first")
        await asyncio.Event().wait()

    async def fails() -> AsyncIterator[Statement]:
        yield ok("two", "first")
        raise ValueError("a secret")

    async def works() -> AsyncIterator[Statement]:
        yield ok("three", "first")

    checks = (Check("one", hangs), Check("two", fails), Check("three", works))
    found = await run_checks(checks, 0.01)

    assert [(one.name, one.mark) for one in found] == [
        ("one", Mark.OK),
        ("one", Mark.WRONG),
        ("two", Mark.OK),
        ("two", Mark.UNKNOWN),
        ("three", Mark.OK),
    ]
    assert "a secret" not in str(found)


def test_doctor_waits_as_long_as_what_it_checks() -> None:
    """A gate can serve with a Tailchat that is slow, and the admin page waits for all checks."""
    assert CALL_SECONDS >= LONGEST_CALL
    # Three calls to the running gate, its checks, and then the store's.
    assert doctor_run.SECONDS > 3 * CALL_SECONDS + 2 * CHECK_SECONDS


def test_one_outage_is_one_statement() -> None:
    """The cause stands for what it holds up, over more than one step; nothing else is touched."""
    dead = wrong("dns", "chat.test: no such name", "mend it")._replace(lacks="name chat.test")
    down = wrong("tailchat", "down: no such name")._replace(
        needs="name chat.test", lacks="tailchat"
    )
    people = warning("people", "cannot be asked")._replace(needs="tailchat")
    around = unknown("around", "unknown")._replace(needs="wiki", about="wiki")
    repeated = wrong("gate", "the store is away")._replace(needs="store", about=REPEATED)
    other = ok("clock", "good")
    store = warning("store", "away")._replace(lacks="store")

    found = joined([down, people, other, repeated, dead, around, store])

    assert [(one.name, one.mark, one.text.partition("because of this: ")[2]) for one in found] == [
        ("clock", Mark.OK, ""),
        ("dns", Mark.WRONG, "tailchat, people"),
        ("around", Mark.UNKNOWN, ""),
        ("store", Mark.WRONG, ""),
    ]
    assert found[1].remedy == "mend it"


def test_without_a_cause_one_reason_is_one_statement() -> None:
    """What gives another reason stays as it is; two that hold up each other are both said."""
    one, two, three = (
        warning(name, f"Tailchat cannot be asked: {why}")._replace(needs="tailchat")
        for name, why in (("people", "status 502"), ("key", "no answer"), ("bot", "status 502"))
    )
    circle = [
        unknown("a", "a")._replace(needs="y", lacks="x"),
        unknown("b", "b")._replace(needs="x", lacks="y"),
    ]

    assert [said.text for said in joined([one, two, three])] == [
        "Tailchat cannot be asked: status 502; not checked because of this: bot",
        two.text,
    ]
    assert len(joined(circle)) == 2


@pytest.mark.parametrize(
    ("gate", "told"),
    [
        (ok("gate", "it serves"), {"redirect-uri": "public-url"}),
        (
            warning("gate", "nobody answers")._replace(lacks=RUNNING_GATE),
            {"redirect-uri": "", "gate": "public-url"},
        ),
    ],
    ids=["running", "not running"],
)
def test_a_gate_that_begins_no_login_for_a_fault_of_the_app_is_not_gone(
    gate: Statement, told: dict[str, str]
) -> None:
    """Nobody is sent to look for a gate that runs, and tells browsers why they cannot sign in."""
    fault = wrong("redirect-uri", "not listed")._replace(lacks="redirect-uri")
    public = wrong("public-url", "status 502", "check whether it runs")._replace(needs=RUNNING_GATE)
    found = joined(after_sign_in([gate, fault, public]))

    held_up = {one.name: one.text.partition("because of this: ")[2] for one in found}
    assert {name: held_up[name] for name in told} == told
    assert "public-url" not in held_up


# Names.


async def test_a_name_of_this_machine_is_never_unknown() -> None:
    """Names below localhost are loopback (RFC 6761), also where the system knows none."""
    infos = await Names().addresses("wiki.localhost", 80)

    assert infos
    assert all(ip_address(info[4][0]).is_loopback for info in infos)


async def test_a_name_that_is_never_answered_holds_nothing_up(tmp_path: Path) -> None:
    """The resolver waits for half a minute; the command says so after its own time, and ends."""
    await run_in_network(Path(__file__).with_name("doctor_names.py"), directory=tmp_path)


# Tools.


async def test_tools_that_do_not_answer_as_they_should(
    authority: Authority, tmp_path: Path
) -> None:
    """Refused, no HTTP, no TLS, an expired certificate, an error of its own: each in its words."""
    expired = authority.issue("localhost", ends=timedelta(hours=-1))

    async def broken(_: web.Request) -> web.Response:
        return web.Response(status=503)

    async def mute(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 smtp.example.com ESMTP\r\n")
        writer.close()

    app = web.Application()
    app.router.add_get("/", broken)
    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    async with (
        server,
        served(app) as failing,
        tool() as plain,
        tool(expired.server_context()) as old,
    ):
        other = server.sockets[0].getsockname()[1]
        upstreams = {
            "refused": "http://127.0.0.1:1",
            "mail": f"http://127.0.0.1:{other}",
            "plain": f"https://localhost:{plain}",
            "old": f"https://localhost:{old}",
            "broken": f"http://127.0.0.1:{failing}",
        }
        routes = [
            {"name": name, "path": f"/{name}", "upstream_path": "/", "upstream": url}
            | ({"tls_ca": str(authority.file)} if url.startswith("https") else {})
            for name, url in upstreams.items()
        ]
        found = await examine(tmp_path, route=routes)

    said = {text.partition(":")[0]: (mark, text) for mark, text in found.said("tool")}
    certificates = {
        text.partition(":")[0]: (mark, text) for mark, text in found.said("certificate")
    }
    assert said["refused"][0] == said["mail"][0] == "wrong"
    assert "refuses connections" in said["refused"][1]
    assert "does not answer with HTTP/1.1" in said["mail"][1]
    assert said["broken"][0] == "warning"
    assert "answers with 503" in said["broken"][1]
    assert certificates["plain"] == (
        "wrong",
        f"plain: {upstreams['plain']}: the server there does not speak TLS",
    )
    assert "certificate has expired" in certificates["old"][1]
    assert found.marks("around") <= {"ok", "unknown"}


@pytest.mark.parametrize(
    ("host", "moved", "loops"),
    [("::", 0, True), ("127.0.0.1", 0, True), ("127.0.0.2", 0, False), ("::", 1, False)],
)
async def test_a_name_that_leads_to_the_gate_itself(host: str, moved: int, *, loops: bool) -> None:
    """What is connected to is compared with the gate's addresses, since a name may be any."""
    async with tool() as port:
        route = make_settings(route=[{"name": "tool", "upstream": f"http://localhost:{port}"}])
        (asked,) = tools(route)
        listener = TcpAddress(host, port + moved)
        checks = (Check("tool", partial(answers, asked, Dialer(Names()), 0.0, (listener,))),)
        (said,) = await run_checks(checks)

    assert (said.mark is Mark.WRONG) == loops
    assert ("where the gate itself listens: requests loop" in said.text) == loops


async def test_a_tool_that_others_reach_too(tmp_path: Path) -> None:
    """It listens on every address of this machine, although the gate asks it on loopback."""

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    path = tmp_path / "tool.sock"
    server = await asyncio.start_server(serve, "0.0.0.0", 0)  # noqa: S104 - that is the fault
    local = await asyncio.start_unix_server(serve, path)
    async with server, local:
        await asyncio.to_thread(path.chmod, 0o666)
        port = server.sockets[0].getsockname()[1]
        routes = [
            {"name": "one", "upstream": f"http://127.0.0.1:{port}"},
            {"name": "two", "path": "/two", "upstream": f"unix:{path}"},
        ]
        found = await examine(tmp_path, route=routes)

    (first, one), (second, two) = found.said("around")
    assert (first, second) == ("warning", "warning")
    assert f"port {port} is open beyond this machine, at 0.0.0.0:{port}" in one
    assert "every user of this machine can connect" in two
    assert "X-Tailchat-Assertion" in found.next_of("around")


def test_networks_are_told_apart() -> None:
    """A private network is one's own to guard; a public address is open unless it is guarded."""
    private = of_network("tool", [ip_address("10.0.0.3")])
    public = of_network("tool", [ip_address("93.184.216.34")])

    assert (private.mark, public.mark) == (Mark.OK, Mark.WARNING)


def test_listeners_of_this_machine_are_read() -> None:
    """IPv4, IPv6, and an IPv4 address in IPv6, as the kernel's table has them."""
    with (
        socket.create_server(("127.0.0.1", 0)) as four,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as six,
    ):
        found = {str(one) for one in read_listeners()}

        assert f"127.0.0.1:{four.getsockname()[1]}" in found
        assert f"[::1]:{six.getsockname()[1]}" in found


# The public address.


class Edge:
    """A proxy in front of a gate that changes what passes."""

    def __init__(self) -> None:
        self.change = ""
        self.gate = ""

    async def answer(self, request: web.Request) -> web.Response:
        """Pass a request on to the gate."""
        if self.change == "all":
            return web.Response(text="It works!")
        async with (
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.get(
                f"{self.gate}{request.path_qs}",
                headers={**request.headers, "Connection": "close"},
                allow_redirects=False,
            ) as response,
        ):
            answer = web.Response(status=response.status)
            for name in ("Location", "Set-Cookie"):
                for value in response.headers.getall(name, []):
                    if self.change != "cookies" or name != "Set-Cookie":
                        answer.headers.add(name, value.replace(f"; {self.change}", ""))
            return answer


async def test_what_the_proxy_in_front_does_to_a_login(tmp_path: Path) -> None:
    """Another server, lost or changed cookies, another gate; and a gate as it should be."""
    edge, app, found = Edge(), web.Application(), {}
    app.router.add_get("/{rest:.*}", edge.answer)
    path, other = tmp_path / "config.toml", tmp_path / "other.toml"
    async with (
        served(app) as port,
        gate_process(tmp_path, server={"public_url": f"http://127.0.0.1:{port}"}) as gate,
    ):
        edge.gate = f"http://127.0.0.1:{gate.port}"
        for edge.change in ("nothing", "cookies", "HttpOnly", "all"):
            found[edge.change] = await diagnose(path)
        edge.change = "nothing"
        text = await asyncio.to_thread(path.read_text, "utf-8")
        await asyncio.to_thread(other.write_text, text.replace('"tc_test"', '"tc_other"'), "utf-8")
        found["other"] = await diagnose(other)
        for name, secrets in (("older", [OTHER_SECRET]), ("rotated", [OTHER_SECRET, SECRET])):
            changed = text.replace(json.dumps([SECRET]), json.dumps(secrets))
            assert changed != text
            await asyncio.to_thread(other.write_text, changed, "utf-8")
            found[name] = await diagnose(other)

    assert found["nothing"].marks("public-url") == found["nothing"].marks("cookies") == {"ok"}
    assert found["cookies"].marks("cookies") == {"wrong"}
    assert "is lost on the way" in found["cookies"].said("cookies")[0][1]
    assert "changed on the way: httponly" in found["HttpOnly"].said("cookies")[0][1]
    assert "does not begin a login of this gate" in found["all"].said("public-url")[0][1]
    assert "its client_id is tc_test" in found["other"].said("public-url")[0][1]
    assert found["older"].marks("public-url") == {"wrong"}
    assert "it has none of session.secrets" in found["older"].said("public-url")[0][1]
    assert (found["older"].held_up("public-url"), found["older"].marks("cookies")) == (
        {"cookies"},
        set(),
    )
    # A secret is being changed, and the running gate has the one before.
    assert found["rotated"].marks("public-url") == found["rotated"].marks("cookies") == {"ok"}


# This machine, and the gate on it.


async def test_what_is_wrong_with_the_machine(tmp_path: Path) -> None:
    """A secret that everybody reads, a store that everybody writes, a log without a directory."""
    state, key = tmp_path / "state", tmp_path / "secret"
    await asyncio.to_thread(state.mkdir, 0o700)
    await asyncio.to_thread(state.chmod, 0o777)
    await asyncio.to_thread(key.write_text, SECRET, "utf-8")
    await asyncio.to_thread(key.chmod, 0o644)
    found = await examine(
        tmp_path,
        session={"secrets": None, "secret_file": str(key)},
        state={"path": str(state)},
        log={"audit_file": str(tmp_path / "missing" / "audit")},
    )

    assert {"store", "start"} <= found.wrong
    assert f"every user of this machine can read {key}" in found.said("secret-files")[0][1]
    assert f"every user of this machine can write to {state}" in found.said("store")[0][1]
    assert any("log.audit_file" in text for _, text in found.said("start"))


async def test_the_gates_own_certificates(authority: Authority, tmp_path: Path) -> None:
    """One that is over, one that soon is, one that is good; and a key that everybody reads."""
    tls = []
    for name, hours in (("over.test", -1), ("soon.test", 200), ("good.test", 2000)):
        issued = authority.issue(name, ends=timedelta(hours=hours))
        await asyncio.to_thread(issued.key.chmod, 0o644 if name == "soon.test" else 0o600)
        tls.append({"certificate": str(issued.certificate), "key": str(issued.key)})
    server = {"https_listen": "127.0.0.1:0", "public_url": "https://good.invalid", "tls": tls}
    found = await examine(tmp_path, server=server)

    assert [mark for mark, _ in found.said("certificate")] == ["wrong", "warning", "ok"]
    assert "expired at" in found.said("certificate")[0][1]
    ((mark, text),) = found.said("secret-files")
    assert (mark, tls[1]["key"] in text) == ("warning", True)


async def test_a_store_that_is_damaged(tmp_path: Path) -> None:
    """Its fault is said, and nothing of it is repaired or lost by looking."""
    state = tmp_path / "state"
    await asyncio.to_thread(state.mkdir, 0o700)
    await asyncio.to_thread((state / "state.sqlite").write_bytes, b"not a database" * 100)
    found = await examine(tmp_path, state={"path": str(state)})

    assert "store" in found.wrong
    assert await asyncio.to_thread((state / "state.sqlite").read_bytes) == b"not a database" * 100


async def test_the_running_gate_is_asked(tmp_path: Path) -> None:
    """One that refused its changed file, and one that is not there."""
    async with gate_process(tmp_path, server={"watch": False}) as gate:
        await _admin_answers(gate)
        path = tmp_path / "config.toml"
        good = await diagnose(path)
        text = await asyncio.to_thread(path.read_text, "utf-8")
        await asyncio.to_thread(path.write_text, text + "[unknown]\n", "utf-8")
        await run("reload", "--config", str(path))
        await asyncio.to_thread(path.write_text, text, "utf-8")
        refused = await diagnose(path)
        limit = await gate.metric("process_max_fds")
    gone = await diagnose(path)

    assert good.marks("gate") == {"ok"}
    assert "refused this file" in refused.said("gate")[0][1]
    assert "gate" in refused.wrong
    assert limit > 0
    assert "the running gate has room for" in good.said("file-descriptors")[0][1]
    assert gone.marks("gate") == {"warning"}
    assert "Connection refused" in gone.said("gate")[0][1]
