"""Whether memory stays flat for hours: one gate under all kinds of work, while parts of it fail.

GETs that all differ, strangers, sign-ins and WebSockets, without a pause or with one; meanwhile the
gate is reloaded, one of two backends is killed and started again, and so is Redis, where it is
installed. The gate is one process, or a parent with workers; each has its own column.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import aiohttp
from aiohttp import web
from login import Person, signed_in_cookies
from process import BenchError, family, free_port, wait_until_answering

from tailchat_gate.demo.store import App
from tailchat_gate.demo.tailchat import StandInTailchat
from tailchat_gate.demo.users import User

GROWTH = 8.0
"""MiB that the gate may have grown by, from the first quarter's largest reading to the last's."""

_HERE = Path(__file__).parent
_READERS, _STRANGERS, _SIGN_INS, _WEBSOCKETS = 8, 2, 2, 4
_FRAMES = 20
_PEOPLE = 20
_READING = 2.0
_DOWN = 2.0
_ONCE = ("GET 200", "stranger 401", "sign-in done", "WebSocket done")
#: Seconds between two disturbances.
_QUIET = 6.0
#: What the configurations of both long runs have.
TABLES = """\
[tailchat]
api_url = "{tailchat}"
client_id = "{client}"
client_secret = "{secret}"
[session]
secret = "{session}"
[[route]]
name = "tool"
upstream = {tools}
health = {{ path = "/healthz", interval = "1s" }}
[[route]]
name = "extra-{turn}"
path = "/extra-{turn}"
upstream = "static:204"
"""
_CONFIG = (
    """\
[server]
public_url = "{url}"
listen = "{listen}"
admin_listen = "{admin}"
workers = {workers}
[state]
{state}
[log]
level = "warning"
"""
    + TABLES
)


@dataclass(slots=True)
class Part:
    """A program that is killed and started again."""

    args: Sequence[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(self.args, stdout=out, stderr=out, cwd=self.log.parent)

    def kill(self) -> None:
        """End it without a word to anybody."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


class Reading(NamedTuple):
    """The resident bytes of each process after some seconds, and the open files of all."""

    seconds: float
    rss: Mapping[int, int]
    files: int


@dataclass(slots=True)
class Scene:
    """What runs: where the gate is, its parts, and what has come of the work."""

    directory: Path
    url: str
    values: dict[str, str]
    people: list[Person]
    gate: Part
    tools: list[Part]
    redis: Part | None
    tally: Counter[str] = field(default_factory=Counter)
    readings: "list[Reading]" = field(default_factory=list)
    pause: float = 0.0
    ended: bool = False
    turn: int = 0

    @property
    def pid(self) -> int:
        """The gate's process."""
        if self.gate.process is None or self.gate.process.poll() is not None:
            raise BenchError(f"the gate has ended: {self.gate.log.read_text()[-2000:]}")
        return self.gate.process.pid

    def configure(self) -> None:
        """Write a configuration with one route of another name than before."""
        self.turn += 1
        path = self.directory / "config.toml"
        path.write_text(_CONFIG.format(turn=self.turn, **self.values))
        path.chmod(0o600)


def _state(directory: Path) -> tuple[str, Part | None]:
    server = shutil.which("redis-server")
    if server is None:
        return f'path = "{directory}"', None
    port = free_port()
    args = (server, "--port", str(port), "--bind", "127.0.0.1", "--save", "")
    return f'url = "redis://127.0.0.1:{port}/0"', Part(args, directory / "redis.log")


