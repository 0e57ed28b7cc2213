"""Runs what a page of docs/recipes says: the application, the gate before it, and visitors."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

import pytest
from gatekit import Clock, running_gate, until, until_listening
from openid_provider_process import MissingPart
from parts import in_browser, missing
from playwright.async_api import Browser, Page, WebSocket, expect
from process import free_port
from recipeinstall import Installer, installed, versions_in
from recipepage import Places, RecipePage
from storykit import HOSHINO, log_in, registered
from visitor import FETCH, Visitor

from tailchat_gate.identity.machine_tokens import hash_of, make_token

#: Marks the tests of a recipe. Some install for minutes, and all share one loop and one browser.
recipe: Final = (pytest.mark.recipes, in_browser, pytest.mark.timeout(4500))
#: A machine's token, in place of the one whose hash a page has.
TOKEN: Final = make_token(bytes(32))
OTHER_SUB: Final = "660000000000000000000099"
#: What a visitor may claim to be; no tool may believe it.
FORGED: Final = dict.fromkeys(
    ("X-Tailchat-Sub", "X-Tailchat-Nickname", "X-Remote-User", "X-WEBAUTH-USER"), OTHER_SUB
)
_START_SECONDS: Final = 240.0
_END_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Applications:
    """Where applications are installed, and whether the newest versions are wanted."""

    cache: Path
    newest: bool
    scratch: pytest.TempPathFactory

    async def programs(self, page: RecipePage, by: Installer) -> Path:
        """Install an application; skip the test, or fail it in CI, where it cannot be had."""
        pinned = () if self.newest else page.last_run[1]
        try:
            return await asyncio.to_thread(installed, self.cache / page.name, by, pinned)
        except MissingPart as part:
            missing(str(part))

    @asynccontextmanager
    async def serve(
        self, name: str, by: Installer, *first: Sequence[str]
    ) -> AsyncIterator["Scene"]:
        """Serve the application of a page, behind a gate with the route of that page.

        `first` are commands that are run before those of the page.
        """
        page = RecipePage.named(name)
        programs = await self.programs(page, by)
        directory = self.scratch.mktemp(name)
        clock = Clock(time.time())
        async with registered("gate.test", clock) as at:
            places = Places(free_port(), at.port, directory, hash_of(TOKEN))
            for file, text in page.files(places).items():
                await asyncio.to_thread((directory / file).write_text, text, encoding="utf-8")
            environ = _environ(directory, programs)
            url, gate_url = f"http://{page.test_host}:{at.port}", f"http://127.0.0.1:{at.port}"
            scene = Scene(page, url, gate_url, directory, environ)
            *before, command = page.commands(places)
            for one in (*first, *before):
                await scene.run(*one)
            settings = at.settings("http://127.0.0.1:9", **page.tables(places))
            async with (
                running(command, directory, environ, places.port),
                running_gate(settings, directory / "access.log", clock),
            ):
                yield scene


@dataclass(frozen=True)
class Scene:
    """An application behind the gate."""

    page: RecipePage
    #: Where visitors find it.
    url: str
    #: Where the gate listens, by its address.
    gate_url: str
    #: The application's working directory, with the files of the page.
    directory: Path
    environ: Mapping[str, str]
    #: Those that browsers have opened.
    websockets: list[WebSocket] = field(default_factory=list)

    @asynccontextmanager
    async def signed_in(self, path: str = "/") -> AsyncIterator[Visitor]:
        """Sign a person in who opens the application."""
        async with Visitor() as visitor:
            page = await visitor.sign_in(self.url + path, HOSHINO.email, HOSHINO.password)
            assert (page.status, page.url.partition("?")[0][: len(self.url)]) == (200, self.url)
            yield visitor

    async def sign_out(self, visitor: Visitor) -> None:
        """Sign out on the application's own host; it is closed from then on."""
        page = await visitor.open(f"{self.url}/oauth2/sign_out")
        await visitor.submit(page, "/oauth2/sign_out")
        assert (await visitor.open(self.url, headers=FETCH)).status == 401

    async def refuse_strangers(self, path: str = "/") -> None:
        """See that nobody comes in without a session, whatever headers they send."""
        async with Visitor() as stranger:
            page = await stranger.open(self.url + path, headers={**FETCH, **FORGED})
        assert (page.status, page.json["error"]) == (401, "not-signed-in")

    @asynccontextmanager
    async def tab(self, browser: Browser, path: str = "/") -> AsyncIterator[Page]:
        """Sign a person in who opens the application in a browser."""
        context = await browser.new_context()
        try:
            tab = await context.new_page()
            # Playwright cannot take the method of a built-in type.
            tab.on("websocket", lambda one: self.websockets.append(one))  # noqa: PLW0108 - see above
            tab.set_default_timeout(_START_SECONDS * 1000)
            await tab.goto(self.url + path)
            await log_in(tab)
            await tab.wait_for_url(f"{self.url}/**", wait_until="commit")
            yield tab
        finally:
            await context.close()

    async def sign_out_in(self, tab: Page) -> None:
        """Sign out in another tab of a browser, which ends the WebSockets of the first."""
        other = await tab.context.new_page()
        await other.goto(f"{self.url}/oauth2/sign_out")
        await other.get_by_role("button", name="Sign out").click()
        await expect(other.get_by_text("You are signed out").first).to_be_visible()
        await until(lambda: all(one.is_closed() for one in self.websockets))
        assert await tab.evaluate("async () => (await fetch('/')).status") == 401

    async def run(
        self,
        *command: str,
        fails: bool = False,
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> str:
        """Run a program of the application or of the machine; return what it says."""
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=self.directory,
            env={**self.environ, **variables},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said = (await process.communicate())[0].decode(errors="replace")
        assert (process.returncode != 0) is fails, said
        return said


def _environ(directory: Path, programs: Path) -> dict[str, str]:
    path = f"{programs}{os.pathsep}{os.environ['PATH']}{os.pathsep}/usr/sbin"
    return {"HOME": str(directory), "PATH": path, "LANG": "C.UTF-8"}


@asynccontextmanager
async def running(
    command: Sequence[str], directory: Path, environ: Mapping[str, str], port: int
) -> AsyncIterator[None]:
    """Run a program until the block ends, once it listens."""
    log = directory / "application.log"
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            "env",  # which finds the program in the PATH that it is given
            *command,
            cwd=directory,
            env=environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        await until_listening(process, port, log, _START_SECONDS)
        yield
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """End an application and what it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(TimeoutError):
        async with asyncio.timeout(_END_SECONDS):
            await process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


async def shows(tab: Page, text: str) -> None:
    """Wait until a page shows a text, in one of its frames or in none."""
    await expect(tab.get_by_text(text).first).to_be_visible(timeout=_START_SECONDS * 1000)


class LastRuns:
    """A plugin of the process that gets the reports: writes on each page that it was run."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._passed: dict[str, bool] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take a phase of a test into account."""
        file = Path(report.nodeid.partition("::")[0])
        if file.parent.name == "recipes":
            name = file.stem.removeprefix("test_").replace("_", "-")
            self._passed[name] = self._passed.get(name, True) and report.passed

    def pytest_sessionfinish(self) -> None:
        """Write the versions and the date where all tests of a recipe passed."""
        for name in (name for name, passed in self._passed.items() if passed):
            RecipePage.named(name).write_last_run(versions_in(self._cache / name))
