"""The plain proxies, each with a fair configuration: started, and ended with the block."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType

import caddy
import envoy
import haproxy
import traefik
from measure import Peer, Session
from nginx import nginx, proxy
from process import program, running, wait_until_answering
from roster import BY_TLS
from scene import Scene

POOL = 1024
"""How many upstream connections a proxy keeps, where it has a setting for that."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A peer to start: the name of its files, the ports around it, the connections it gets.

    `threads`: how many it works with, where it has a setting for that; 0: its default.
    """

    scene: Scene
    name: str
    file: str
    upstream: int
    port: int
    room: int
    admin: int
    threads: int

    @property
    def origin(self) -> str:
        """Where it will listen."""
        if self.name in BY_TLS:
            return f"https://localhost:{self.port}"
        return f"http://127.0.0.1:{self.port}"

    @property
    def metrics(self) -> str:
        """Where its metrics will be read."""
        path = "/stats/prometheus" if self.name == "envoy" else "/metrics"
        return f"http://127.0.0.1:{self.admin}{path}"

    @property
    def log(self) -> Path:
        """Its access log."""
        return self.scene.directory / f"{self.file}-access.log"

    @property
    def output(self) -> Path:
        """What else it writes."""
        return self.scene.directory / f"{self.file}.log"

    @property
    def cores(self) -> int:
        """How many threads it works with."""
        return self.threads or len(os.sched_getaffinity(0))

    def config(self, end: str) -> Path:
        """The path of a file of its configuration."""
        return self.scene.directory / f"{self.file}.{end}"

    def peer(self, pid: int, session: Session) -> Peer:
        """It, running."""
        return Peer(self.name, self.origin, (pid,), (self.log,), self.metrics, session)


def golang(wanted: Wanted, env: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program in Go with this number of threads."""
    return {**env, "GOMAXPROCS": str(wanted.threads)} if wanted.threads else dict(env)


@contextlib.contextmanager
def run_nginx(wanted: Wanted, http: str) -> Iterator[int]:
    """Run nginx with these directives; yields its process id."""
    scene = wanted.scene
    # Each visitor takes two connections: its own and one to the tool.
    connections = min(2 * wanted.room + 512, scene.files - 64)
    with nginx(scene.directory, wanted.file, http, connections=connections) as (pid, output):
        wait_until_answering(pid, f"{wanted.origin}/", output)
        yield pid


@contextlib.contextmanager
def run_caddy(wanted: Wanted, asked: int = 0) -> Iterator[int]:
    """Run Caddy, which asks the gate on the port `asked` where that is not 0."""
    directory, config = wanted.scene.directory, wanted.config("Caddyfile")
    config.write_text(
        caddy.caddyfile(
            directory,
            port=wanted.port,
            admin=wanted.admin,
            upstream=wanted.upstream,
            pool=POOL,
            log=wanted.log,
            gate=asked,
            tls=wanted.scene.provider.pair if wanted.name in BY_TLS else None,
        )
    )
    args = [program("caddy"), "run", "--config", str(config), "--adapter", "caddyfile"]
    env = golang(wanted, caddy.environment(directory))
    with running(args, output=wanted.output, env=env) as pid:
        wait_until_answering(pid, f"{wanted.origin}/", wanted.output)
        yield pid


def _nginx(wanted: Wanted) -> AbstractContextManager[int]:
    http = proxy(
        port=wanted.port,
        admin=wanted.admin,
        upstream=wanted.upstream,
        pool=POOL,
        log=wanted.log,
        websockets=wanted.upstream == wanted.scene.tool,
    )
    return run_nginx(wanted, http)


@contextlib.contextmanager
def _haproxy(wanted: Wanted) -> Iterator[int]:
    config = wanted.config("cfg")
    config.write_text(
        haproxy.configuration(
            port=wanted.port,
            admin=wanted.admin,
            upstream=wanted.upstream,
            pool=POOL,
            connections=wanted.room + 512,
            threads=wanted.cores,
        )
    )
    args = [program("haproxy"), "-db", "-f", str(config)]
    with running(args, output=wanted.log, errors=wanted.output) as pid:
        wait_until_answering(pid, f"{wanted.origin}/", wanted.output)
        yield pid


@contextlib.contextmanager
def _envoy(wanted: Wanted) -> Iterator[int]:
    config = wanted.config("json")
    config.write_text(
        envoy.configuration(
            port=wanted.port, admin=wanted.admin, upstream=wanted.upstream, log=wanted.log
        )
    )
    args = envoy.arguments(program("envoy"), config, wanted.cores)
    with running(args, output=wanted.output) as pid:
        wait_until_answering(pid, f"{wanted.origin}/", wanted.output)
        yield pid


@contextlib.contextmanager
def _traefik(wanted: Wanted) -> Iterator[int]:
    config, routes = wanted.config("yaml"), wanted.config("routes.yaml")
    routes.write_text(traefik.routing(wanted.upstream))
    config.write_text(
        traefik.configuration(
            port=wanted.port, admin=wanted.admin, pool=POOL, log=wanted.log, routes=routes
        )
    )
    args = [program("traefik"), f"--configFile={config}"]
    with running(args, output=wanted.output, env=golang(wanted, os.environ)) as pid:
        # It listens before it has read the routes.
        for url in (f"{wanted.origin}/", wanted.metrics):
            wait_until_answering(pid, url, wanted.output, unready=HTTPStatus.NOT_FOUND)
        yield pid


PROXIES: Mapping[str, Callable[[Wanted], AbstractContextManager[int]]] = MappingProxyType(
    {
        "nginx": _nginx,
        "haproxy": _haproxy,
        "envoy": _envoy,
        "caddy": run_caddy,
        "caddy-tls": run_caddy,
        "traefik": _traefik,
    }
)
"""How each is started; the block gets its process id."""