@contextlib.asynccontextmanager
async def scene(directory: Path, workers: int) -> AsyncIterator[Scene]:
    """Start everything until the block ends."""
    port, admin, tailchat = free_port(), free_port(), free_port()
    url = f"http://127.0.0.1:{port}"
    # Cookies ignore ports, so Tailchat has another name than the gate.
    tailchat_url = f"http://localhost:{tailchat}"
    app = App("tc_soak", secrets.token_hex(16), (f"{url}/oauth2/callback",))
    people = [Person(f"p{number}@example.com", secrets.token_hex(8)) for number in range(_PEOPLE)]
    users = [
        User(f"{number:024x}", f"person-{number}", one.email, one.password, {"nickname": "星野"})
        for number, one in enumerate(people, 1)
    ]
    state, redis = await asyncio.to_thread(_state, directory)
    ports = [free_port() for _ in range(2)]
    tools = [
        Part((sys.executable, str(_HERE / "tool.py"), str(one)), directory / f"tool-{one}.log")
        for one in ports
    ]
    values = {
        "url": url,
        "listen": f"127.0.0.1:{port}",
        "admin": f"127.0.0.1:{admin}",
        "tailchat": tailchat_url,
        "client": app.client_id,
        "secret": app.client_secret,
        "session": secrets.token_urlsafe(32),
        "state": state,
        "workers": str(workers),
        "tools": json.dumps([f"http://127.0.0.1:{one}" for one in ports]),
    }
    gate = Part(
        (sys.executable, "-m", "tailchat_gate", "serve", "-c", str(directory / "config.toml")),
        directory / "gate.log",
    )
    found = Scene(directory, url, values, people, gate, tools, redis)
    runner = web.AppRunner(StandInTailchat(tailchat_url, apps=[app], users=users).app())
    try:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", tailchat).start()
        found.configure()
        for part in (*tools, *([redis] if redis else []), gate):
            part.start()
        await asyncio.to_thread(wait_until_answering, found.pid, f"{url}/ping", gate.log)
        yield found
    finally:
        await runner.cleanup()
        for part in (gate, *tools, *([redis] if redis else [])):
            part.kill()


async def _read(at: Scene, cookies: dict[str, str], number: int) -> None:
    """Send GETs that all differ."""
    async with aiohttp.ClientSession(cookies=cookies) as client:
        for turn in itertools.count():
            if at.ended:
                return
            path = f"/page/{number}/{turn}?q={secrets.token_hex(8)}"
            headers = {"Referer": f"{at.url}/{turn}", "X-Request-Id": secrets.token_hex(8)}
            async with client.get(at.url + path, headers=headers) as response:
                await response.read()
                at.tally[f"GET {response.status}"] += 1
            await asyncio.sleep(at.pause)


async def _ask_as_stranger(at: Scene, _: dict[str, str], number: int) -> None:
    """Ask for pages without a session, each with a cookie that is none."""
    async with aiohttp.ClientSession() as client:
        while not at.ended:
            path = f"/{number}/{secrets.token_hex(6)}"
            headers = {"Cookie": f"tailchat_gate={secrets.token_urlsafe(200)}", "Accept": "*/*"}
            async with client.get(at.url + path, headers=headers) as response:
                await response.read()
                at.tally[f"stranger {response.status}"] += 1
            await asyncio.sleep(0.01 + at.pause)


async def _sign_in(at: Scene, _: dict[str, str], number: int) -> None:
    """Sign in again and again, as one person after another."""
    for person in itertools.cycle(at.people[number::_SIGN_INS]):
        if at.ended:
            return
        try:
            await signed_in_cookies(f"{at.url}/start", person, ssl.create_default_context())
            at.tally["sign-in done"] += 1
        except BenchError as problem:
            at.tally["sign-in refused"] += 1
            (at.directory / "refused.log").open("a").write(f"{problem}\n")
        await asyncio.sleep(0.1 + at.pause)


async def _speak(at: Scene, cookies: dict[str, str], number: int) -> None:
    """Open WebSockets, one after another, and have frames echoed."""
    async with aiohttp.ClientSession(cookies=cookies) as client:
        while not at.ended:
            async with client.ws_connect(f"{at.url}/socket/{number}", origin=at.url) as socket:
                for _ in range(_FRAMES):
                    await socket.send_bytes(secrets.token_bytes(32))
                    message = await socket.receive(timeout=20)
                    if message.type is not aiohttp.WSMsgType.BINARY:
                        at.tally["WebSocket ended early"] += 1
                        break
                    await asyncio.sleep(0.01)
                else:
                    at.tally["WebSocket done"] += 1


Work = Callable[[Scene, dict[str, str], int], Awaitable[None]]


async def _again(work: Work, at: Scene, cookies: dict[str, str], number: int) -> None:
    """Do a work until the end; a connection that fails is counted, and another is opened."""
    while not at.ended:
        try:
            await work(at, cookies, number)
        except (aiohttp.ClientError, TimeoutError) as error:
            at.tally[f"{work.__name__[1:]} {type(error).__name__}"] += 1
            await asyncio.sleep(0.1)


async def _disturb(at: Scene) -> None:
    """Reload, kill a backend, stop Redis, in turn, each after a while without any."""
    for turn in itertools.count():
        await asyncio.sleep(_QUIET)
        if at.ended:
            return
        kind = turn % 3
        if kind == 0:
            await asyncio.to_thread(at.configure)
            os.kill(at.pid, signal.SIGHUP)
            at.tally["reloads"] += 1
            continue
        part = at.tools[turn % 2] if kind == 1 else at.redis
        if part is not None:
            await asyncio.to_thread(part.kill)
            await asyncio.sleep(_DOWN)
            await asyncio.to_thread(part.start)
            at.tally["backends killed" if kind == 1 else "stores stopped"] += 1


