"""`tailchat-gate demo`, as a program: its people, its tools, and what it says to try."""

import asyncio
import json
import re
import shlex
import signal
import socket
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from clikit import GATE, environ, invoke, run
from gatekit import RawUpstream, listening
from visitor import Page, Visitor

from tailchat_gate.commands import demo as demo_command
from tailchat_gate.demo.users import USERS

OWNER, MEMBER, *_ = USERS


@dataclass
class Demo:
    """A running demo, and what it said when it began."""

    process: Process
    said: str

    @property
    def port(self) -> str:
        """The gate's port."""
        (port,) = re.findall(r"Open http://gate\.localhost:(\d+)/", self.said)
        return str(port)

    def url(self, name: str) -> str:
        """Return the address of the gate or of a tool."""
        return f"http://{name}.localhost:{self.port}/"

    @property
    def commands(self) -> list[list[str]]:
        """The commands to try, without the program."""
        return [shlex.split(line)[1:] for line in self.said.splitlines() if " --config " in line]

    async def end(self) -> tuple[int, str, str]:
        """Press Ctrl-C; return the exit code, and what it said on both outputs since."""
        self.process.send_signal(signal.SIGINT)
        out, err = await self.process.communicate()
        return self.process.returncode or 0, out.decode(), err.decode()


