"""explain and routes: what they print for the corpus, and that the gate does what they say."""

import asyncio
import re
import shlex
import socket
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from click.testing import CliRunner
from configkit import CORPUS, SECRETS, good
from gatekit import (
    RawUpstream,
    Received,
    RunningGate,
    ask,
    request_bytes,
    running_gate,
    until,
)

from tailchat_gate.access.routes import explain_match
from tailchat_gate.cli import main
from tailchat_gate.commands import explain
from tailchat_gate.commands.common import loaded_from
from tailchat_gate.identity.machine_tokens import hash_of, make_token
from tailchat_gate.identity.oauth.responses import Profile
from tailchat_gate.serving.wiring.config_parts import route_table

#: What the commands print about a configuration: `$ tailchat-gate COMMAND`, the output, `exit N`.
TRANSCRIPTS = sorted(CORPUS.glob("good/*.commands"))
PROMPT = "$ tailchat-gate "


def run(transcript: Path, command: str) -> str:
    """Return what a command prints on the configuration beside a transcript, and how it ends."""
    name, *arguments = shlex.split(command)
    config = str(transcript.with_suffix(".toml"))
    done = CliRunner().invoke(
        main, [name, "--config", config, *arguments], env=dict(SECRETS), prog_name="tailchat-gate"
    )
    assert done.exception is None or isinstance(done.exception, SystemExit)
    # The option is as in the command that was typed.
    return f"{done.output}exit {done.exit_code}\n".replace(f" --config {config}", "")


def cases(transcript: Path) -> Iterator[tuple[str, str]]:
    """Yield each command of a transcript with what it prints."""
    for case in transcript.read_text(encoding="utf-8").split(PROMPT)[1:]:
        command, _, printed = case.partition("\n")
        yield command, printed.removesuffix("\n") if printed.endswith("\n\n") else printed


@pytest.fixture
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test in which anything is contacted or looked up."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a command that tells of rules opened a socket")

    for name in ("socket", "create_connection", "getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize(
    ("transcript", "command", "printed"),
    [
        pytest.param(file, *case, id=f"{file.stem}: {case[0]}")
        for file in TRANSCRIPTS
        for case in cases(file)
    ],
)
def test_transcripts(transcript: Path, command: str, printed: str) -> None:
    """A command prints just this and ends so, without a word to anybody."""
    assert run(transcript, command) == printed


def test_there_are_transcripts() -> None:
    """Each outcome and both commands are in the corpus."""
    printed = "".join(file.read_text(encoding="utf-8") for file in TRANSCRIPTS)

    for word in ("routes", "explain", "let through: public", "let through: signed-in"):
        assert word in printed
    for word in ("let through: token", "as nobody", "own-path", "method-refused", "deny-listed"):
        assert word in printed
    for word in ("token-elsewhere", "denied", "not-signed-in", "no-route", "bad-request", "exit 2"):
        assert word in printed


# The gate does what explain says.

BOB = Profile("660000000000000000000002", "Bob", "7531", "https://chat.example/b.png")
ROUTES = """
[server]
public_url = "http://gate.test"
listen = "127.0.0.1:0"
admin_listen = ""
forwarded = true

[tailchat]
api_url = "http://127.0.0.1:9"
client_id = "tc_1"

[access]
deny = ["group:former"]

[state]
path = ""

[groups]
ops = ["660000000000000000000002", "660000000000000000000009"]
former = ["660000000000000000000009"]

[[route]]
name = "home"
upstream = "UPSTREAM"

[[route]]
name = "open"
path = "/open"
upstream = "UPSTREAM"
upstream_path = "/"
upstream_host = "tool.lan"
allow = ["public"]
headers = { "X-WEBAUTH-USER" = "{sub}", "X-Who" = "{groups}/{nickname}" }

[[route]]
name = "api"
host = "*.lab.test"
path = "/api"
upstream = "UPSTREAM"
header_encoding = "utf8"
methods = ["GET", "POST"]

[[route]]
name = "api-ops"
host = "*.lab.test"
path = "/api"
upstream = "UPSTREAM"
allow = ["group:ops"]
trace = true

[[route]]
name = "teapot"
host = "tea.test"
upstream = "static:418"
allow = ["public"]
methods = ["GET"]
"""
ASKED = [
    *("http://gate.test/", "http://gate.test/x?a=b#c", "http://gate.test/open", "http://tea.test/"),
    *("http://GATE.test.:8080/open/a%2Fb;c?x", "http://a.lab.test/api/x", "http://a.lab.test/"),
    *("http://x.y.lab.test/API", "http://lab.test/api", "http://gate.test/open/..%2fx"),
    *("http://a.lab.test/open/..%2fapi", "http://a.lab.test/api?_method=DELETE"),
    "http://a.lab.test/x//api",
    "http://gate.test/" + "%252e%252e%252f;%255c//" * 60,
    "http://tea.test/" + "%252e%252e%252f;%255c//" * 60,
    *("http://gate.test/%00", "http://gate.test/a\\b", "http://gate.test/" + "x" * 20_000),
]
MALLORY = Profile("660000000000000000000009", "Mallory", "0666", "")