async def _watch(at: Scene, end: float) -> None:
    """Read memory and open files until the end, and until each kind of work was done once."""
    begun = time.monotonic()
    while (now := time.monotonic()) < end or not all(at.tally[one] for one in _ONCE):
        at.readings.append(await asyncio.to_thread(_reading, at.pid, now - begun))
        await asyncio.sleep(min(_READING, max(0.1, end - now)))
    at.ended = True


def _reading(pid: int, seconds: float) -> Reading:
    found = family(pid)
    files = sum(len([*Path(f"/proc/{one}/fd").iterdir()]) for one in found)
    return Reading(seconds, {one: stat.rss for one, stat in sorted(found.items())}, files)


async def run(minutes: float, workers: int, pause: float) -> Scene:
    """Do all of it for so many minutes, with `pause` seconds after each request."""
    with tempfile.TemporaryDirectory(prefix="gate-soak-") as name:
        async with scene(Path(name), workers) as at:
            at.pause = pause
            trust = ssl.create_default_context()
            cookies = [await signed_in_cookies(f"{at.url}/", one, trust) for one in at.people[:8]]
            kinds: list[tuple[Work, int]] = [
                (_read, _READERS),
                (_ask_as_stranger, _STRANGERS),
                (_sign_in, _SIGN_INS),
                (_speak, _WEBSOCKETS),
            ]
            async with asyncio.TaskGroup() as group:
                for work, count in kinds:
                    for number in range(count):
                        group.create_task(_again(work, at, cookies[number % 8], number))
                group.create_task(_disturb(at))
                group.create_task(_watch(at, time.monotonic() + minutes * 60))
            refused = Path(name) / "refused.log"
            if refused.exists():
                print(refused.read_text()[-1500:], file=sys.stderr)
            return at


def growth_mib(readings: Sequence[Reading]) -> float:
    """How much larger the largest reading of the last quarter is than that of the first."""
    quarter = max(1, len(readings) // 4)
    first, last = readings[:quarter], readings[-quarter:]
    return (max(map(_all, last)) - max(map(_all, first))) / 2**20


def _all(reading: Reading) -> int:
    return sum(reading.rss.values())


def failed(tally: Mapping[str, int]) -> int:
    """How many requests had neither of the two responses that they should have."""
    good = {"GET 200", "stranger 401"}
    kinds = ("GET ", "stranger ", "read ", "ask_as_stranger ", "speak ", "WebSocket ended")
    return sum(n for name, n in tally.items() if name.startswith(kinds) and name not in good)


def lines(at: Scene) -> Iterator[str]:
    """What is printed."""
    pids = at.readings[-1].rss
    names = (f"RSS MiB of {one}" for one in _names(len(pids)))
    yield f"| minute | {' | '.join(names)} | open files |"
    yield "| ---: |" + " ---: |" * (len(pids) + 1)
    step = max(1, len(at.readings) // 30)
    for reading in (*at.readings[::step], at.readings[-1]):
        each = " | ".join(f"{reading.rss.get(pid, 0) / 2**20:.1f}" for pid in pids)
        yield f"| {reading.seconds / 60:.1f} | {each} | {reading.files} |"
    yield ""
    yield from (f"- {name}: {count:,}" for name, count in sorted(at.tally.items()))
    yield f"- requests that failed: {failed(at.tally):,}"
    yield f"- growth in MiB, last quarter against first: {growth_mib(at.readings):.1f}"


def _names(count: int) -> Iterator[str]:
    yield "the gate" if count == 1 else "the parent"
    yield from (f"worker {number}" for number in range(1, count))


def main() -> int:
    """Run from the command line; 1 where memory grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (30)")
    parser.add_argument("--workers", type=int, choices=range(1, 9), default=1, help="(1)")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds after a request (0)")
    options = parser.parse_args()
    if not 0 < options.minutes <= 24 * 60 or not 0 <= options.pause <= 60:  # noqa: PLR2004 - bound
        parser.error("--minutes: a day at most; --pause: a minute at most")
    at = asyncio.run(run(options.minutes, options.workers, options.pause))
    print("\n".join(lines(at)))
    return 0 if growth_mib(at.readings) <= GROWTH else 1


if __name__ == "__main__":
    sys.exit(main())
