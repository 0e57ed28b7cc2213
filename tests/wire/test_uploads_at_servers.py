"""Real servers that take a body by its length alone get one that came without, whole."""

import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from edgekit import program, serving
from gatekit import RawClient, Response
from parts import missing
from process import free_port

Start = Callable[..., Any]

APPS: Final = Path(__file__).parents[1] / "kit" / "field_servers"
_MODULES: Final = Path("/usr/lib/apache2/modules")
_CGI: Final = """\
import os, sys
body = sys.stdin.buffer.read(int(os.environ.get("CONTENT_LENGTH") or 0))
sys.stdout.buffer.write(b"Content-Type: text/plain\\n\\n" + body)
"""
#: Of all bytes, and more than fits into memory with the route's key.
UPLOAD: Final = bytes(range(256)) * 4096


def _gunicorn(_: Path, port: int) -> list[str]:
    return [program("gunicorn"), "--chdir", str(APPS), "-b", f"127.0.0.1:{port}", "upload:wsgi"]


def _werkzeug(_: Path, port: int) -> list[str]:
    run = (
        "import sys; sys.path.insert(0, sys.argv[1]); from werkzeug.serving import run_simple; "
        "import upload; run_simple('127.0.0.1', int(sys.argv[2]), upload.wsgi, threaded=True)"
    )
    return [sys.executable, "-c", run, str(APPS), str(port)]


def _apache(directory: Path, port: int) -> list[str]:
    script = directory / "upload.cgi"
    script.write_text(f"#!{sys.executable}\n{_CGI}")
    script.chmod(0o755)
    modules = ("mpm_prefork", "authz_core", "alias", "cgi")
    for module in modules:
        if not (_MODULES / f"mod_{module}.so").exists():
            missing(f"Apache's mod_{module}")
    lines = [
        *(f"ServerRoot {directory}", f"Listen 127.0.0.1:{port}", "ServerName localhost"),
        *("PidFile pid", "ErrorLog error.log"),
        *(f"LoadModule {name}_module {_MODULES}/mod_{name}.so" for name in modules),
        *(f"ScriptAlias / {script}/", "<Directory />", "Require all granted", "</Directory>"),
    ]
    (directory / "httpd.conf").write_text("\n".join(lines) + "\n")
    return [program("apache2"), "-X", "-f", str(directory / "httpd.conf")]


SERVERS: Final[dict[str, Callable[[Path, int], list[str]]]] = {
    "gunicorn": _gunicorn,
    "werkzeug": _werkzeug,
    "apache": _apache,
}


async def _upload(port: int, target: str, pieces: Iterable[bytes]) -> Response:
    """Send a body in chunks, as a client does that does not know its length."""
    async with RawClient.connect(port) as client:
        head = f"POST {target} HTTP/1.1\r\nHost: gate.test\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.send(head.encode())
        for piece in pieces:
            client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            await client.writer.drain()
        client.send(b"0\r\n\r\n")
        return await client.response()


@asynccontextmanager
async def _gate_before(
    name: str, start_gate: Start, directory: Path
) -> AsyncIterator[Callable[[str, Iterable[bytes]], Any]]:
    """Run a server behind a gate until the block ends; return what uploads to it."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    async with serving(SERVERS[name](directory, port), directory, port):
        gate = await start_gate(
            route=[
                {"name": "plain", "path": "/plain", "upstream": url, "allow": ["public"]},
                {
                    "name": "kept",
                    "path": "/kept",
                    "upstream": url,
                    "allow": ["public"],
                    "request_buffer": "512KiB",
                },
            ],
        )

        async def upload(target: str, pieces: Iterable[bytes]) -> bytes:
            response = await _upload(gate.port, target, pieces)
            assert response.status == 200
            return response.body

        yield upload


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", SERVERS)
async def test_an_upload_without_a_length_arrives_whole(
    start_gate: Start, tmp_path: Path, name: str
) -> None:
    """With request_buffer a body in chunks reaches the tool with its length, small or large."""
    async with _gate_before(name, start_gate, tmp_path) as upload:
        assert await upload("/kept/small", [b"some ", b"content"]) == b"some content"
        pieces = [UPLOAD[at : at + 10_000] for at in range(0, len(UPLOAD), 10_000)]
        assert await upload("/kept/large", pieces) == UPLOAD
        assert await upload("/kept/empty", []) == b""
        assert await upload("/plain", [b"some content"]) == b"", "the server itself reads it"