@asynccontextmanager
async def demo(*options: str) -> AsyncIterator[Demo]:
    """Run the demo on any port until the block ends."""
    process = await asyncio.create_subprocess_exec(
        *(*GATE, "demo", "--port", "0", *options),
        stdout=PIPE,
        stderr=PIPE,
        env={**environ(), "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    try:
        try:
            said = (await process.stdout.readuntil(b"Ctrl-C ends it.")).decode()
        except asyncio.IncompleteReadError as error:
            _, complaint = await process.communicate()
            raise AssertionError(f"the demo ended: {complaint.decode()}") from error
        yield Demo(process, said)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def _opened(visitor: Visitor, url: str, holds: Callable[[Page], bool]) -> Page:
    """Open a page again until something holds of it: the gate learns of roles and locks later."""
    page = await visitor.open(url)
    async with asyncio.timeout(30):
        while not holds(page):
            await asyncio.sleep(0.03)
            page = await visitor.open(url)
    return page


async def test_the_demo_signs_somebody_in_and_ends_on_ctrl_c() -> None:
    """The launcher follows the sign-in and shows the tools; SIGINT ends it, without a file left."""
    async with demo() as found, Visitor() as visitor:
        (config,) = {Path(command[-1]) for command in found.commands}
        page = await visitor.sign_in(found.url("gate"), OWNER.email, OWNER.password)
        assert page.url == found.url("gate") + "oauth2/"
        page = await _opened(visitor, page.url, lambda page: found.url("admin") in page.links)
        tools = [link for link in page.links if not link.startswith(found.url("gate"))]
        page = await visitor.open(found.url("wiki"))
        held = config.exists()
        code, rest, err = await found.end()

    assert [*map(found.url, ("wiki", "oncall", "status", "admin"))] == tools
    assert "星野 Hoshino ☆" in page.text
    assert OWNER.sub in page.text
    assert held
    assert not config.parent.exists()
    assert code == 0
    assert "warning" not in err
    assert "Traceback" not in err
    assert "has deleted its files" in rest


async def test_the_demo_shows_a_refusal_a_request_and_an_approval() -> None:
    """A person without the role asks, the person with it decides, and the first is in."""
    async with demo() as found, Visitor() as owners, Visitor() as members:
        url = found.url("oncall")
        assert (await members.open(found.url("status"))).status == 200
        await owners.sign_in(url, OWNER.email, OWNER.password)
        await _opened(owners, url, lambda page: page.status == 200)
        page = await members.sign_in(url, MEMBER.email, MEMBER.password)
        assert page.status == 403
        waiting = await members.submit(page, "/request", reason="to see it")
        page = await owners.open(found.url("gate") + "oauth2/approvals")
        (link,) = (link for link in page.links if "prompt=login" in link)
        page = await owners.open(link)
        page = await owners.submit(page, "/login", email=OWNER.email, password=OWNER.password)
        await owners.submit(page, "/approvals", **{"for": "1h"})
        assert (await members.open(waiting.url)).url == url
        page = await owners.open(found.url("admin"))
        assert page.status == 200
        assert "oncall" in page.text
        assert (await members.open(found.url("admin"))).status == 403
        code, _, err = await found.end()

    assert code == 0
    lines = [line.split("  ", 2)[2] for line in err.splitlines()]
    assert [line for line in lines if "group" not in line] == [
        "hoshino signed in",
        "bob signed in",
        "bob was refused by On call: denied",
        "bob asks for On call: “to see it”",
        "hoshino signed in",
        "bob may enter On call for a while",
        "hoshino approved the request of bob for On call",
        "bob was refused by Gate admin: denied",
    ]


async def test_the_demo_prints_json_when_it_is_asked_to() -> None:
    """With --json the lines are those of a gate's audit log."""
    async with demo("--json") as found, Visitor() as visitor:
        await visitor.sign_in(found.url("wiki"), OWNER.email, OWNER.password)
        _, _, err = await found.end()

    lines = [json.loads(line) for line in err.splitlines()]
    assert [one["sub"] for one in lines if one["event"] == "signed-in"] == [OWNER.sub]


async def test_the_commands_that_the_demo_says_to_try_work() -> None:
    """The first says why a person is refused, and the second keeps the person out."""
    async with demo() as found, Visitor() as visitor:
        explain, lock = found.commands
        url = found.url("wiki")
        assert (await visitor.sign_in(url, MEMBER.email, MEMBER.password)).status == 200
        code, out, _ = await run(*explain)
        assert (code, "refused: denied, 403" in out) == (1, True)
        assert (await run(*lock))[0] == 0
        page = await _opened(visitor, url, lambda page: page.status != 200)
        assert (page.status, "locked" in page.text) == (403, True)
        assert (await found.end())[0] == 0


async def test_the_demo_signs_somebody_in_at_a_tool_of_the_admins() -> None:
    """With --upstream a login reaches that tool, and nobody gets there without one."""
    async with (
        RawUpstream() as tool,
        demo("--upstream", tool.url) as found,
        Visitor() as visitor,
    ):
        await visitor.open(found.url("tool"))
        assert not tool.requests
        page = await visitor.sign_in(found.url("tool"), OWNER.email, OWNER.password)
        assert (await found.end())[0] == 0

    assert page.text == "ok"
    assert f"X-Tailchat-Sub: {OWNER.sub}" in tool.requests[0].head.decode("latin-1")
    assert re.search(r"EMAIL +PASSWORD\n +" + re.escape(OWNER.email), found.said)


async def test_the_demo_listens_where_a_container_needs_it() -> None:
    """With --host the gate and Tailchat answer at each address of the machine, the tools do not."""
    async with demo("--host", "0.0.0.0") as found, Visitor() as visitor:  # noqa: S104 - the point
        page = await visitor.sign_in(found.url("wiki"), OWNER.email, OWNER.password)
        ports = [int(found.port), int(re.findall(r"tailchat\.localhost:(\d+)", found.said)[0])]
        for port in ports:
            _, writer = await asyncio.open_connection("127.0.0.2", port)
            writer.close()
            await writer.wait_closed()
        assert (await found.end())[0] == 0

    assert page.status == 200
    assert "its passwords are public" in found.said


async def test_the_demo_listens_on_this_machine_alone() -> None:
    """Without --host no other address of the machine leads to it."""
    async with demo() as found:
        try:
            await asyncio.open_connection("127.0.0.2", int(found.port))
        except ConnectionRefusedError:
            refused = True
        else:
            refused = False
        assert (await found.end())[0] == 0

    assert refused
    assert "this machine alone" in found.said
    people = re.findall(r"(\S+)@demo\.example +(\S+)", found.said)
    assert people == [("hoshino", "hoshino-demo"), ("bob", "bob-demo")]


async def test_a_tool_of_the_admins_is_not_put_behind_public_passwords() -> None:
    """--upstream with an address that others reach ends the demo with 1 and says why."""
    tool = ("--upstream", "http://127.0.0.1:9")
    code, _, err = await run("demo", "--port", "0", "--host", "0.0.0.0", *tool)  # noqa: S104 - refused

    assert code == 1
    assert "passwords" in err


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--upstream", "http://127.0.0.1:3000/path", "without a path"),
        ("--host", "gate.example.com", "an IP address"),
        ("--port", "65536", "0<=x<=65535"),
    ],
)
def test_the_demo_takes_what_can_be_an_address(option: str, value: str, told: str) -> None:
    """What is no upstream of a route, address or port ends the demo with 2 and is explained."""
    code, _, err = invoke("demo", option, value)

    assert code == 2
    assert told in err


def test_no_other_process_gets_a_port_of_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is taken when it is chosen, and not only when the demo serves."""
    taken: list[int] = []

    async def run(places: Any, *_: object) -> None:  # noqa: ANN401 - private
        text = await asyncio.to_thread(places.config.read_text, "utf-8")
        for port in {int(number) for number in re.findall(r"[a-z1]:(\d+)\b", text)}:
            with pytest.raises(OSError, match="in use"):
                socket.create_server(("127.0.0.1", port))
            taken.append(port)

    monkeypatch.setattr(demo_command, "_run", run)
    monkeypatch.setattr(demo_command, "Signals", Mock)
    monkeypatch.setattr(demo_command, "set_up_logging", Mock())
    demo_command.run_demo(0)

    assert len(taken) == len(("gate", "tailchat", "wiki", "on call", "status"))


async def test_the_demo_on_a_taken_port_says_what_to_do() -> None:
    """A taken port ends the demo with 1 and names --port."""
    async with listening(lambda *_: None) as port:
        code, _, err = await run("demo", "--port", str(port))

    assert code == 1
    assert "--port 0" in err
