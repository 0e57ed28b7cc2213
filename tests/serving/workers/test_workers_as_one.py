"""Two workers are one gate to a browser, to a command, to a reader of logs and to systemd."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from clikit import gate_after, invoke, run
from gatekit import RawClient, RawUpstream, Response, ask, request_bytes, until
from process import free_port
from processkit import END_SECONDS, Manager
from storykit import CLIENT_ID, CLIENT_SECRET, HOSHINO, served, until_callback
from visitor import NAVIGATION, Visitor
from workerkit import Workers, workers

from tailchat_gate.demo.store import App
from tailchat_gate.demo.tailchat import StandInTailchat

#: A target that is too long to travel with a login.
_LONG = "/report?" + "q=%C3%A9&" * 130
_FIELDS = {name.replace("-", "_"): value for name, value in NAVIGATION.items()}


#: Workers that wait for each other's answers as long as a busy machine may need.
_SLOW: Final = """
from tailchat_gate.serving.workers import crew, worker
crew.FIND_SECONDS = worker.FIND_SECONDS = 20.0
"""


#: A parent that has stopped its workers, and goes on once a file is gone.
_STOPPED = """
import asyncio, pathlib
from tailchat_gate.serving.workers.crew import Crew
file, stop = pathlib.Path({file!r}), Crew.stop
async def stop_and_wait(self, *given, **named):
    await stop(self, *given, **named)
    file.touch()
    while file.exists():
        await asyncio.sleep(0.01)
Crew.stop = stop_and_wait
"""


class Scene:
    """A gate with two workers, and the stand-in Tailchat; `url` is where visitors go."""

    def __init__(self, found: Workers, tailchat: StandInTailchat, url: str) -> None:
        self.found = found
        self.tailchat = tailchat
        self.url = url

    async def many(self, target: str, **fields: str) -> list[Response]:
        """Send a request on many connections at once, which both workers share."""
        port = self.found.gate.port
        data = request_bytes(target, host=urlsplit(self.url).netloc, **fields)
        async with AsyncExitStack() as stack:
            opened = [await stack.enter_async_context(RawClient.connect(port)) for _ in range(24)]
            for client in opened:
                client.send(data)
            return [await client.response() for client in opened]


@asynccontextmanager
async def scene(
    folder: Path,
    upstream: RawUpstream,
    **given: Any,  # noqa: ANN401 - as in gate_process
) -> AsyncIterator[Scene]:
    """Set the scene until the block ends."""
    async with AsyncExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        tailchat_port = free_port()
        api_url = f"http://localhost:{tailchat_port}"
        app = App(CLIENT_ID, CLIENT_SECRET, (f"{url}/oauth2/callback",))
        tailchat = StandInTailchat(api_url, apps=[app])
        await stack.enter_async_context(served(tailchat.app(), tailchat_port))
        about = {"api_url": api_url, "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}
        given = {"tailchat": about, "route": [{"name": "tool", "allow": ["signed-in"]}], **given}
        found = await stack.enter_async_context(
            workers(folder, upstream, sockets=[listening], **given)
        )
        yield Scene(found, tailchat, url)


async def _callbacks(scene: Scene) -> list[Response]:
    """Sign in up to the callback, and send that to both workers at once, several times."""
    async with Visitor() as visitor:
        url = await until_callback(visitor, scene, _LONG)
        cookies = visitor.cookie(scene.url)
    parts = urlsplit(url)
    return await scene.many(f"{parts.path}?{parts.query}", Cookie=cookies, **_FIELDS)


async def test_a_login_and_a_lock_are_those_of_all(tmp_path: Path, upstream: RawUpstream) -> None:
    """A callback that both get is redeemed once; both lead to the page that was wanted.

    A lock is in force in both, and so is its end. Lines longer than a pipe takes at once stay
    whole, however slowly it is read.
    """
    async with AsyncExitStack() as stack:
        reader, writer = os.pipe()
        stack.callback(os.close, reader)
        try:
            command = gate_after(_SLOW)
            one = await stack.enter_async_context(
                scene(tmp_path, upstream, stdout=writer, command=command)
            )
        finally:
            os.close(writer)
        responses = await _callbacks(one)
        assert {response.status for response in responses} == {303}
        # Each worker also tries by itself whether people can sign in, with a code that is none.
        assert one.tailchat.seen["me"].count == 1
        session = cookies_of(responses[0])

        back = responses[0].value("Location").removeprefix(one.url)
        assert back.startswith("/oauth2/back?")
        onward = await one.many(back, Cookie=session, **_FIELDS)
        assert {response.value("Location").removeprefix(one.url) for response in onward} == {_LONG}

        config, person = str(one.found.config), f"sub:{HOSHINO.sub}"
        assert (await asyncio.to_thread(invoke, "lock", person, "-c", config))[0] == 0
        page = request_bytes("/", host=urlsplit(one.url).netloc, Cookie=session)
        await one.found.each_status(page, 403)
        assert (await asyncio.to_thread(invoke, "unlock", person, "-c", config))[0] == 0
        await one.found.each_status(page, 200)

        # 72 lines of some 7 KiB each, which the pipe, of 64 KiB, does not take at once.
        for _ in range(3):
            found = await one.many("/x" + "x" * 4000, Cookie=session, User_Agent="\xe9" * 1000)
            assert {response.status for response in found} == {200}
        await asyncio.to_thread(_read_lines, reader, 72)
        await one.found.end()


def cookies_of(response: Response) -> str:
    """Return the cookies that a response sets, as a browser sends them."""
    return "; ".join(value.partition(";")[0] for value in response.values("Set-Cookie"))


def _read_lines(reader: int, count: int) -> None:
    """Read a log until so many lines of long targets are there; every line has to be whole."""
    rest = b""
    while count > 0:
        data = os.read(reader, 1000)
        assert data
        *lines, rest = (rest + data).split(b"\n")
        count -= sum(json.loads(line)["path"].startswith("/xxx") for line in lines)


@asynccontextmanager
async def _probed(found: Workers) -> AsyncIterator[set[int]]:
    """Ask all the time whether the gate is ready; yields the answers' statuses."""
    statuses: set[int] = set()
    data = request_bytes("/readyz", host="localhost", Connection="close")

    async def probe() -> None:
        while True:
            # One that comes as the old process closes may be lost with it.
            with suppress(OSError, EOFError):
                statuses.add((await ask(found.gate.admin_port, data)).status)

    probing = asyncio.create_task(probe())
    try:
        yield statuses
    finally:
        probing.cancel()
        await asyncio.gather(probing, return_exceptions=True)


