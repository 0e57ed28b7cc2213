"""Fixtures for every test."""

import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from functools import cache
from itertools import count
from pathlib import Path
from types import FunctionType
from typing import Any

import audithook
import bytecode_cache  # noqa: F401 - it acts when it is imported, before those below
import collecting
import compiled
import pytest
import pytest_asyncio
import reports
import sharing
import uvloop
import weights
from blockbuster import blockbuster_ctx
from bothways import BothWays
from configkit import write_smallest
from edgekit import COMMANDS, SETUPS, Edge, Fronts
from forking import forked
from gatekit import (
    Clock,
    RawUpstream,
    RunningGate,
    make_settings,
    once_a_connection,
    running_gate,
)
from hypothesis import settings
from loops import Loop
from parts import SCREENSHOTS, chromium, keep_screenshots
from playwright.async_api import Browser
from recheckkit import rechecked
from recipekit import Applications, LastRuns
from storykit import Story

from tailchat_gate.demo.oauth import SigningKey
from tailchat_gate.observe.access_log import AccessLog
from tailchat_gate.observe.log import AUDIT_LOGGER_NAME, LOGGER_NAME, close_logging
from tailchat_gate.observe.sink import Sink
from tailchat_gate.proxy.upstream import pool
from tailchat_gate.serving import reload
from tailchat_gate.serving.wiring import build
from tailchat_gate.state import bookkeeping

