"""Commands around the serving process: serve, health, demo."""

import logging
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final

import click

from tailchat_gate.build import build
from tailchat_gate.commands.common import (
    EXIT_FAILED,
    EXIT_USAGE,
    config_option,
    fail,
    loaded_from,
)
from tailchat_gate.config.address import TcpAddress, listen_address
from tailchat_gate.observe.log import LOGGER_NAME, set_up_logging
from tailchat_gate.server import StartError, run

_HEALTH_SECONDS: Final = 3.0


@click.command()
@config_option
def serve(config: Path) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    loaded = loaded_from(config)
    settings = loaded.settings
    set_up_logging(settings.log.level)
    for warning in loaded.warnings:
        logging.getLogger(LOGGER_NAME).warning(warning)
    try:
        run(build(settings))
    except StartError as error:
        fail(str(error), EXIT_FAILED)


@click.command()
@config_option
def health(config: Path) -> None:
    """Ask the running gate's admin listener whether it is well; for container health checks."""
    address = loaded_from(config).settings.server.admin_listen
    where = listen_address(address) if address else None
    if not isinstance(where, TcpAddress):
        fail("health needs server.admin_listen with a host and port", EXIT_USAGE)
    # Every address of the machine is no address to ask.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(where.host, where.host)  # noqa: S104 - compared only
    url = f"http://{TcpAddress(host, where.port)}/healthz"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_HEALTH_SECONDS):
            click.echo("ok")
    except (OSError, urllib.error.HTTPError) as error:
        fail(f"{url} does not answer: {error}", EXIT_FAILED)


@click.command()
@click.option("--port", default=4180, show_default=True, help="Port of the gate; 0 for any.")
def demo(port: int) -> None:
    """Try it without a configuration: a stand-in Tailchat, a sample tool and the gate.

    Everything listens on this machine alone and is forgotten on Ctrl-C.
    """
    # Only here, because no other command should pay for loading a Tailchat and a tool.
    from tailchat_gate.demonstrate import DemoError, run_demo  # noqa: PLC0415

    try:
        run_demo(port)
    except (DemoError, StartError) as error:
        fail(str(error), EXIT_FAILED)
