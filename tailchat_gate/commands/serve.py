"""`serve` and `demo`: run the gate."""

import logging
import os
from ipaddress import ip_address
from pathlib import Path
from typing import Final, NoReturn

import click

from tailchat_gate.commands.common import (
    EXIT_FAILED,
    Ended,
    config_option,
    fail,
    read_from,
    to_type,
)
from tailchat_gate.config.load import Loaded, Source
from tailchat_gate.config.state_directory import in_foreign_home, make_for
from tailchat_gate.config.values import address
from tailchat_gate.observe.log import (
    LOGGER_NAME,
    can_be_opened,
    close_logging,
    log_python_faults,
    set_up_logging,
)
from tailchat_gate.observe.turns import others
from tailchat_gate.serving.process import run
from tailchat_gate.serving.server import StartError
from tailchat_gate.serving.signals import Signals
from tailchat_gate.serving.surroundings import surroundings
from tailchat_gate.serving.systemd import PassedSocketError
from tailchat_gate.serving.upgrade import Predecessor, predecessor
from tailchat_gate.serving.wiring.build import build
from tailchat_gate.serving.workers.channel import ChannelError
from tailchat_gate.serving.workers.link import ParentLink, parent_link
from tailchat_gate.serving.workers.run import processors, run_parent
from tailchat_gate.serving.workers.worker import run_worker

_NOWHERE: Final = 'set state.path to another directory, or to "" to keep state in memory only'
_log: Final = logging.getLogger(LOGGER_NAME)


@click.command()
@config_option
def serve(config: Path) -> None:
    """Serve until SIGTERM or Ctrl-C; reload the configuration on SIGHUP."""
    signals = Signals()
    signals.take()
    before = predecessor(os.environ)
    try:
        parent = parent_link(os.environ)
    except ChannelError as error:
        fail(str(error), EXIT_FAILED)
    try:
        _serve(config, signals, before, parent)
    except Ended as ended:
        before.failed(ended.message)
        if parent is not None:
            parent.failed(ended.message)
        raise


def _refuse_log(key: str, error: OSError) -> NoReturn:
    """End the command because a log cannot be opened."""
    text = f"log.{key} cannot be opened: {error.filename}: {error.strerror}"
    denied = isinstance(error, PermissionError)
    remedy = "; let the gate's user write the file, or make files in its directory"
    fail(f"{text}{remedy if denied else ''}", EXIT_FAILED)


def _serve(config: Path, signals: Signals, before: Predecessor, parent: ParentLink | None) -> None:
    source = Source(config, os.environ)
    loaded = read_from(source)
    settings = loaded.settings
    log = settings.log
    try:
        if parent is None:
            before.share_logs()
            others.begin()
        set_up_logging(log.level, audit_file=log.audit_file, form=log.format)
    except OSError as error:
        _refuse_log("audit_file", error)
    try:
        can_be_opened(log.access_file)
    except OSError as error:
        _refuse_log("access_file", error)
    log_python_faults()
    if parent is None:
        _warn(loaded)
    try:
        _make_state_directory(settings.state.path)
        _run(loaded, signals, source, before, parent)
    except (PassedSocketError, StartError) as error:
        signals.code = EXIT_FAILED
        close_logging()
        fail(str(error), EXIT_FAILED)
    except Exception:  # noqa: BLE001 - logged below
        # Python's own traceback on standard error could block forever if nobody reads it.
        signals.code = EXIT_FAILED
        _log.exception("the gate has failed")
        raise SystemExit(EXIT_FAILED) from None
    finally:
        close_logging()


def _run(
    loaded: Loaded,
    signals: Signals,
    source: Source,
    before: Predecessor,
    parent: ParentLink | None,
) -> None:
    """Serve as a worker, as the parent of several workers, or alone."""
    settings = loaded.settings
    if parent is not None:
        run_worker(loaded, signals, source, parent)
        return
    around, workers = surroundings(os.environ, before), settings.server.workers
    count = workers if isinstance(workers, int) else processors()
    if count == 1:
        run(build(settings, sources=loaded.sources), signals, source, around)
    else:
        run_parent(loaded, signals, source, around, count)


def _warn(loaded: Loaded) -> None:
    for problem in loaded.located:
        _log.warning(to_type(str(problem)))
    if warning := in_foreign_home(loaded.settings.state.path, os.environ):
        _log.warning(f"state.path: {warning}")


def _make_state_directory(path: str) -> None:
    """Create the user's own state directory if `path` is that. Raises StartError."""
    try:
        make_for(path, os.environ)
    except OSError as error:
        problem = f"[state] path cannot be used: {error.filename}: {error.strerror}; {_NOWHERE}"
        raise StartError(problem, "state.path") from None


def _upstream(_context: click.Context, _option: click.Parameter, value: str) -> str:
    try:
        return address.upstream(value) if value else ""
    except ValueError as wrong:
        raise click.BadParameter(f"expected {wrong}") from None


def _address(_context: click.Context, _option: click.Parameter, value: str) -> str:
    try:
        return str(ip_address(value))
    except ValueError:
        raise click.BadParameter("expected an IP address, such as 0.0.0.0") from None


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=4180,
    show_default=True,
    help="Port of the gate; 0 for any.",
)
@click.option(
    "--upstream",
    metavar="URL",
    default="",
    callback=_upstream,
    help="Your own tool, such as http://127.0.0.1:3000, in place of the sample tools.",
)
@click.option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    callback=_address,
    help="Address to listen on; 0.0.0.0 in a container, with both its ports published.",
)
@click.option("--json", "as_json", is_flag=True, help="Print events as a gate logs them.")
def demo(port: int, upstream: str, host: str, *, as_json: bool) -> None:
    """Try it without a configuration: a stand-in Tailchat, sample tools and the gate.

    The command prints who can sign in, what to try, and a line for each event. Unless you give
    --host, everything listens on this machine only. Ctrl-C ends the demo and deletes its files.
    """
    from tailchat_gate.commands.demo import DemoError, run_demo  # noqa: PLC0415 - not for `serve`

    try:
        run_demo(port, upstream, host, as_json=as_json)
    except (DemoError, StartError) as error:
        fail(str(error), EXIT_FAILED)
