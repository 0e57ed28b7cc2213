"""The proxies under measurement, each with a fair configuration, started when first asked for."""

import asyncio
import contextlib
import secrets
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import apache
import caddy
from login import Person, signed_in_cookie
from measure import Peer
from nginx import auth_request, nginx, proxy
from process import BenchError, fetch, free_port, program, running, wait_until_answering
from scene import EMAIL, Scene, environment

NAMES = (
    "nginx",
    "caddy",
    "caddy-forward-auth",
    "mod_auth_openidc",
    "nginx-auth-request",
    "oauth2-proxy",
    "gate",
)
MANY = "gate-1000-routes"
"""A gate with a thousand routes, of which the last is the one that is asked."""

_ROUTES = 1000
_POOL = 1024

_GATE = """\
[server]
listen = "127.0.0.1:{port}"
public_url = "{origin}"
admin_listen = "127.0.0.1:{admin}"

[tailchat]
api_url = "{tailchat}"
client_id = "{client}"
client_secret = "{client_secret}"

[session]
secret = "{secret}"

[log]
access = true
{routes}"""
_ROUTE = """
[[route]]
name = "{name}"
{place}
upstream = "http://127.0.0.1:{upstream}"
"""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A peer to start: the name of its files, the port behind it, the connections it gets."""

    file: str
    upstream: str
    port: int
    room: int


class Stage:
    """All peers of a run; whoever is asked for twice is started once."""

    def __init__(self, scene: Scene, stack: contextlib.ExitStack, oauth2_proxy: str = "") -> None:
        self.scene = scene
        self._stack = stack
        self._oauth2_proxy = oauth2_proxy
        self._started: dict[tuple[str, str], Peer] = {}
        self._cookie = ""
        self._count = 0

    def peer(self, name: str, upstream: str = "web") -> Peer:
        """The peer of this name in front of the upstream "web" or "tool"; it lives on."""
        key = (name, upstream)
        if key not in self._started:
            self._started[key] = self._stack.enter_context(self.fresh(name, upstream))
        return self._started[key]

    @contextlib.contextmanager
    def fresh(self, name: str, upstream: str = "web", room: int = 2048) -> Iterator[Peer]:
        """A new process of its own, for the length of the block and `room` connections."""
        first = not any(started == name for started, _ in self._started)
        port = self.scene.ports.get(name, 0) if first else 0
        self._count += 1
        wanted = _Wanted(f"{name}-{self._count}", upstream, port or free_port(), room)
        starters: dict[str, Callable[[_Wanted], AbstractContextManager[Peer]]] = {
            "nginx": self._nginx,
            "caddy": self._caddy,
            "caddy-forward-auth": self._caddy_forward_auth,
            "mod_auth_openidc": self._mod_auth_openidc,
            "nginx-auth-request": self._nginx_auth_request,
            "oauth2-proxy": self._oauth2_proxy_peer,
            "gate": self._gate,
            MANY: self._gate,
        }
        with starters[name](wanted) as peer:
            if name not in {"nginx", "caddy"}:
                _prove_closed(peer)
            yield peer

    def headers(self) -> tuple[str, ...]:
        """What a visitor of the gate sends, after a real sign-in; the plain proxies get it too."""
        if not self._cookie:
            self.peer("gate")
        return (f"Cookie: {self._cookie}",)

    # How each is started.

    @contextlib.contextmanager
    def _nginx(self, wanted: _Wanted) -> Iterator[Peer]:
        log = self._log(wanted)
        http = proxy(
            port=wanted.port,
            upstream=self.scene.upstream(wanted.upstream),
            pool=_POOL,
            log=log,
            websockets=wanted.upstream == "tool",
        )
        with self._run_nginx(wanted, http) as pid:
            yield Peer("nginx", _origin(wanted), (pid,), (log,), self.headers())

    @contextlib.contextmanager
    def _nginx_auth_request(self, wanted: _Wanted) -> Iterator[Peer]:
        gate, log = self.peer("gate"), self._log(wanted)
        http = auth_request(
            port=wanted.port,
            upstream=self.scene.upstream(wanted.upstream),
            gate=_port(gate),
            pool=_POOL,
            log=log,
        )
        with self._run_nginx(wanted, http) as pid:
            yield _in_front_of(gate, "nginx-auth-request", _origin(wanted), pid, log)

    @contextlib.contextmanager
    def _run_nginx(self, wanted: _Wanted, http: str) -> Iterator[int]:
        # Each visitor takes two connections: its own and one to the tool.
        connections = min(2 * wanted.room + 512, self.scene.files - 64)
        with nginx(self.scene.directory, wanted.file, http, connections=connections) as (
            pid,
            output,
        ):
            wait_until_answering(pid, f"{_origin(wanted)}/", output)
            yield pid

    @contextlib.contextmanager
    def _caddy(self, wanted: _Wanted) -> Iterator[Peer]:
        with self._run_caddy(wanted) as (pid, log):
            yield Peer("caddy", _origin(wanted), (pid,), (log,), self.headers())

    @contextlib.contextmanager
    def _caddy_forward_auth(self, wanted: _Wanted) -> Iterator[Peer]:
        gate = self.peer("gate")
        with self._run_caddy(wanted, _port(gate)) as (pid, log):
            yield _in_front_of(gate, "caddy-forward-auth", _origin(wanted), pid, log)

    @contextlib.contextmanager
    def _run_caddy(self, wanted: _Wanted, gate: int = 0) -> Iterator[tuple[int, Path]]:
        directory, log = self.scene.directory, self._log(wanted)
        config = directory / f"{wanted.file}.Caddyfile"
        config.write_text(
            caddy.caddyfile(
                directory,
                port=wanted.port,
                upstream=self.scene.upstream(wanted.upstream),
                pool=_POOL,
                log=log,
                gate=gate,
            )
        )
        output = directory / f"{wanted.file}.log"
        args = [program("caddy"), "run", "--config", str(config), "--adapter", "caddyfile"]
        with running(args, output=output, env=caddy.environment(directory)) as pid:
            wait_until_answering(pid, f"{_origin(wanted)}/", output)
            yield pid, log

    @contextlib.contextmanager
    def _mod_auth_openidc(self, wanted: _Wanted) -> Iterator[Peer]:
        scene, log = self.scene, self._log(wanted)
        config = scene.directory / f"{wanted.file}.conf"
        config.write_text(
            apache.configuration(
                directory=scene.directory,
                port=wanted.port,
                web=scene.web,
                tool=scene.tool,
                log=log,
                provider=scene.provider.tls_origin,
                authority=scene.provider.authority,
                client=scene.provider.client,
                client_secret=scene.provider.client_secret,
                secret=secrets.token_hex(32),
            )
        )
        output = scene.directory / f"{wanted.file}.log"
        args = [program("apache2"), "-D", "FOREGROUND", "-f", str(config)]
        with running(args, output=output) as pid:
            origin = _origin(wanted)
            wait_until_answering(pid, f"{origin}/", output)
            cookie = self._signed_in(f"{origin}/")
            yield Peer("mod_auth_openidc", origin, (pid,), (log,), (f"Cookie: {cookie}",))

    @contextlib.contextmanager
    def _oauth2_proxy_peer(self, wanted: _Wanted) -> Iterator[Peer]:
        provider, origin = self.scene.provider, _origin(wanted)
        config = self.scene.directory / f"{wanted.file}.cfg"
        config.write_text(
            _OAUTH2_PROXY.format(
                port=wanted.port,
                upstream=self.scene.upstream(wanted.upstream),
                origin=origin,
                provider=provider.tls_origin,
                authority=provider.authority,
                client=provider.client,
                client_secret=provider.client_secret,
                secret=secrets.token_hex(16),
            )
        )
        log = self._log(wanted)
        output = self.scene.directory / f"{wanted.file}.log"
        args = [self._oauth2_proxy, "--config", str(config)]
        with running(args, output=log, errors=output, env=environment()) as pid:
            wait_until_answering(pid, f"{origin}/ping", output)
            cookie = self._signed_in(f"{origin}/oauth2/start")
            yield Peer("oauth2-proxy", origin, (pid,), (log,), (f"Cookie: {cookie}",))

    @contextlib.contextmanager
    def _gate(self, wanted: _Wanted) -> Iterator[Peer]:
        scene, origin, admin = self.scene, _origin(wanted), free_port()
        name = MANY if wanted.file.startswith(MANY) else "gate"
        config = scene.directory / f"{wanted.file}.toml"
        config.write_text(
            _GATE.format(
                port=wanted.port,
                origin=origin,
                admin=admin,
                tailchat=scene.provider.origin,
                client=scene.provider.client,
                client_secret=scene.provider.client_secret,
                secret=scene.secret,
                routes=routes(
                    _ROUTES if name == MANY else 1, upstream=scene.upstream(wanted.upstream)
                ),
            )
        )
        log, output = self._log(wanted), scene.directory / f"{wanted.file}.log"
        args = [scene.python, "-m", "tailchat_gate", "serve", "--config", str(config)]
        with running(args, output=log, errors=output, env=environment()) as pid:
            wait_until_answering(pid, f"{origin}/ping", output)
            if not self._cookie and wanted.port == scene.ports["gate"]:
                self._cookie = self._signed_in(f"{origin}/oauth2/start")
            # All gates of the run share their secret and host name, and so the session.
            headers = self.headers()
            if fetch(f"http://127.0.0.1:{admin}/metrics")[0] != HTTPStatus.OK:
                raise BenchError("the metrics of the gate do not answer")
            yield Peer(name, origin, (pid,), (log,), headers)

    # What they have in common.

    def _log(self, wanted: _Wanted) -> Path:
        return self.scene.directory / f"{wanted.file}-access.log"

    def _signed_in(self, start: str) -> str:
        person = Person(EMAIL, self.scene.provider.password)
        trust = ssl.create_default_context(cafile=self.scene.provider.authority)
        return asyncio.run(signed_in_cookie(start, person, trust))


def routes(count: int, *, upstream: int) -> str:
    """Tables of `count` routes to the same upstream; the last is for every host and path.

    The others are by turns a host and a path of their own.
    """
    places = [
        f'host = "tool-{number}.example.com"' if number % 2 else f'path = "/tools/{number}"'
        for number in range(count - 1)
    ]
    return "".join(
        _ROUTE.format(name=f"tool-{number}", place=place, upstream=upstream)
        for number, place in enumerate((*places, 'path = "/"'))
    )


def _origin(wanted: _Wanted) -> str:
    return f"http://127.0.0.1:{wanted.port}"


def _port(peer: Peer) -> int:
    return int(peer.origin.rpartition(":")[2])


def _in_front_of(gate: Peer, name: str, origin: str, pid: int, log: Path) -> Peer:
    """An edge that asks the gate: what both cost counts, and both must log."""
    return Peer(name, origin, (pid, *gate.pids), (log, *gate.logs), gate.headers)


def _prove_closed(peer: Peer) -> None:
    """What is measured is shut without a session."""
    status, _ = fetch(f"{peer.origin}/")
    if status not in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.FOUND}:
        raise BenchError(f"without a session {peer.name} answers {status}")


_OAUTH2_PROXY = """\
http_address = "127.0.0.1:{port}"
upstreams = ["http://127.0.0.1:{upstream}/"]
provider = "oidc"
oidc_issuer_url = "{provider}"
skip_oidc_discovery = true
login_url = "{provider}/open/auth"
redeem_url = "{provider}/open/token"
oidc_jwks_url = "{provider}/open/jwks"
profile_url = "{provider}/open/me"
provider_ca_files = ["{authority}"]
code_challenge_method = "S256"
scope = "openid profile"
oidc_email_claim = "sub"
email_domains = ["*"]
client_id = "{client}"
client_secret = "{client_secret}"
redirect_url = "{origin}/oauth2/callback"
cookie_secret = "{secret}"
cookie_secure = false
pass_user_headers = true
reverse_proxy = false
standard_logging = true
auth_logging = false
silence_ping_logging = true
request_logging = true
request_logging_format = '{{{{ "{{" }}}}"time":"{{{{.Timestamp}}}}","client":"{{{{.Client}}}}","user":"{{{{.Username}}}}","method":"{{{{.RequestMethod}}}}","host":"{{{{.Host}}}}","uri":{{{{.RequestURI}}}},"status":{{{{.StatusCode}}}},"bytes":{{{{.ResponseSize}}}},"duration":{{{{.RequestDuration}}}},"user_agent":{{{{.UserAgent}}}}}}'
"""  # noqa: E501 - a format is one line
