"""Whether signed-in people notice what happens to gates: reloads, restarts, upgrades, outages.

Two gates with two workers each are behind HAProxy, with Redis, two backends and the stand-in
Tailchat. People who are signed in send requests all the time, others sign in, and meanwhile one
thing after another happens. The run prints every request that failed, and every line of
the audit log that is missing or there twice, with what happened at that moment. It ends with 1
where one of them should not be.
"""

import argparse
import asyncio
import contextlib
import csv
import itertools
import json
import os
import secrets
import signal
import socket
import ssl
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiohttp import web
from login import Person, signed_in_cookies
from mixed_soak import TABLES, Part
from process import BenchError, family, free_port, program

from tailchat_gate.demo.store import App
from tailchat_gate.demo.tailchat import StandInTailchat
from tailchat_gate.demo.users import User

#: Seconds before each event, and how long what is stopped stays away.
QUIET = 3.0
AWAY = 3.0
#: Seconds between an answer and the next request of a reader; a writer waits longer.
PAUSE = 0.002
#: In which a request may fail that was in a process that was killed, and why no gate can help it.
KILLS = frozenset(("worker killed", "gate killed", "backend killed"))

_HERE = Path(__file__).parent
_READERS, _WRITERS, _SIGN_INS, _WEBSOCKETS = 12, 2, 2, 2
_PEOPLE = 20
_START_LIMIT = 400.0
_HAPROXY = """\
global
    stats socket {stats} level admin
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout tunnel 60s
    timeout check 15s
    option redispatch
    retries 3
    # What was sent and not answered at all may be sent again where that changes nothing.
    retry-on conn-failure empty-response
frontend web
    bind 127.0.0.1:{port}
    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Forwarded-Host %[req.hdr(Host)]
    http-request set-header X-Forwarded-Proto http
    default_backend gates
backend gates
    http-request disable-l7-retry unless METH_GET
    option httpchk GET /readyz
    http-check send hdr Host localhost
    default-server inter 200ms fall 2 rise 1
    option allbackups
{servers}
"""
# As deploy/haproxy/several-gates.cfg has them.
_SERVER = """\
    server {name} 127.0.0.1:{port} check port {admin}
    server {name}-unchecked 127.0.0.1:{port} backup
"""
_CONFIG = (
    """\
[server]
public_url = "{url}"
listen = "127.0.0.1:{port}"
admin_listen = "127.0.0.1:{admin}"
trusted_proxies = ["127.0.0.1"]
workers = 2
drain_delay = "1s"
shutdown_timeout = "5s"
[state]
url = "{redis}"
[limits]
client_requests = 100000
[log]
level = "warning"
access_file = "{log}.access"
audit_file = "{log}.audit"
"""
    + TABLES
)


class Gate(Part):
    """A gate, which may be another process after an upgrade."""

    def __init__(self, directory: Path, name: str, values: Mapping[str, str]) -> None:
        self.name = name
        self.port, self.admin = free_port(), free_port()
        self.config = directory / f"{name}.toml"
        self.logs = directory / name
        self._values = {**values, "port": str(self.port), "admin": str(self.admin)}
        self._turn = 0
        self._pid = 0
        command = (sys.executable, "-m", "tailchat_gate", "serve", "-c", str(self.config))
        super().__init__(command, directory / f"{name}.log")

    @property
    def pid(self) -> int:
        """Its process, or its parent of workers."""
        return self._pid or (self.process.pid if self.process else 0)

    def configure(self) -> None:
        """Write a configuration with one route of another name than before."""
        self._turn += 1
        text = _CONFIG.format(turn=self._turn, log=self.logs, **self._values)
        self.config.write_text(text)
        self.config.chmod(0o600)

    def start(self) -> None:
        """Start it."""
        self._pid = 0
        super().start()

    async def run(self, *arguments: str) -> str:
        """Run a command of the gate, which must succeed."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tailchat_gate", *arguments, "-c", str(self.config)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        if process.returncode:
            raise BenchError(f"{arguments}: {err.decode()}")
        return out.decode()

    async def upgrade(self) -> None:
        """Have another process take over, and wait for the end of this one."""
        before, old = self.process, self.pid
        self._pid = int((await self.run("upgrade")).split()[1])
        if before is not None:
            await asyncio.to_thread(before.wait)
            self.process = None
        await _until(lambda: not _lives(old))

    async def end(self) -> None:
        """Have it stop in order."""
        os.kill(self.pid, signal.SIGTERM)
        if self.process is not None:
            await asyncio.to_thread(self.process.wait)
            self.process = None
        await _until(lambda: not _lives(self.pid))

    def workers(self) -> dict[int, str]:
        """The processes of its workers, 0 for none, and what is wrong with each, "" for nothing."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/status", timeout=20) as answer:
            return {one["pid"] or 0: one["problem"] for one in json.load(answer)["workers"]}

    def is_whole(self, *, without: int) -> bool:
        """Whether each of its workers serves, and none of them is the process `without`."""
        workers = self.workers()
        return without not in workers and not any(workers.values())

    def kill(self) -> None:
        """End all of its processes without a word to anybody."""
        for pid in family(self.pid) if self.pid else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        super().kill()


