"""Real servers that stand for tools behind the gate: Apache, nginx, PHP, Python under gunicorn."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from edgekit import program, serving
from parts import missing
from process import free_port

_APACHE_MODULES: Final = Path("/usr/lib/apache2/modules")


@asynccontextmanager
async def apache(directory: Path, modules: tuple[str, ...], *lines: str) -> AsyncIterator[str]:
    """Serve `directory`/site with Apache and further configuration lines; yields its URL."""
    found = program("apache2")
    modules = ("mpm_event", "authz_core", "dir", "mime", *modules)
    files = {name: _APACHE_MODULES / f"mod_{name}.so" for name in modules}
    for file in files.values():
        if not file.exists():
            missing(str(file))
    port = free_port()
    (directory / "site").mkdir(exist_ok=True)
    configuration = [
        f"ServerRoot {directory}",
        f"Listen 127.0.0.1:{port}",
        *("ServerName localhost", "PidFile pid", "ErrorLog error.log", "TypesConfig /dev/null"),
        *(f"LoadModule {name}_module {file}" for name, file in files.items()),
        *(f"DocumentRoot {directory}/site", "DirectoryIndex index.html"),
        *lines,
    ]
    (directory / "httpd.conf").write_text("\n".join(configuration) + "\n")
    command = [found, "-X", "-f", str(directory / "httpd.conf")]
    async with serving(command, directory, port):
        yield f"http://127.0.0.1:{port}"


@asynccontextmanager
async def nginx(directory: Path, *lines: str) -> AsyncIterator[str]:
    """Serve `directory`/site with nginx and further lines of its server block; yields its URL."""
    found, port = program("nginx"), free_port()
    (directory / "site").mkdir(exist_ok=True)
    paths = "".join(
        f"{kind}_temp_path {directory}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (directory / "nginx.conf").write_text(
        f"daemon off; master_process off; worker_processes 1; pid {directory}/pid;\n"
        f"error_log stderr warn;\nevents {{ worker_connections 64; }}\n"
        f"http {{ access_log off;\n{paths}server {{ listen 127.0.0.1:{port};\n"
        f"root {directory}/site;\n" + "\n".join(lines) + "\n} }\n"
    )
    command = [found, "-p", str(directory), "-c", str(directory / "nginx.conf")]
    async with serving(command, directory, port):
        yield f"http://127.0.0.1:{port}"


@asynccontextmanager
async def php(directory: Path) -> AsyncIterator[str]:
    """Serve `directory`/site with PHP's own server; yields its URL."""
    found, port = program("php"), free_port()
    (directory / "site").mkdir(exist_ok=True)
    command = [found, "-S", f"127.0.0.1:{port}", "-t", str(directory / "site")]
    async with serving(command, directory, port):
        yield f"http://127.0.0.1:{port}"


@asynccontextmanager
async def gunicorn(directory: Path, source: str) -> AsyncIterator[str]:
    """Serve the `application` of a Python module with gunicorn; yields its URL."""
    port = free_port()
    (directory / "served.py").write_text(source)
    command = [sys.executable, "-m", "gunicorn", "--chdir", str(directory), "--bind"]
    command += [f"127.0.0.1:{port}", "--workers", "1", "--no-control-socket", "served"]
    async with serving(command, directory, port):
        yield f"http://127.0.0.1:{port}"
