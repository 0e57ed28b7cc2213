"""The proxies under measurement, each with a fair configuration, started when first asked for."""

import asyncio
import contextlib
import json
import secrets
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from http import HTTPStatus
from pathlib import Path

import apache
import gate
from certificate import make_signing_key
from login import Person, signed_in_cookies
from measure import Peer, Session
from nginx import auth_request
from oauth2_proxy import configuration as oauth2_proxy_configuration
from plain import POOL, PROXIES, Wanted, golang, run_caddy, run_nginx
from process import (
    BenchError,
    fetch,
    finished,
    free_port,
    program,
    running,
    wait_until_answering,
)
from roster import OWN_SESSIONS, PLAIN
from scene import EMAIL, SUB, Scene, environment
from sealing import seal

_ROOM = 2048
_LOCKS = Path(__file__).with_name("locked.py")
_LOCKED = 1000


class Stage:
    """All peers of a run; one that is asked for twice is started once.

    `load`: how many connections a load has. `threads`: how many a peer works with, 0 as it comes.
    `oauth2_proxy`: its binary, where there is one.
    """

    def __init__(
        self,
        scene: Scene,
        stack: contextlib.ExitStack,
        *,
        load: int = 32,
        threads: int = 1,
        oauth2_proxy: Path | None = None,
    ) -> None:
        self.scene = scene
        self._stack = stack
        self._load = load
        self._threads = threads
        self._oauth2_proxy = oauth2_proxy
        self._started: dict[tuple[str, str], Peer] = {}
        self._session: Session | None = None
        self._count = 0

    def peer(self, name: str, upstream: str = "web") -> Peer:
        """The peer of this name in front of the upstream "web" or "tool"; it lives on."""
        if name in OWN_SESSIONS:
            # These are before both, because the provider knows one address of each.
            upstream = "web"
        key = (name, upstream)
        if key not in self._started:
            port = self.scene.ports.get(name) if upstream == "web" else None
            starting = self._run(name, upstream, _ROOM, port or free_port())
            self._started[key] = self._stack.enter_context(starting)
        return self._started[key]

    def fresh(self, name: str, upstream: str, room: int) -> AbstractContextManager[Peer]:
        """A process of its own for the length of the block, which takes `room` connections."""
        return self._run(name, upstream, room, free_port())

    def session(self) -> Session:
        """The session of the gate, after a real sign-in; the plain proxies get it too."""
        if self._session is None:
            # All gates of the run share their secret and host name, and so the session.
            return self.peer("gate").session
        return self._session

    @contextlib.contextmanager
    def _run(self, name: str, upstream: str, room: int, port: int) -> Iterator[Peer]:
        self._count += 1
        file, tool = f"{name}-{self._count}", self.scene.upstream(upstream)
        wanted = Wanted(
            self.scene, name, file, tool, port, room, free_port(), threads=self._threads
        )
        starters: dict[str, Callable[[Wanted], AbstractContextManager[Peer]]] = {
            **dict.fromkeys(PLAIN, self._plain),
            "caddy-tls": self._plain_tls,
            "caddy-forward-auth": self._caddy_forward_auth,
            "mod_auth_openidc": self._mod_auth_openidc,
            "nginx-auth-request": self._nginx_auth_request,
            "oauth2-proxy": self._oauth2_proxy_peer,
        }
        with starters.get(name, self._gate)(wanted) as peer:
            if name not in PLAIN and name != "caddy-tls":
                _prove_closed(peer)
            if fetch(peer.metrics).status != HTTPStatus.OK:
                raise BenchError(f"the metrics of {name} do not answer")
            yield peer

    # How each is started.

    @contextlib.contextmanager
    def _plain(self, wanted: Wanted) -> Iterator[Peer]:
        with PROXIES[wanted.name](wanted) as pid:
            yield wanted.peer(pid, self.session())

    @contextlib.contextmanager
    def _plain_tls(self, wanted: Wanted) -> Iterator[Peer]:
        with PROXIES[wanted.name](wanted) as pid:
            yield wanted.peer(pid, self._sealed(wanted))

    def _sealed(self, wanted: Wanted) -> Session:
        """A session of a gate at this origin, without a sign-in: its cookie has another name."""
        file = wanted.config("cookie")
        seal(self.scene, wanted.origin, file, 1)
        name, _, value = file.read_text().strip().partition("=")
        return Session({name: value})

    @contextlib.contextmanager
    def _nginx_auth_request(self, wanted: Wanted) -> Iterator[Peer]:
        asked = self.peer(gate.ASKED)
        http = auth_request(
            port=wanted.port,
            admin=wanted.admin,
            upstream=wanted.upstream,
            gate=_port(asked),
            pool=POOL,
            log=wanted.log,
        )
        with run_nginx(wanted, http) as pid:
            yield _in_front_of(asked, wanted, pid)

    @contextlib.contextmanager
    def _caddy_forward_auth(self, wanted: Wanted) -> Iterator[Peer]:
        asked = self.peer(gate.ASKED)
        with run_caddy(wanted, _port(asked)) as pid:
            yield _in_front_of(asked, wanted, pid)

    @contextlib.contextmanager
    def _mod_auth_openidc(self, wanted: Wanted) -> Iterator[Peer]:
        scene = self.scene
        config = wanted.config("conf")
        config.write_text(
            apache.configuration(
                self._load,
                directory=scene.directory,
                port=wanted.port,
                admin=wanted.admin,
                web=scene.web,
                tool=scene.tool,
                log=wanted.log,
                provider=scene.provider.tls_origin,
                authority=scene.provider.authority,
                client=scene.provider.client,
                client_secret=scene.provider.client_secret,
                secret=secrets.token_hex(32),
            )
        )
        args = [program("apache2"), "-D", "FOREGROUND", "-f", str(config)]
        with running(args, output=wanted.output) as pid:
            wait_until_answering(pid, f"{wanted.origin}/", wanted.output)
            yield wanted.peer(pid, self._signed_in(f"{wanted.origin}/", wanted.output))

    @contextlib.contextmanager
    def _oauth2_proxy_peer(self, wanted: Wanted) -> Iterator[Peer]:
        scene = self.scene
        config = wanted.config("cfg")
        config.write_text(
            oauth2_proxy_configuration(
                port=wanted.port,
                admin=wanted.admin,
                web=scene.web,
                tool=scene.tool,
                origin=wanted.origin,
                provider=scene.provider.tls_origin,
                authority=scene.provider.authority,
                client=scene.provider.client,
                client_secret=scene.provider.client_secret,
                secret=secrets.token_hex(16),
            )
        )
        args = [str(self._oauth2_proxy), "--config", str(config)]
        env = golang(wanted, environment())
        with running(args, output=wanted.log, errors=wanted.output, env=env) as pid:
            wait_until_answering(pid, f"{wanted.origin}/ping", wanted.output)
            session = self._signed_in(f"{wanted.origin}/oauth2/start", wanted.output)
            yield wanted.peer(pid, session)

    @contextlib.contextmanager
    def _gate(self, wanted: Wanted) -> Iterator[Peer]:
        scene = self.scene
        config, key, state = (wanted.config(end) for end in ("toml", "pem", "state"))
        state.mkdir(mode=0o700, exist_ok=True)
        if wanted.name == gate.POLICY:
            make_signing_key(key)
            order = json.dumps({"count": _LOCKED, "sub": SUB, "directory": str(state)})
            finished([scene.python, str(_LOCKS)], limit=60, given=order)
        by_tls = wanted.name == gate.TLS
        config.write_text(
            gate.configuration(
                wanted.name,
                gate.Around(wanted.upstream, SUB, key),
                (wanted.port, *scene.provider.pair) if by_tls else None,
                port=free_port() if by_tls else wanted.port,
                origin=wanted.origin,
                admin=wanted.admin,
                tailchat=scene.provider.origin,
                client=scene.provider.client,
                client_secret=scene.provider.client_secret,
                secret=scene.secret,
                state=state,
            )
        )
        args = [scene.python, "-m", "tailchat_gate", "serve", "--config", str(config)]
        with running(args, output=wanted.log, errors=wanted.output, env=environment()) as pid:
            # Its admin listener opens after all others.
            wait_until_answering(pid, wanted.metrics, wanted.output)
            if wanted.port == scene.ports["gate"]:
                self._session = self._signed_in(f"{wanted.origin}/oauth2/start", wanted.output)
            yield wanted.peer(pid, self._sealed(wanted) if by_tls else self.session())

    # What they have in common.

    def _signed_in(self, start: str, output: Path) -> Session:
        person = Person(EMAIL, self.scene.provider.password)
        trust = ssl.create_default_context(cafile=self.scene.provider.authority)
        try:
            return Session(asyncio.run(signed_in_cookies(start, person, trust)))
        except BenchError as problem:
            words = output.read_text(errors="replace")[-2000:]
            raise BenchError(f"{problem}\n{output.stem} wrote:\n{words}") from None


def _port(peer: Peer) -> int:
    return int(peer.origin.rpartition(":")[2])


def _in_front_of(asked: Peer, wanted: Wanted, pid: int) -> Peer:
    """An edge that asks the gate: what both cost counts, and both must log."""
    pids, logs = (pid, *asked.pids), (wanted.log, *asked.logs)
    return Peer(wanted.name, wanted.origin, pids, logs, wanted.metrics, asked.session)


def _prove_closed(peer: Peer) -> None:
    """What is measured is shut without a session."""
    status = fetch(f"{peer.origin}/").status
    if status not in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.FOUND}:
        raise BenchError(f"without a session {peer.name} answers {status}")
