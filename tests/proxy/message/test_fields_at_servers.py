"""Real servers behind the gate: no field of the list changes what they serve."""

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from edgekit import program, serving
from gatekit import RawClient, Response
from openid_provider_process import find_node
from parts import missing
from process import free_port

from tailchat_gate.request.field_names import CLAIMS, OWN

Start = Callable[..., Any]

APPS: Final = Path(__file__).parents[2] / "kit" / "field_servers"
_MODULES: Final = Path("/usr/lib/apache2/modules")
PATH: Final = "/public/admin/x"
#: What a visitor who wants to be taken for another would say.
VALUES: Final = {
    **dict.fromkeys(OWN, "203.0.113.66"),
    **{
        name: value
        for group, value in {
            "path": "/public",
            "person": "admin",
            "address": "203.0.113.66",
            "server": "/etc/passwd",
        }.items()
        for name in CLAIMS[group]
    },
}
#: What differs from request to request by itself.
VOLATILE: Final = frozenset(("REMOTE_PORT", "HTTP_X_REQUEST_ID", "UNIQUE_ID", "x-request-id"))

Servers = dict[str, Callable[[Path, int], list[str]]]


def _gunicorn(_: Path, port: int) -> list[str]:
    return [program("gunicorn"), "--chdir", str(APPS), "-b", f"127.0.0.1:{port}", "app:wsgi"]


def _uvicorn(_: Path, port: int) -> list[str]:
    where = ["--app-dir", str(APPS), "--host", "127.0.0.1", "--port", str(port)]
    return [program("uvicorn"), *where, "--lifespan", "off", "app:asgi"]


def _waitress(_: Path, port: int) -> list[str]:
    believed = "x-forwarded-for x-forwarded-host x-forwarded-proto x-forwarded-port"
    trust = ["--trusted-proxy=127.0.0.1", f"--trusted-proxy-headers={believed}"]
    run = "import sys; sys.path.insert(0, sys.argv.pop(1)); from waitress.runner import run; run()"
    command = [sys.executable, "-c", run, str(APPS), f"--listen=127.0.0.1:{port}"]
    return [*command, *trust, "app:wsgi"]


def _werkzeug(_: Path, port: int) -> list[str]:
    run = (
        "import sys; sys.path.insert(0, sys.argv[1]); from werkzeug.serving import run_simple; "
        "import app; run_simple('127.0.0.1', int(sys.argv[2]), app.fixed, threaded=True)"
    )
    return [sys.executable, "-c", run, str(APPS), str(port)]


def _node(_: Path, port: int) -> list[str]:
    return [*find_node().node, str(APPS / "server.mjs"), str(port)]


def _go(directory: Path, port: int) -> list[str]:
    return [str(directory / "server"), str(port)]


def _apache(directory: Path, port: int) -> list[str]:
    script = directory / "env.cgi"
    script.write_text(
        f"#!{sys.executable}\nimport json, os, sys\nsys.stdin.buffer.read()\n"
        "print('Content-Type: application/json\\n')\nprint(json.dumps(dict(os.environ)))\n"
    )
    script.chmod(0o755)
    modules = ("mpm_prefork", "authz_core", "alias", "cgi", "remoteip")
    for module in modules:
        if not (_MODULES / f"mod_{module}.so").exists():
            missing(f"Apache's mod_{module}")
    lines = [
        *(f"ServerRoot {directory}", f"Listen 127.0.0.1:{port}", "ServerName localhost"),
        *("PidFile pid", "ErrorLog error.log", "KeepAlive Off"),
        *(f"LoadModule {name}_module {_MODULES}/mod_{name}.so" for name in modules),
        *("RemoteIPHeader X-Client-IP", "RemoteIPInternalProxy 127.0.0.1"),
        f"ScriptAlias / {script}/",
        *("<Directory />", "Require all granted", "</Directory>"),
    ]
    (directory / "httpd.conf").write_text("\n".join(lines) + "\n")
    return [program("apache2"), "-X", "-f", str(directory / "httpd.conf")]


SERVERS: Final[Servers] = {
    "gunicorn": _gunicorn,
    "uvicorn": _uvicorn,
    "waitress": _waitress,
    "werkzeug": _werkzeug,
    "node": _node,
    "go": _go,
    "apache": _apache,
}


