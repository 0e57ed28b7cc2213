"""For the tests of the benchmark: servers to load, samples, and which processes run."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import measure
import process
import roster
from parts import missing


def sampled(cpu_us: float, p99_ms: float = 1.0) -> measure.Sample:
    """A sample in which only these two figures matter."""
    return {"cpu_us": cpu_us, "rate": 1.0, "p50_ms": 1.0, "p99_ms": p99_ms, "rss_mib": 1.0}


@dataclass(slots=True)
class Heard:
    """The heads that a server of a test received, and from how many connections."""

    origin: str
    heads: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    connections: int = 0
    session: measure.Session = field(default_factory=lambda: measure.Session({"mine": "1"}))

    def of_load(self) -> list[dict[str, str]]:
        """The heads of a load, without those of the request before it and the one after it.

        The latter need not be the last one: each connection has a thread.
        """
        own = "Python-urllib"
        return [one for one in self.heads if not one.get("user-agent", "").startswith(own)]

    def peer(self, *logs: Path) -> measure.Peer:
        """The server as a peer."""
        return measure.Peer("server", self.origin, (os.getpid(),), logs, "", self.session)


@contextmanager
def serving(status: int = 200, answer: bytes = b"right", set_cookie: str = "") -> Iterator[Heard]:
    """A server that always answers the same, and remembers what it was asked."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # The head and the body are two writes, and the second must not wait for an answer.
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            heard.connections += 1

        def response(self) -> None:
            head = {name.lower(): value for name, value in self.headers.items()}
            heard.heads.append({"target": self.path} | head)
            heard.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", "0"))))
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            if set_cookie:
                self.send_header("Set-Cookie", set_cookie)
            if self.headers.get("Connection") == "close":
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_PUT = response  # noqa: N815 - the base class calls them so

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A load ends with connections cut."""

    with Server(("127.0.0.1", 0), Handler) as server:
        heard = Heard(f"http://127.0.0.1:{server.server_address[1]}")
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield heard
        finally:
            server.shutdown()
            thread.join()


def loaded(heard: Heard, ask: measure.Ask, seed: int = 0) -> measure.Sample:
    """Load a server over two connections, for a hundred answers."""
    needs("wrk")
    return measure.measure(heard.peer(), ask, seconds=20, connections=2, seed=seed, count=100)


def needs(*programs: str) -> None:
    """Skip, or in CI fail, where a program of the harness is missing."""
    try:
        for name in programs:
            process.program(name)
    except process.BenchError as problem:
        missing(str(problem))


def needs_peers(folder: Path, *peers: str) -> None:
    """Skip, or in CI fail, where a program of the harness or a peer is missing."""
    try:
        for name in ("nginx", "wrk"):
            process.program(name)
    except process.BenchError as problem:
        missing(str(problem))
    for name, reason in roster.absent(folder, None).items():
        if name in peers:
            missing(f"{name} ({reason})")


def wait_for(output: Path, words: str) -> None:
    """Return when a program has written something; the test's time limit ends the wait."""
    while words not in output.read_text():
        time.sleep(0.01)


def stat_of(pid: int) -> str:
    """The line of /proc/<pid>/stat."""
    return Path(f"/proc/{pid}/stat").read_text()


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        text = stat_of(pid)
    except OSError:
        return False
    return text[text.rindex(")") + 2] not in "ZX"