@pytest.fixture
def config(tmp_path: Path, upstream: RawUpstream) -> Path:
    """Return a configuration in front of a tool that records what it gets."""
    file = tmp_path / "gate.toml"
    file.write_text(ROUTES.replace("UPSTREAM", upstream.url), encoding="utf-8")
    file.chmod(0o600)
    return file


def _explained(config: Path, url: str, method: str, who: Profile | None) -> tuple[int, str]:
    command = ["explain", "-c", str(config), url, "--method", method]
    if who is not None:
        command += ["--as", who.sub]
    done = CliRunner().invoke(main, command, env=dict(SECRETS))
    assert done.exit_code in {0, 1}, done.output
    return done.exit_code, done.output


def _as_explained(received: Received, who: Profile | None) -> list[str]:
    """Return the head that a tool got as explain shows one."""
    text = received.head.decode("latin-1")
    text = re.sub(r"X-Request-Id: [0-9a-f]{24}", "X-Request-Id: " + "0" * 24, text)
    for name, value in (
        ("nickname", "Bob"),
        ("discriminator", BOB.discriminator),
        ("avatar", BOB.avatar),
    ):
        if who is not None:
            text = text.replace(value, f"<{name}>")
    text = text.replace("127.0.0.1", "192.0.2.1")
    return [line for line in text.split("\r\n") if line and not line.startswith("Cookie")]


@pytest.mark.parametrize("who", [None, BOB, MALLORY], ids=["nobody", "Bob", "Mallory"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "TRACE", "CONNECT", "get"])
async def test_the_gate_does_what_explain_says(
    tmp_path: Path,
    config: Path,
    upstream: RawUpstream,
    monkeypatch: pytest.MonkeyPatch,
    who: Profile | None,
    method: str,
) -> None:
    """For each request the decision and its reason are the gate's, and the head is the tool's."""
    # Half of the time of a command; the file stays as it is.
    monkeypatch.setattr(explain, "loaded_from", cache(loaded_from))
    settings = (await asyncio.to_thread(good, config)).settings
    async with running_gate(settings, tmp_path / "access.log") as gate:
        for url in ASKED:
            code, said = await asyncio.to_thread(_explained, config, url, method, who)
            upstream.requests.clear()
            await _send(gate, url, method, who)
            line = (await gate.log())[-1]

            let_in, reason = _decision(said)
            assert reason == line["reason"], url
            assert (code == 0) == let_in == (reason in {"public", "signed-in", "own-path"}), url
            if upstream.requests:
                head = said.partition("\n\n")[2].splitlines()
                assert head == _as_explained(upstream.requests[0], who), url
            else:
                assert "\n\n" not in said, url


@pytest.mark.parametrize("who", [None, BOB], ids=["nobody", "Bob"])
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("host", ["gate.test", "a.lab.test", "nowhere.test"])
async def test_explain_says_what_browsers_get_where_no_tool_is(
    tmp_path: Path, config: Path, who: Profile | None, method: str, host: str
) -> None:
    """At "/" a page goes to the launcher and a program is refused, with the reason of the log."""
    own = ROUTES.replace('name = "home"', 'name = "home"\npath = "/home"')
    await asyncio.to_thread(config.write_text, own.replace("UPSTREAM", "http://127.0.0.1:9"))
    settings = (await asyncio.to_thread(good, config)).settings
    async with running_gate(settings, tmp_path / "access.log") as gate:
        code, said = await asyncio.to_thread(_explained, config, f"http://{host}/", method, who)
        await _send(gate, f"http://{host}/", method, who)
        line = (await gate.log())[-1]
        page = request_bytes("/", host=host, method=method, Accept="text/html")
        shown = (await ask(gate.port, page)).values("Location")

    assert (code, _decision(said)[1]) == (1, line["reason"])
    assert ("the launcher, /oauth2/, for a page" in said) == bool(shown)


