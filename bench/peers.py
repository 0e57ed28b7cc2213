"""The proxies under measurement and the upstream behind them, each with a fair configuration."""

import asyncio
import contextlib
import os
import pwd
import secrets
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from login import signed_in_cookie
from measure import Peer
from process import BenchError, fetch, free_port, program, running, wait_until_answering

BODY = b'{"message": "a small answer, as an API or an icon would be", "number": 1234567890}\n'
NAMES = ("nginx", "caddy", "gate")
_HERE = Path(__file__).parent
_USER = ("bench@example.com", "bench-password")
_CLIENT = "tc_bench00000000000000000000"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run keeps its files, and how many connections it opens."""

    directory: Path
    connections: int


# Connections are never closed for their number of requests, nor logged twice; every temporary
# file stays in the directory of the run.
_NGINX = """\
daemon off;
{user}
worker_processes 1;
pid {directory}/{name}.pid;
error_log stderr warn;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    default_type text/plain;
    keepalive_requests 1000000000;
    client_max_body_size 0;
    client_body_temp_path {directory}/{name}-body;
    proxy_temp_path {directory}/{name}-proxy;
    fastcgi_temp_path {directory}/{name}-fastcgi;
    scgi_temp_path {directory}/{name}-scgi;
    uwsgi_temp_path {directory}/{name}-uwsgi;
{http}
}}
"""

_UPSTREAM = """\
    server {{
        listen 127.0.0.1:{port};
        location = / {{ return 200 '{body}'; }}
        location /files/ {{ alias {directory}/files/; sendfile on; }}
        location /upload {{
            proxy_pass http://127.0.0.1:{sink};
            proxy_http_version 1.1;
            proxy_request_buffering off;
        }}
    }}"""

_PROXY = """\
    log_format json escape=json '{{"time":"$time_iso8601","client":"$remote_addr",'
        '"method":"$request_method","host":"$host","uri":"$request_uri","status":$status,'
        '"bytes":$body_bytes_sent,"duration":$request_time,"user_agent":"$http_user_agent"}}';
    upstream tool {{
        server 127.0.0.1:{upstream};
        keepalive {connections};
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port};
        access_log {directory}/nginx-access.log json;
        location / {{
            proxy_pass http://tool;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_request_buffering off;
            proxy_max_temp_file_size 0;
        }}
    }}"""

_CADDY = """\
{{
    admin off
    auto_https off
    persist_config off
    storage file_system {directory}/caddy
    log default {{
        output stderr
        level ERROR
    }}
}}
http://127.0.0.1:{port} {{
    bind 127.0.0.1
    log {{
        output file {directory}/caddy-access.log {{
            roll_disabled
        }}
        format json
    }}
    reverse_proxy 127.0.0.1:{upstream} {{
        transport http {{
            keepalive_idle_conns_per_host {connections}
        }}
    }}
}}
"""

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

[[route]]
name = "bench"
upstream = "http://127.0.0.1:{upstream}"

[log]
access = true
"""


@contextlib.contextmanager
def upstream(place: Place) -> Iterator[int]:
    """The tool behind all peers: a small answer, files, and an upload that is thrown away.

    Yields its port.
    """
    port, sink = free_port(), free_port()
    (place.directory / "files").mkdir()
    output = place.directory / "sink.log"
    with running([sys.executable, str(_HERE / "sink.py"), str(sink)], output=output) as pid:
        wait_until_answering(pid, f"http://127.0.0.1:{sink}/", output)
        http = _UPSTREAM.format(port=port, sink=sink, directory=place.directory, body=BODY.decode())
        with _nginx(place, "upstream", http) as (nginx, output):
            wait_until_answering(nginx, f"http://127.0.0.1:{port}/", output)
            yield port


@contextlib.contextmanager
def started(name: str, place: Place, behind: int) -> Iterator[Peer]:
    """The peer called `name`, in front of the upstream on port `behind`."""
    peers = {"nginx": _nginx_peer, "caddy": _caddy_peer, "gate": _gate_peer}
    with peers[name](place, behind) as peer:
        yield peer


