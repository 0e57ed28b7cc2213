"""Programs that some tests need on the machine, and what a test does if one is missing."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Final, NoReturn

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

#: Chromium's failed calls to its maker would fill its log; as root it has no sandbox of its own.
_FLAGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Tools on hosts of their own, as a hosts file would have it.
    "--host-resolver-rules=MAP *.test 127.0.0.1",
)
#: The first one is Chromium without windows, which takes half as long.
_BROWSERS: Final = ("chromium-headless-shell", "chromium", "chromium-browser")
#: Marks tests with a browser. It serves all of their process, as their event loop does; what else
#: they need is set up by fixtures with `loop_scope="session"`.
in_browser: Final = pytest.mark.asyncio(loop_scope="session")

#: Variables with which a program written in Go takes less of the processors, and more memory.
LEAN_GO: Final = MappingProxyType({"GOGC": "800", "GOMAXPROCS": "1"})

#: Build output, not kept in the repository.
SCREENSHOTS: Final = Path(__file__).parents[2] / "build" / "screenshots"
#: Set by keep_screenshots, for the processes that share the tests, too.
_KEEP: Final = "TAILCHAT_GATE_SCREENSHOTS"


def keep_screenshots() -> None:
    """Let keep_screenshot leave its pictures."""
    os.environ[_KEEP] = "1"


def keeps_screenshots() -> bool:
    """Whether pictures are asked for."""
    return _KEEP in os.environ


def missing(part: str) -> NoReturn:
    """Skip the test because a part is missing; in CI that is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{part} is missing, and CI must have it")
    pytest.skip(f"{part} is missing")


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Run Debian's Chromium, headless, until the block ends."""
    # A busy machine takes longer than the usual five seconds to show a page.
    expect.set_options(timeout=60_000)
    path = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if path is None:
        missing("Chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=path, args=list(_FLAGS), timeout=120_000
        )
        try:
            yield browser
        finally:
            await browser.close()


async def keep_screenshot(tab: Page, name: str) -> None:
    """With `pytest --screenshots`, leave a picture of a tab in SCREENSHOTS for a person to look at.

    Not in each run: to draw a tall page takes longer than the rest of a test.
    """
    if not keeps_screenshots():
        return
    await tab.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)