@dataclass(slots=True)
class Scene:
    """What runs, what happens now, and what has come of the requests."""

    url: str
    stats: Path
    people: Sequence[Person]
    gates: Sequence[Gate]
    tools: Sequence[Part]
    redis: Part
    tailchat: "Tailchat"
    pause: float = PAUSE
    now: str = "nothing"
    tally: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    excused: list[str] = field(default_factory=list)
    answered: set[str] = field(default_factory=set)
    begun: int = 0
    ended: bool = False

    def fails(self, kind: str, why: str, identity: str = "") -> None:
        """Note a request that failed."""
        text = f"{self.now}: {kind}: {why} {identity}"
        (self.excused if self.now in KILLS and kind != "GET" else self.failed).append(text)

    async def server_up(self, gate: Gate, *, up: bool = True) -> None:
        """Wait until HAProxy sends requests to a gate, or does not."""

        def is_so() -> bool:
            if up and gate.process is not None and gate.process.poll() is not None:
                raise BenchError(f"{gate.name} has ended: {gate.log.read_text()[-2000:]}")
            return _is_up(self.stats, gate.name) is up

        await _until(is_so)


class Tailchat:
    """The stand-in Tailchat, which can be away."""

    def __init__(self, port: int, app: App, users: Sequence[User]) -> None:
        self.url = f"http://localhost:{port}"
        self._port = port
        self._app = StandInTailchat(self.url, apps=[app], users=users)
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Answer from now on."""
        self._runner = web.AppRunner(self._app.app(), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()

    async def stop(self) -> None:
        """Refuse connections from now on."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None


async def _until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + _START_LIMIT
    while not await asyncio.to_thread(holds):
        if time.monotonic() > end:
            raise BenchError("what was waited for did not happen")
        await asyncio.sleep(0.05)


def _lives(pid: int) -> bool:
    return pid in family(pid) and _state(pid) != "Z"


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def _is_up(stats: Path, name: str) -> bool:
    return any(row["svname"] == name and row["status"].startswith("UP") for row in _servers(stats))


def _servers(stats: Path) -> list[dict[str, str]]:
    """Ask HAProxy (management guide, "show stat")."""
    with socket.socket(socket.AF_UNIX) as asked:
        asked.connect(str(stats))
        asked.sendall(b"show stat\n")
        told = b""
        while data := asked.recv(65_536):
            told += data
    return list(csv.DictReader(told.decode().removeprefix("# ").splitlines()))