@contextlib.contextmanager
def _nginx(place: Place, name: str, http: str) -> Iterator[tuple[int, Path]]:
    # Started by root, nginx would give its worker to a user who cannot read the directory.
    user = f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""
    config = place.directory / f"{name}.conf"
    config.write_text(_NGINX.format(user=user, directory=place.directory, name=name, http=http))
    output = place.directory / f"{name}.log"
    args = [program("nginx"), "-p", str(place.directory), "-e", "stderr", "-c", str(config)]
    with running(args, output=output) as pid:
        yield pid, output


@contextlib.contextmanager
def _nginx_peer(place: Place, behind: int) -> Iterator[Peer]:
    port = free_port()
    http = _PROXY.format(
        port=port, upstream=behind, directory=place.directory, connections=place.connections
    )
    with _nginx(place, "nginx", http) as (pid, output):
        origin = f"http://127.0.0.1:{port}"
        wait_until_answering(pid, f"{origin}/", output)
        yield Peer("nginx", origin, pid, place.directory / "nginx-access.log")


@contextlib.contextmanager
def _caddy_peer(place: Place, behind: int) -> Iterator[Peer]:
    port = free_port()
    config = place.directory / "Caddyfile"
    config.write_text(
        _CADDY.format(
            port=port, upstream=behind, directory=place.directory, connections=place.connections
        )
    )
    output = place.directory / "caddy.log"
    args = [program("caddy"), "run", "--config", str(config), "--adapter", "caddyfile"]
    env = {**os.environ, "HOME": str(place.directory)}
    with running(args, output=output, env=env) as pid:
        origin = f"http://127.0.0.1:{port}"
        wait_until_answering(pid, f"{origin}/", output)
        yield Peer("caddy", origin, pid, place.directory / "caddy-access.log")


@contextlib.contextmanager
def _gate_peer(place: Place, behind: int) -> Iterator[Peer]:
    port, admin, tailchat = free_port(), free_port(), free_port()
    origin, secret = f"http://127.0.0.1:{port}", secrets.token_hex(16)
    config = place.directory / "gate.toml"
    config.write_text(
        _GATE.format(
            port=port,
            origin=origin,
            admin=admin,
            tailchat=f"http://127.0.0.1:{tailchat}",
            client=_CLIENT,
            client_secret=secret,
            secret=secrets.token_hex(32),
            upstream=behind,
        )
    )
    # The settings of the run are those of the file, whatever this shell exports.
    env = {name: value for name, value in os.environ.items() if "TAILCHAT_GATE" not in name}
    with contextlib.ExitStack() as stack:
        output = place.directory / "tailchat.log"
        args = [sys.executable, str(_HERE / "stand_in.py"), str(tailchat), origin]
        stand_in = {**env, "BENCH_CLIENT": _CLIENT, "BENCH_CLIENT_SECRET": secret}
        stand_in |= {"BENCH_EMAIL": _USER[0], "BENCH_PASSWORD": _USER[1]}
        pid = stack.enter_context(running(args, output=output, env=stand_in))
        wait_until_answering(pid, f"http://127.0.0.1:{tailchat}/", output)
        output = place.directory / "gate.log"
        args = [sys.executable, "-m", "tailchat_gate", "serve", "--config", str(config)]
        pid = stack.enter_context(running(args, output=output, env=env))
        wait_until_answering(pid, f"{origin}/ping", output)
        cookie = asyncio.run(signed_in_cookie(origin, *_USER))
        _prove_closed(origin, f"http://127.0.0.1:{admin}/metrics")
        yield Peer("gate", origin, pid, output, (f"Cookie: {cookie}",))


def _prove_closed(origin: str, metrics: str) -> None:
    """What is measured is a gate: shut without a session, and counting."""
    status, _ = fetch(f"{origin}/")
    if status != HTTPStatus.UNAUTHORIZED:
        raise BenchError(f"without a session the gate answers {status}, not 401")
    status, _ = fetch(metrics)
    if status != HTTPStatus.OK:
        raise BenchError(f"the metrics of the gate answer {status}, not 200")