# How long one example takes is the machine's business, and that of the tests beside it.
# CI draws the same examples each time, so that it judges the change; other runs look further.
settings.register_profile("gate", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("gate")

#: Test processes at most: a tool, a browser and a Tailchat beside each want memory, too.
_MOST_PROCESSES = 9
#: So few files, when they are named, are run in one process: to start others takes longer.
_FEW_FILES = 8


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return how many processes run the tests: three for a processor, since most tests wait.

    None of their own for a few files.
    """
    named = [str(name).partition("::")[0] for name in config.invocation_params.args]
    files = [name for name in named if name.endswith(".py")]
    if 0 < len(files) <= _FEW_FILES and not any(map(os.path.isdir, named)):
        return 0
    return min(len(os.sched_getaffinity(0)) * 3, _MOST_PROCESSES)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that measure files, keep pictures, want compiled modules and run recipes."""
    parser.addoption("--weigh", action="store_true", help=f"write {weights.SECONDS.name} anew")
    parser.addoption("--compiled", action="store_true", help="run compiled modules, or nothing")
    parser.addoption("--screenshots", action="store_true", help=f"keep pictures in {SCREENSHOTS}")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tailchat-gate"
    parser.addoption(
        "--recipes-cache",
        type=Path,
        default=Path(os.environ.get("TAILCHAT_GATE_RECIPES") or cache / "recipes"),
        help="where the applications of docs/recipes are installed (TAILCHAT_GATE_RECIPES)",
    )
    parser.addoption(
        "--write-recipes",
        action="store_true",
        help="install their newest versions, and write date and versions on the pages that pass",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Share the files, and measure them if asked to: the process that gets the reports can.

    And let pictures be kept, or runs of recipes be written on their pages, if asked to.
    """
    option, register = config.option, config.pluginmanager.register
    if not hasattr(config, "workerinput"):
        register(sharing.Sharing())
        if option.weigh:
            register(weights.Weights())
        if option.write_recipes:
            register(LastRuns(option.recipes_cache))
    elif not reports.are_all_read(config):
        register(reports.FewReports())
    if option.screenshots:
        keep_screenshots()
    if option.compiled and (found := compiled.interpreted()):
        raise pytest.UsageError(f"not compiled: {', '.join(found)}")


@pytest.fixture(autouse=True, scope="module")
def both_ways(request: pytest.FixtureRequest) -> Iterator[BothWays]:
    """Let the gates of the wire tests read each section in both ways, and compare them."""
    both = BothWays()
    with pytest.MonkeyPatch.context() as patch:
        if request.path.parent.name == "wire":
            patch.setattr(build, "RequestReader", both.reader)
        yield both


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Prepare for the collection."""
    collecting.begin()
    sharing.take_share(session.config)


def pytest_collection_finish() -> None:
    """Tell that everything is collected."""
    collecting.end()


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], Any]]:
    """Return the event loops that a test runs on."""
    if item.get_closest_marker("both_loops") is not None:
        return {"asyncio": Loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": Loop}


@pytest.fixture(scope="session", autouse=True)
def _blocking_calls_raise() -> Iterator[None]:
    """Let calls that block raise in the event loop; once, since it wraps dozens of functions."""
    with blockbuster_ctx("tailchat_gate") as found:
        # A parent of workers serves no visitors; it waits until the other program runs.
        found.functions["os.read"].can_block_in("workers/spawned.py", "_popen")
        yield


@pytest.fixture(scope="session", autouse=True)
def _gates_are_forked() -> Iterator[None]:
    """Let processes of the gate begin with all that they would import."""
    with forked():
        yield


@pytest.fixture(scope="session", autouse=True)
def _gates_look_often() -> Iterator[None]:
    """Let gates check time limits more often, because dozens of tests wait for one."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("proxy.client.server", "proxy.exchange.upstream_pools"):
            patch.setattr(f"tailchat_gate.{module}.SWEEP_SECONDS", 0.1)
        yield


@pytest.fixture(scope="session", autouse=True)
def _gates_end_unhurried() -> Iterator[None]:
    """Let gates wait for what they write at their end as long as a busy machine may need."""
    with pytest.MonkeyPatch.context() as patch:
        for close in (Sink.close, Sink.close_and_log, AccessLog.close, close_logging):
            # Those of a compiled one cannot be set.
            if isinstance(close, FunctionType):
                patch.setattr(close, "__defaults__", (30.0,))
        for module in (bookkeeping, reload):
            patch.setattr(module, "CLOSE_SECONDS", 30.0)
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_signing_key() -> Iterator[None]:
    """Let every stand-in sign with one RSA key: to make one is half of a start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tailchat_gate.demo.tailchat.SigningKey", cache(SigningKey))
        yield


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Restore how the process logs: a reload sets the level, and the next test counts its lines."""
    loggers = [logging.getLogger(name) for name in ("", LOGGER_NAME, AUDIT_LOGGER_NAME)]
    before = [(one.handlers[:], one.level, one.propagate) for one in loggers]
    yield
    for one, (handlers, level, propagate) in zip(loggers, before, strict=True):
        one.handlers[:], one.propagate = handlers, propagate
        one.setLevel(level)


@pytest.fixture(autouse=True)
def _no_blocking_calls() -> Iterator[None]:
    """Fail a test in which the gate blocks the event loop."""
    audithook.seen.clear()
    yield
    assert audithook.seen == []


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def _chromium() -> AsyncIterator[Browser]:
    """Run one Chromium for all tests of a process: to start one takes longer than most of them."""
    async with chromium() as found:
        yield found


@pytest_asyncio.fixture(loop_scope="session")
async def browser(request: pytest.FixtureRequest, _chromium: Browser) -> AsyncIterator[Browser]:
    """Return a headless Chromium; the test has to be one `in_browser`, as parts has it.

    Nothing of a test, cookie, cache or tab, is in the contexts that another test makes.
    """
    marker = request.node.get_closest_marker("asyncio")
    assert marker.kwargs.get("loop_scope") == "session", "a test with a browser, but no in_browser"
    yield _chromium
    for context in _chromium.contexts:
        await context.close()


@pytest.fixture(scope="session")
def _directories(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return directories for the tests of this process, one after another."""
    base = tmp_path_factory.mktemp("tests")
    return (base / str(number) for number in count())


@pytest.fixture
def tmp_path(_directories: Iterator[Path]) -> Path:
    """Return a directory of the test's own.

    pytest's looks through those of all tests before it, for a number that is free.
    """
    path = next(_directories)
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def smallest(tmp_path: Path) -> Path:
    """Return the shortest configuration, of https://gate.example.com on 127.0.0.1:4180.

    Its owner alone can read it.
    """
    return write_smallest(tmp_path)


@pytest.fixture
def clock() -> Clock:
    """Return the clock of the test's gates."""
    return Clock()


@pytest.fixture
def _reuses_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a request take a connection that has been idle for as long as a busy machine may need."""
    monkeypatch.setattr(pool, "UNSAFE_IDLE_SECONDS", 60.0)
    monkeypatch.setattr(pool, "IDLE_SECONDS", 60.0)


@pytest.fixture
async def upstream() -> AsyncIterator[RawUpstream]:
    """Return an upstream that records what it receives."""
    async with RawUpstream() as found:
        yield found


@pytest.fixture
async def fickle() -> AsyncIterator[RawUpstream]:
    """Return a tool that answers one request a connection, and closes upon the next."""
    async with RawUpstream(once_a_connection()) as found:
        yield found


@pytest.fixture
async def start_gate(tmp_path: Path, clock: Clock) -> AsyncIterator[Callable[..., "Any"]]:
    """Return a function that starts a gate: (upstream URL, sections of the settings)."""
    async with AsyncExitStack() as stack:

        async def start(
            upstream: str = "http://127.0.0.1:9",
            **sections: Any,  # noqa: ANN401 - as in gatekit.make_settings
        ) -> RunningGate:
            settings = make_settings(upstream, **sections)
            return await stack.enter_async_context(
                running_gate(settings, tmp_path / "access.log", clock)
            )

        yield start


@pytest.fixture(scope="session")
def applications(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Applications:
    """Return what installs and serves the applications of docs/recipes."""
    option = pytestconfig.option
    return Applications(option.recipes_cache, option.write_recipes, tmp_path_factory)


@pytest.fixture(params=COMMANDS)
def proxy(request: pytest.FixtureRequest) -> str:
    """Return the name of each proxy that deploy/ has files for."""
    return str(request.param)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fronts(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fronts]:
    """Keep the proxies that the tests of a file start."""
    async with AsyncExitStack() as stack:
        yield Fronts(tmp_path_factory.mktemp("fronts"), stack)


@pytest_asyncio.fixture(params=SETUPS, loop_scope="module")
async def front(request: pytest.FixtureRequest, proxy: str, fronts: Fronts) -> Edge:
    """Return a proxy whose block for the tool answers for its name alone, or for every host.

    The test has to be one `in_front`, as edgekit has it. It shares the proxy and the gate with
    the other tests of its file; one that stops either lets `fronts` forget it first.
    """
    return await fronts.get(proxy, catch_all=SETUPS[request.param])


@pytest.fixture
async def start_rechecks(tmp_path: Path, clock: Clock) -> AsyncIterator[Callable[..., "Any"]]:
    """Return a function that sets a scene with rechecks: arguments as `recheckkit.rechecked`."""
    async with AsyncExitStack() as stack:

        async def start(**arguments: Any) -> Story:  # noqa: ANN401 - as rechecked
            scene = rechecked(tmp_path / "access.log", clock, **arguments)
            return await stack.enter_async_context(scene)

        yield start


@pytest.fixture
async def gate(start_gate: Callable[..., Any], upstream: RawUpstream) -> RunningGate:
    """Return a gate with one route, open to everybody who is signed in, in front of `upstream`."""
    found = await start_gate(upstream.url)
    assert isinstance(found, RunningGate)
    return found