async def _watch(at: Scene) -> None:
    """Note when HAProxy takes a gate out, or in again, and why."""
    begun, before = time.monotonic(), ""
    while not at.ended:
        rows = await asyncio.to_thread(_servers, at.stats)
        now = ", ".join(
            f"{row['svname']} {row['status'].split()[0]} ({row['check_status'].removeprefix('* ')})"
            for row in rows
            if row["svname"] in {gate.name for gate in at.gates}
        )
        if now != before:
            print(f"{time.monotonic() - begun:.1f} s, {at.now}: {now}", file=sys.stderr)
        before = now
        await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def scene(directory: Path, count: int) -> AsyncIterator[Scene]:
    """Start everything, with so many gates, until the block ends."""
    port, redis = free_port(), free_port()
    url, stats = f"http://127.0.0.1:{port}", directory / "stats"
    app = App("tc_events", secrets.token_hex(16), (f"{url}/oauth2/callback",))
    people = [Person(f"p{number}@example.com", secrets.token_hex(8)) for number in range(_PEOPLE)]
    users = [
        User(f"{number:024x}", f"person-{number}", one.email, one.password, {"nickname": "星野"})
        for number, one in enumerate(people, 1)
    ]
    # Cookies ignore ports, so Tailchat has another name than the gates.
    tailchat = Tailchat(free_port(), app, users)
    tools = [
        Part((sys.executable, str(_HERE / "tool.py"), str(one)), directory / f"tool-{one}.log")
        for one in (free_port(), free_port())
    ]
    values = {
        "url": url,
        "tailchat": tailchat.url,
        "client": app.client_id,
        "secret": app.client_secret,
        "session": secrets.token_urlsafe(32),
        "redis": f"redis://127.0.0.1:{redis}/0",
        "tools": json.dumps([f"http://127.0.0.1:{one.args[-1]}" for one in tools]),
    }
    gates = [Gate(directory, name, values) for name in ("one", "other")[:count]]
    servers = "".join(_SERVER.format(name=g.name, port=g.port, admin=g.admin) for g in gates)
    (directory / "haproxy.cfg").write_text(_HAPROXY.format(port=port, stats=stats, servers=servers))
    parts = [
        Part(
            (program("redis-server"), "--port", str(redis), "--bind", "127.0.0.1", "--save", ""),
            directory / "redis.log",
        ),
        *tools,
        *gates,
        Part(
            (program("haproxy"), "-db", "-f", str(directory / "haproxy.cfg")),
            directory / "haproxy.log",
        ),
    ]
    found = Scene(url, stats, people, gates, tools, parts[0], tailchat)
    try:
        await tailchat.start()
        for gate in gates:
            gate.configure()
        for part in parts:
            if part not in gates:
                part.start()
        await _until(stats.exists)
        # One after the other: on a busy machine both together may not be in time.
        for gate in gates:
            gate.start()
            await found.server_up(gate)
        yield found
    finally:
        await tailchat.stop()
        for part in reversed(parts):
            part.kill()


# What people do.

Work = Callable[[Scene, dict[str, str], int], Coroutine[None, None, None]]


async def _send(
    at: Scene, client: aiohttp.ClientSession, kind: str, path: str, body: bytes | None
) -> None:
    """Send one request and note what became of it; its id is in the logs, too."""
    identity = secrets.token_hex(10)
    headers = {"X-Request-Id": identity}
    try:
        async with client.request(kind, at.url + path, headers=headers, data=body) as response:
            text = await response.text()
            if response.status != web.HTTPOk.status_code:
                at.fails(kind, f"{response.status} {' '.join(text.split())[:200]}", identity)
                return
    except (aiohttp.ClientError, TimeoutError) as error:
        at.fails(kind, repr(error), identity)
        return
    at.tally[f"{kind} 200"] += 1
    at.answered.add(identity)


async def _read(at: Scene, cookies: dict[str, str], number: int) -> None:
    async with aiohttp.ClientSession(cookies=cookies) as client:
        for turn in itertools.count():
            if at.ended:
                return
            await _send(at, client, "GET", f"/page/{number}/{turn}", None)
            await asyncio.sleep(at.pause)


async def _write(at: Scene, cookies: dict[str, str], number: int) -> None:
    async with aiohttp.ClientSession(cookies=cookies) as client:
        while not at.ended:
            await _send(at, client, "POST", f"/form/{number}", b"x" * 100)
            await asyncio.sleep(5 * at.pause)


async def _sign_in(at: Scene, _: dict[str, str], number: int) -> None:
    """Sign in again and again; one that fails is no request of a signed-in person."""
    for person in itertools.cycle(at.people[number::_SIGN_INS]):
        if at.ended:
            return
        at.begun += 1
        try:
            await signed_in_cookies(f"{at.url}/start", person, ssl.create_default_context())
            at.tally["sign-in done"] += 1
        except BenchError:
            at.tally[f"sign-in failed, {at.now}"] += 1
        await asyncio.sleep(0.1)


