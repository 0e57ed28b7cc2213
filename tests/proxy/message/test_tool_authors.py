"""The programs in docs/tool-authors.md, as they are printed there, behind a real gate."""

import asyncio
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from edgekit import program
from gatekit import (
    ALICE,
    Clock,
    RawUpstream,
    Response,
    RunningGate,
    ask,
    make_settings,
    request_bytes,
    running_gate,
)
from openid_provider_process import MissingPart, find_node
from parts import missing
from process import free_port
from recipeinstall import FromNpm, installed, run
from recipekit import Applications, running
from recipepage import block

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAME: Final = "X-Tailchat-Assertion"
#: What a tool must decode and escape.
NICKNAME: Final = "星 %41+<i>&amp"
PERSON: Final = ALICE._replace(nickname=NICKNAME)
MODULES: Final = ("express@5.1.0", "jose@6.1.0")


#: The files of a program, and commands, the last of which is the program.
Recipe = tuple[Mapping[str, str], Sequence[Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Tool:
    """A program of the page, behind a gate that signs."""

    gate: RunningGate
    port: int

    async def visit(self, path: str, **fields: str) -> Response:
        """Open a page through the gate, signed in."""
        cookie = self.gate.cookie(PERSON)
        return await ask(self.gate.port, request_bytes(path, Cookie=cookie, **fields))

    async def reach(self, path: str, **fields: str) -> Response:
        """Open a page past the gate."""
        data = request_bytes(path, host="127.0.0.1", Connection="close", **fields)
        return await ask(self.port, data)


def _write(folder: Path, files: Mapping[str, str], gate: str, port: int) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        here = text.replace("https://gate.example.com", gate).replace(":8000", f":{port}")
        (folder / name).write_text(here.replace("8000,", f"{port},"), encoding="utf-8")


def flask(folder: Path, port: int, cache: Path) -> Recipe:
    """Return the files for Flask, and the command."""
    files = {"tool.py": block("tool: flask"), "verifier.py": _verifier("python")}
    return files, [(sys.executable, "-m", "flask", "--app", "tool", "run", "-p", str(port))]


def fastapi(folder: Path, port: int, cache: Path) -> Recipe:
    """Return the files for FastAPI, and the command."""
    files = {"tool.py": block("tool: fastapi"), "verifier.py": _verifier("python")}
    return files, [(sys.executable, "-m", "uvicorn", "tool:app", "--port", str(port))]


def express(folder: Path, port: int, cache: Path) -> Recipe:
    """Return the files for Express, which is installed, and the command."""
    try:
        node = find_node()
        installed(cache / "express", FromNpm(("express", "jose")), MODULES)
    except MissingPart as part:
        missing(str(part))
    (folder / "node_modules").symlink_to(cache / "express" / "node_modules")
    files = {"tool.mjs": block("tool: express"), "verifier.mjs": _verifier("node")}
    return files, [(*node.node, "tool.mjs")]


def go(folder: Path, port: int, cache: Path) -> Recipe:
    """Return the files for Go, and the command."""
    files = {
        "go.mod": "module example.com/tool\n\ngo 1.22\n",
        "main.go": block("tool: go"),
        "assertion/assertion.go": _verifier("go"),
    }
    return files, [(program("go"), "build", "-o", "tool", "."), ("./tool",)]


def php(folder: Path, port: int, cache: Path) -> Recipe:
    """Return the file for PHP, and the command."""
    command = (program("php"), "-S", f"127.0.0.1:{port}", "tool.php")
    return {"tool.php": block("tool: php")}, [command]


def rust(folder: Path, port: int, cache: Path) -> Recipe:
    """Return the files for Rust, and the command; what it is built from is kept."""
    if shutil.which("cargo") is None:
        pytest.skip("cargo is missing")
    files = {"Cargo.toml": block("tool: cargo"), "src/main.rs": block("tool: rust")}
    target = cache / "rust"
    build = ("cargo", "build", "-q", "--target-dir", str(target))
    return files, [build, (str(target / "debug" / "tool"),)]


def _verifier(language: str) -> str:
    return block(f"verify-{language}", "assertion")


Maker = Callable[[Path, int, Path], Recipe]
TOOLS: Final[tuple[Maker, ...]] = (flask, fastapi, express, go, php, rust)


def _of(maker: Maker) -> object:
    """Rust's packages take minutes to build."""
    marks = (pytest.mark.recipes, pytest.mark.timeout(4500)) if maker is rust else ()
    return pytest.param(maker, marks=marks, id=maker.__name__)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=map(_of, TOOLS))
async def tool(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, key: Path
) -> AsyncIterator[Tool]:
    """Serve each program of the page."""
    applications: Applications = request.getfixturevalue("applications")
    folder = tmp_path_factory.mktemp(request.param.__name__)
    port, gate_port = free_port(), free_port()
    url = f"http://127.0.0.1:{gate_port}"
    files, (*before, command) = await asyncio.to_thread(
        request.param, folder, port, applications.cache
    )
    await asyncio.to_thread(_write, folder, files, url, port)
    for one in before:
        await asyncio.to_thread(run, *one, folder=folder)
    settings = make_settings(
        f"http://127.0.0.1:{port}",
        server={"public_url": url, "listen": [f"127.0.0.1:{gate_port}"]},
        assertion={"key_files": [str(key)]},
        route=[{"name": "wiki"}],
    )
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    async with (
        running_gate(settings, folder / "access.log", Clock(time.time())) as gate,
        running(command, folder, environ, port),
    ):
        yield Tool(gate, port)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with a key that a gate signs with."""
    made = ec.generate_private_key(ec.SECP256R1())
    pem = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file = tmp_path_factory.mktemp("key") / "key.pem"
    file.write_bytes(pem)
    return file


async def test_a_person_is_greeted_and_can_sign_out(tool: Tool) -> None:
    """The nickname is decoded once and escaped, the ID is there, and so is the link."""
    page = await tool.visit("/", X_Tailchat_Sub="forged")
    text = page.body.decode()

    assert (page.status, "<i>" in text) == (200, False)
    assert f"Hello {NICKNAME}, {PERSON.sub}." in unescape(text)
    assert '<a href="/oauth2/sign_out">' in text


async def test_nobody_in_particular_gets_401(tool: Tool) -> None:
    """Without the headers a tool greets no default person."""
    assert (await tool.reach("/")).status == 401
    assert (await tool.reach("/proved")).status == 401


async def test_the_assertion_proves_who_it_is(tool: Tool, key: Path, tmp_path: Path) -> None:
    """The gate's own passes; one that is signed wrongly, cut, or for another tool gets 401."""
    proved = await tool.visit("/proved")
    good = await _assertion("wiki", tool, key, tmp_path)
    other = await _assertion("other", tool, key, tmp_path)
    signature = (await _assertion("wiki", tool, key, tmp_path)).rpartition(".")[2]
    head, claims, _ = good.split(".")
    swapped = f"{head}.{claims}.{signature}"

    assert (proved.status, proved.body.decode().strip()) == (200, PERSON.sub)
    assert (await tool.reach("/proved", **{NAME: good})).body.decode().strip() == PERSON.sub
    for bad in (other, swapped, good[:-4], f"{head}.{claims}.", f"{head}.{claims}", "x"):
        assert (await tool.reach("/proved", **{NAME: bad})).status == 401, bad


async def _assertion(audience: str, tool: Tool, key: Path, folder: Path) -> str:
    """Return what a route with another name gets of the same gate."""
    async with RawUpstream() as upstream:
        settings = make_settings(
            upstream.url,
            server={"public_url": tool.gate.generation.settings.server.public_url},
            assertion={"key_files": [str(key)]},
            route=[{"name": audience}],
        )
        async with running_gate(settings, folder / "other.log", Clock(time.time())) as gate:
            await ask(gate.port, request_bytes(Cookie=gate.cookie(PERSON)))
        value = upstream.requests[0].value(NAME)
    assert value is not None
    return value.decode()
