"""What stands around the peers of one run: its directory, its secrets, the provider, the tools."""

import contextlib
import hashlib
import json
import os
import secrets
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from certificate import make_certificate
from nginx import TOOLS, nginx
from process import free_port, running, wait_until_answering

BODY = b'{"message": "a small answer, as an API or an icon would be", "number": 1234567890}\n'
EMAIL = "bench@example.com"
SUB = "660000000000000000000001"
_CLIENT = "tc_bench00000000000000000000"
_HERE = Path(__file__).parent
_SIZES = {"10k": 10_000, "1m": 1_000_000, "16k": 16_384}


@dataclass(frozen=True, slots=True)
class Provider:
    """Where visitors sign in: the stand-in Tailchat, over HTTP and, as another name, over TLS.

    `pair`: the certificate of "localhost", which peers with TLS have too, and its key.
    """

    origin: str
    tls_origin: str
    authority: Path
    pair: tuple[Path, Path]
    client: str
    client_secret: str = field(repr=False)
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Scene:
    """One run.

    `python` runs the gate. `files`: how many files a process may open. `secret` seals the
    sessions of every gate of the run. `ports`: where those listen that sign in at the provider,
    which has to know their addresses beforehand. `web` and `tool`: the ports of the two upstreams.
    """

    directory: Path
    python: str
    files: int
    provider: Provider
    web: int
    tool: int
    ports: dict[str, int]
    secret: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)

    def upstream(self, name: str) -> int:
        """The port of the upstream "web" or "tool"."""
        return self.web if name == "web" else self.tool


def content(name: str) -> bytes:
    """The body of /files/NAME: text that no two blocks of are equal."""
    size = _SIZES[name]
    return hashlib.shake_256(name.encode()).hexdigest(size // 2 + 1).encode()[:size]


def environment() -> dict[str, str]:
    """This shell's environment without settings of a gate; those of the run are in its files."""
    return {name: value for name, value in os.environ.items() if "TAILCHAT_GATE" not in name}


@contextlib.contextmanager
def scene(directory: Path, python: str, files: int) -> Iterator[Scene]:
    """Start the provider and both upstreams for the length of the block."""
    if os.geteuid() == 0:
        # Apache started by root works as another user, who reads the authority's certificate.
        directory.chmod(0o711)
    # The paths at which those who sign in take the answer of the provider.
    callbacks = {
        "gate": "oauth2/callback",
        "oauth2-proxy": "oauth2/callback",
        "mod_auth_openidc": "redirect_uri",
    }
    ports = {name: free_port() for name in callbacks}
    uris = [f"http://127.0.0.1:{ports[name]}/{path}" for name, path in callbacks.items()]
    with contextlib.ExitStack() as stack:
        provider = stack.enter_context(_provider(directory, python, uris))
        tool = stack.enter_context(_tool(directory))
        web = stack.enter_context(_web(directory))
        yield Scene(directory, python, files, provider, web, tool, ports)


@contextlib.contextmanager
def _provider(directory: Path, python: str, redirect_uris: list[str]) -> Iterator[Provider]:
    made = make_certificate(directory)
    made.authority.chmod(0o644)
    port, tls_port = free_port(), free_port()
    provider = Provider(
        origin=f"http://127.0.0.1:{port}",
        tls_origin=f"https://localhost:{tls_port}",
        authority=made.authority,
        pair=(made.chain, made.key),
        client=_CLIENT,
        client_secret=secrets.token_hex(16),
        password=secrets.token_hex(16),
    )
    about = directory / "provider.json"
    about.write_text(
        json.dumps(
            {
                "port": str(port),
                "tls_port": str(tls_port),
                "chain": str(made.chain),
                "key": str(made.key),
                "client_id": provider.client,
                "client_secret": provider.client_secret,
                "redirect_uris": " ".join(redirect_uris),
                "sub": SUB,
                "email": EMAIL,
                "password": provider.password,
            }
        )
    )
    output = directory / "provider.log"
    args = [python, str(_HERE / "stand_in.py"), str(about)]
    with running(args, output=output, env=environment()) as pid:
        wait_until_answering(pid, f"{provider.origin}/", output)
        yield provider


@contextlib.contextmanager
def _tool(directory: Path) -> Iterator[int]:
    port, output = free_port(), directory / "tool.log"
    args = [sys.executable, str(_HERE / "tool.py"), str(port)]
    with running(args, output=output) as pid:
        wait_until_answering(pid, f"http://127.0.0.1:{port}/", output)
        yield port


@contextlib.contextmanager
def _web(directory: Path) -> Iterator[int]:
    files = directory / "files"
    files.mkdir()
    for name in _SIZES:
        (files / name).write_bytes(content(name))
    port = free_port()
    http = TOOLS.format(port=port, directory=directory, body=BODY.decode())
    with nginx(directory, "web", http, connections=4096) as (pid, output):
        wait_until_answering(pid, f"http://127.0.0.1:{port}/", output)
        yield port