async def _speak(at: Scene, cookies: dict[str, str], number: int) -> None:
    """Hold WebSockets; a gate that leaves ends them with 1001, and a page opens another one."""
    async with aiohttp.ClientSession(cookies=cookies) as client:
        while not at.ended:
            try:
                url = f"{at.url}/socket/{number}"
                async with client.ws_connect(url, origin=at.url) as opened:
                    for _ in range(50):
                        try:
                            await opened.send_bytes(b"ping")
                        except ConnectionResetError:  # the end has come meanwhile
                            at.tally[f"WebSocket ended, {at.now}"] += 1
                            break
                        message = await opened.receive(timeout=20)
                        if message.type is not aiohttp.WSMsgType.BINARY:
                            at.tally[f"WebSocket ended with {message.data}, {at.now}"] += 1
                            break
                        await asyncio.sleep(0.02)
                    else:
                        at.tally["WebSocket done"] += 1
            except (aiohttp.ClientError, TimeoutError) as error:
                at.fails("WebSocket", repr(error))


# What happens.


async def _reload(at: Scene) -> None:
    for gate in at.gates:
        await asyncio.to_thread(gate.configure)
        await gate.run("reload")


async def _restart(at: Scene) -> None:
    """Stop and start one gate after the other."""
    for gate in at.gates:
        await gate.end()
        await at.server_up(gate, up=False)
        await asyncio.to_thread(gate.start)
        await at.server_up(gate)


async def _upgrade(at: Scene) -> None:
    for gate in at.gates:
        await gate.upgrade()


async def _without(part: Part) -> None:
    await asyncio.to_thread(part.kill)
    await asyncio.sleep(AWAY)
    await asyncio.to_thread(part.start)


async def _kill_backend(at: Scene) -> None:
    await _without(at.tools[0])
    # The gate has it again with the next check.
    await asyncio.sleep(1)


async def _stop_redis(at: Scene) -> None:
    await _without(at.redis)


async def _freeze_redis(at: Scene) -> None:
    if at.redis.process is not None:
        at.redis.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(AWAY)
        at.redis.process.send_signal(signal.SIGCONT)


async def _stop_tailchat(at: Scene) -> None:
    await at.tailchat.stop()
    await asyncio.sleep(AWAY)
    await at.tailchat.start()


async def _kill_worker(at: Scene) -> None:
    gate = at.gates[0]
    killed = next(iter(gate.workers()))
    os.kill(killed, signal.SIGKILL)
    await _until(lambda: gate.is_whole(without=killed))


async def _kill_gate(at: Scene) -> None:
    gate = at.gates[-1]
    await asyncio.to_thread(gate.kill)
    await at.server_up(gate, up=False)
    await asyncio.to_thread(gate.start)
    await at.server_up(gate)


EVENTS: Mapping[str, Callable[[Scene], Coroutine[None, None, None]]] = {
    "reload": _reload,
    "rolling restart": _restart,
    "upgrade": _upgrade,
    "backend killed": _kill_backend,
    "Redis stopped": _stop_redis,
    "Redis frozen": _freeze_redis,
    "Tailchat stopped": _stop_tailchat,
    "worker killed": _kill_worker,
    "gate killed": _kill_gate,
}


async def _happen(at: Scene, chosen: Sequence[str], quiet: float) -> None:
    for name in chosen:
        at.now = "nothing"
        await asyncio.sleep(quiet)
        at.now = name
        since = time.monotonic()
        await EVENTS[name](at)
        at.tally[f"{name}, in tenths of a second"] = round(10 * (time.monotonic() - since))
    await asyncio.sleep(quiet)
    at.now = "nothing"
    await asyncio.sleep(quiet)
    at.ended = True


# What the logs say.


def _lines(at: Scene, kind: str) -> Iterator[dict[str, object]]:
    for gate in at.gates:
        for number, line in enumerate(Path(f"{gate.logs}.{kind}").read_text().splitlines(), 1):
            try:
                yield json.loads(line)
            except ValueError:
                at.failed.append(f"line {number} of the {kind} log is torn: {line[:200]}")