async def test_a_probe_that_the_old_parent_answers_last(
    tmp_path: Path, upstream: RawUpstream
) -> None:
    """It gets 200 although the workers have ended, since another parent serves already."""
    file, data = tmp_path / "stopped", request_bytes("/readyz", host="localhost")
    command = gate_after(_STOPPED.format(file=str(file)))
    async with workers(tmp_path, upstream, command=command) as found:
        async with RawClient.connect(found.gate.admin_port) as probe:
            probe.send(data)
            assert (await probe.response()).status == 200
            code, out, err = await run("upgrade", "--config", str(found.config))
            assert (code, err) == (0, "")
            try:
                await until(file.exists, within=60)
                probe.send(data)
                assert (await probe.response()).status == 200
                file.unlink()
                async with asyncio.timeout(END_SECONDS):
                    assert await found.gate.process.wait() == 0
            finally:
                # The new parent waits for the file, too.
                os.kill(int(out.split()[1]), signal.SIGKILL)
        await found.logged("the gate is closed")


async def test_the_manager_hears_of_workers_as_of_one_process(
    tmp_path: Path, upstream: RawUpstream
) -> None:
    """READY once all serve, WATCHDOG, RELOADING, MAINPID of the next parent, and STOPPING.

    Readiness probes hear of no start and no stop in an upgrade.
    """
    manager = Manager(str(tmp_path / "notify"))
    variables = {"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "60000000"}
    pid = 0
    try:
        async with workers(tmp_path, upstream, variables=variables) as found:
            (line,) = found.log("the gate is open")
            assert len(line["workers"]) == 2
            assert manager.states() == ["READY", "WATCHDOG"]
            found.gate.process.send_signal(signal.SIGHUP)
            # A busy machine may take so long that the watchdog is fed again.
            reloaded = ["READY", "RELOADING", "READY"]
            await until(lambda: [s for s in manager.states() if s != "WATCHDOG"] == reloaded)
            async with _probed(found) as statuses:
                code, out, err = await run("upgrade", "--config", str(found.config))
            assert (code, err) == (0, "")
            # The next parent starts for seconds, and answers no probe before it serves.
            assert statuses == {200}
            pid = int(out.split()[1])
            async with asyncio.timeout(END_SECONDS):
                assert await found.gate.process.wait() == 0
            assert (await found.gate.ping()).status == 200
            os.kill(pid, signal.SIGTERM)
            await until(lambda: "STOPPING" in manager.states(), within=60)
            await found.logged("the gate is closed", 2)
    finally:
        manager.socket.close()
    ((ended, told),) = (
        (at, message) for at, message in enumerate(manager.told) if "MAINPID" in message
    )
    assert told["MAINPID"] == str(pid)
    later = {next(iter(message)) for message in manager.told[ended + 1 :]}
    assert later <= {"WATCHDOG", "STOPPING"}