async def _build(directory: Path) -> None:
    """Build the server in Go, with the cache of the machine."""
    process = await asyncio.create_subprocess_exec(
        *(program("go"), "build", "-o", str(directory / "server"), str(APPS / "server.go")),
        env={**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": ""},
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()


def _fields() -> Iterator[list[str]]:
    """Yield field lines, as many as a request may have, of every name in each of its spellings."""
    lines = [
        f"{spelling}: {value}\r\n"
        for pattern, value in VALUES.items()
        for name in (pattern.replace("*", "") if len(pattern) > 9 else pattern.replace("*", "x"),)
        for spelling in dict.fromkeys(
            (name, name.replace("-", "_").upper(), name.replace("-", "."))
        )
    ]
    for start in range(0, len(lines), 90):
        yield lines[start : start + 90]


def _told(response: Response) -> dict[str, Any]:
    """Return what a server said of a request, without what is another each time."""
    if response.status != 200:
        return {"status": response.status}
    found = response.json
    for fields in (found, found.get("headers")):
        if isinstance(fields, dict):
            for name in [name for name in fields if name in VOLATILE or name == "X-Request-Id"]:
                del fields[name]
    for key in ("headers", "rawHeaders"):
        if isinstance(found.get(key), list):
            found[key] = _without_id(found[key])
    return found


def _without_id(fields: list[Any]) -> list[Any]:
    """Return a list of names and values, in pairs or in a row, without the request's id."""
    if fields and not isinstance(fields[0], list):
        fields = [fields[at : at + 2] for at in range(0, len(fields), 2)]
    return [pair for pair in fields if pair[0].lower() != "x-request-id"]


async def _ask(port: int, fields: str, trailers: str | None = None) -> dict[str, Any]:
    """Send a request by a connection of its own; with trailers it is a POST in chunks."""
    head = f"{'GET' if trailers is None else 'POST'} {PATH} HTTP/1.1\r\nHost: gate.test\r\n{fields}"
    body = ""
    if trailers is not None:
        head += "Transfer-Encoding: chunked\r\n"
        body = f"2\r\nab\r\n0\r\n{trailers}\r\n"
    async with RawClient.connect(port) as client:
        client.send(f"{head}Connection: close\r\n\r\n{body}".encode())
        return _told(await client.response())


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", SERVERS)
async def test_no_field_of_the_list_changes_what_a_server_serves(
    start_gate: Start, tmp_path: Path, name: str
) -> None:
    """What a server serves with a field of the list is what it serves without, trailers too."""
    if name == "go":
        await _build(tmp_path)
    port = free_port()
    async with serving(SERVERS[name](tmp_path, port), tmp_path, port):
        gate = await start_gate(
            f"http://127.0.0.1:{port}",
            route=[{"name": "open", "path": "/public", "allow": ["public"]}],
        )
        plain, posted = await _ask(gate.port, ""), await _ask(gate.port, "", "")
        direct = await _ask(port, "")
        assert "status" not in {**plain, **posted, **direct}
        changes = 0
        for lines in _fields():
            assert await _ask(gate.port, "".join(lines)) == plain
            assert await _ask(gate.port, "", "".join(lines[:60])) == posted
            assert await _ask(gate.port, "", "".join(lines[60:])) == posted
            changes += await _ask(port, "".join(lines)) != direct
        assert changes > 1, "a server that tells of no field shows nothing"


async def test_a_script_name_opens_nothing(start_gate: Start, tmp_path: Path) -> None:
    """Gunicorn takes SCRIPT_NAME off the path: behind the gate it serves what was judged."""
    port = free_port()
    async with serving(_gunicorn(tmp_path, port), tmp_path, port):
        gate = await start_gate(
            f"http://127.0.0.1:{port}",
            groups={"ops": ["660000000000000000000009"]},
            route=[
                {"name": "open", "path": "/public", "allow": ["public"]},
                {"name": "closed", "path": "/admin", "allow": ["group:ops"]},
            ],
        )
        for field in ("SCRIPT_NAME", "Script_Name", "script-name", "SCRIPT.NAME"):
            told = await _ask(gate.port, f"{field}: /public\r\n")
            assert (told["SCRIPT_NAME"], told["PATH_INFO"]) == ("", PATH)

        told = await _ask(port, "SCRIPT_NAME: /public\r\n")
        assert told["PATH_INFO"] == "/admin/x", "gunicorn itself does otherwise"