def _judge_logs(at: Scene, chosen: Sequence[str]) -> None:
    sign_ins = Counter(
        str(line["request_id"]) for line in _lines(at, "audit") if line["event"] == "signed-in"
    )
    for identity, count in sign_ins.items():
        if count > 1:
            at.failed.append(f"the audit log has sign-in {identity} {count} times")
    done = at.tally["sign-in done"] + _READERS
    at.tally["sign-ins in the audit log"] = len(sign_ins)
    if not done <= len(sign_ins) <= at.begun + _READERS:
        at.failed.append(f"the audit log has {len(sign_ins)} sign-ins, of {done} that were done")
    logged = Counter(str(line["id"]) for line in _lines(at, "access"))
    lost = [identity for identity in at.answered if not logged[identity]]
    twice = [identity for identity in at.answered if logged[identity] > 1]
    at.tally["access lines lost"], at.tally["access lines twice"] = len(lost), len(twice)
    # A process that is killed takes lines with it; what it had not answered is sent again.
    if not KILLS & frozenset(chosen) and (lost or twice):
        at.failed.append(f"the access log lacks {lost[:5]} and has {twice[:5]} twice")


async def run(chosen: Sequence[str], quiet: float, count: int, pause: float) -> Scene:
    """Let the chosen events happen to so many gates, with `quiet` seconds before each.

    `pause`: seconds between the requests of a reader.
    """
    with tempfile.TemporaryDirectory(prefix="gate-events-") as name:
        async with scene(Path(name), count) as at:
            at.pause = pause
            trust = ssl.create_default_context()
            cookies = [
                await signed_in_cookies(f"{at.url}/", one, trust) for one in at.people[:_READERS]
            ]
            kinds: list[tuple[Work, int]] = [
                (_read, _READERS),
                (_write, _WRITERS),
                (_sign_in, _SIGN_INS),
                (_speak, _WEBSOCKETS),
            ]
            async with asyncio.TaskGroup() as group:
                for work, clients in kinds:
                    for number in range(clients):
                        group.create_task(work(at, cookies[number], number))
                group.create_task(_happen(at, chosen, quiet))
                group.create_task(_watch(at))
            for gate in at.gates:
                await gate.end()
            await asyncio.to_thread(_judge_logs, at, chosen)
            for gate in at.gates:
                await asyncio.to_thread(_keep, gate.log)
            return at


def _keep(log: Path) -> None:
    """Show the errors of a gate, which are not always faults: it says what was away."""
    for line in log.read_text().splitlines():
        if '"error"' in line or "Traceback" in line:
            print(f"{log.stem}: {line[:300]}", file=sys.stderr)


def main() -> int:
    """Run from the command line; 1 where a request failed that should not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", default=",".join(EVENTS), help="which, with commas between")
    parser.add_argument("--quiet", type=float, default=QUIET, help="seconds before each (3)")
    parser.add_argument(
        "--pause", type=float, default=PAUSE, help="seconds between requests (0.002)"
    )
    parser.add_argument("--gates", type=int, choices=(1, 2), default=2, help="how many (2)")
    options = parser.parse_args()
    chosen = options.events.split(",")
    if not 0 <= options.quiet <= 600 or not set(chosen) <= EVENTS.keys():  # noqa: PLR2004 - bound
        parser.error(f"--quiet: ten minutes at most; --events: of {', '.join(EVENTS)}")
    begun = time.monotonic()
    at = asyncio.run(run(chosen, options.quiet, options.gates, options.pause))
    print(f"- seconds: {time.monotonic() - begun:.0f}")
    print("\n".join(f"- {name}: {count:,}" for name, count in sorted(at.tally.items())))
    print(f"- requests that failed in a process that was killed: {len(at.excused)}")
    print("".join(f"  {text}\n" for text in at.excused[:20]), end="")
    print(f"- requests and lines that failed: {len(at.failed)}")
    print("".join(f"  {text}\n" for text in at.failed[:40]), end="")
    return 1 if at.failed else 0


if __name__ == "__main__":
    sys.exit(main())