async def _send(gate: RunningGate, url: str, method: str, who: Profile | None) -> None:
    authority, slash, rest = url.removeprefix("http://").partition("/")
    host = authority.lower().partition(":")[0].removesuffix(".")
    cookie = {}
    if who is not None:
        tool = host.endswith(".lab.test") or host == "tea.test"
        cookie["Cookie"] = gate.cookie_for(host, who) if tool else gate.cookie(who)
    target = (slash + rest).partition("#")[0]
    await ask(gate.port, request_bytes(target, method=method, host=authority, **cookie))


def _decision(said: str) -> tuple[bool, str]:
    (decision,) = [line for line in said.splitlines() if line.startswith("decision:")]
    words = decision.removeprefix("decision:").replace(",", "").split()
    if words[0] == "let":
        return True, words[2]
    return words[0] == "own-path", words[1] if words[0] == "refused:" else words[0]


def test_every_rule_is_told_once() -> None:
    """A path with many readings gives as many lines as there are places it may lead to."""
    table = route_table(good(CORPUS / "good" / "rules.toml").settings)
    found = explain_match(table, "wiki.example.com", "/feed%2f..%2fexport%2f..;/x//", ["GET"])

    assert len(found) == len(set(found)) <= 5


def _keep_locks(config: Path, secret: str) -> None:
    """Have a configuration keep locks in a store, and let a machine in."""
    text = config.read_text().replace('path = ""', f'path = "{config.parent}"', 1)
    text += f'[[token]]\nname = "ci"\nhash = "{hash_of(secret)}"\n'
    config.write_text(text.replace('["group:ops"]', '["group:ops", "token:ci"]'))


@pytest.mark.parametrize("target", [f"sub:{BOB.sub}", "token:ci", "all"])
async def test_the_gate_says_of_a_lock_what_explain_says(
    tmp_path: Path, config: Path, target: str
) -> None:
    """Of somebody who is locked out too, on open, closed and unknown addresses."""
    secret = make_token(bytes(32))
    _keep_locks(config, secret)
    settings = (await asyncio.to_thread(good, config)).settings
    async with running_gate(settings, tmp_path / "access.log") as gate:
        for command in (["lock", target], ["locks"]):
            command += ["-c", str(config)]
            done = await asyncio.to_thread(CliRunner().invoke, main, command, env=dict(SECRETS))
            assert done.exit_code == 0, done.output
        await until(lambda: bool(gate.generation.process_state.revocation.locks))
        for host, path in (
            *(("gate.test", "/"), ("gate.test", "/open"), ("a.lab.test", "/api")),
            *(("a.lab.test", "/nowhere"), ("tea.test", "/x"), ("gate.test", "/ping")),
        ):
            bob = {
                "Cookie": gate.cookie(BOB) if host == "gate.test" else gate.cookie_for(host, BOB)
            }
            machine = {"Authorization": f"Bearer {secret}"}
            for who, field in (
                *((["--as", BOB.sub], bob), (["--token", "ci"], machine)),
                ([], {"Sec-Fetch-Mode": "cors"}),
            ):
                asked = ["explain", "-c", str(config), f"http://{host}{path}", *who]
                said = await asyncio.to_thread(CliRunner().invoke, main, asked, env=dict(SECRETS))
                response = await ask(gate.port, request_bytes(path, host=host, **field))
                line = (await gate.log())[-1]

                let_in, reason = _decision(said.output)
                assert reason == line["reason"], (host, path, who)
                assert let_in or f"{reason}, {response.status}" in said.output
                assert reason not in {"locked", "maintenance"} or "because of:" in said.output


@pytest.mark.parametrize("typed", ["gate.test/open", "/open", "gate.test:8080/open#part"])
def test_a_url_may_be_typed_in_part(config: Path, typed: str) -> None:
    """A host without a scheme, or a path alone, is of the gate's own address."""
    code, said = _explained(config, typed, "GET", None)

    assert code == 0
    assert said.startswith("request:    GET /open on gate.test")
