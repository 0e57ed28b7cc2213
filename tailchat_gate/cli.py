"""The command line: serve, check, secret, schema, health, demo."""

import logging
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final, NoReturn

import click

from tailchat_gate import __version__
from tailchat_gate.build import build, redirect_uri
from tailchat_gate.config.address import TcpAddress, listen_address
from tailchat_gate.config.load import ConfigError, Loaded, load, report
from tailchat_gate.config.problem import Problem
from tailchat_gate.config.schema import schema_text
from tailchat_gate.identity.seal import new_secret
from tailchat_gate.observe.log import LOGGER_NAME, set_up_logging
from tailchat_gate.server import StartError, run

#: The gate could not start or did not answer.
EXIT_FAILED: Final = 1
#: The configuration or the command line is wrong (click's own number for the latter).
EXIT_USAGE: Final = 2

_DEFAULT_CONFIG: Final = "/etc/tailchat-gate/config.toml"
_HEALTH_SECONDS: Final = 3.0

_config_option = click.option(
    "--config",
    "-c",
    "config",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="TAILCHAT_GATE_CONFIG",
    default=_DEFAULT_CONFIG,
    show_default=True,
    help="The TOML file; TAILCHAT_GATE_CONFIG in the environment names it too.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tailchat-gate")
def main() -> None:
    """Put any tool behind a Tailchat sign-in.

    Exit codes: 0 done, 1 could not start or did not answer, 2 wrong configuration or usage.
    """


@main.command()
@_config_option
def serve(config: Path) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    loaded = _load(config)
    settings = loaded.settings
    set_up_logging(settings.log.level)
    for warning in loaded.warnings:
        logging.getLogger(LOGGER_NAME).warning(warning)
    try:
        run(build(settings))
    except StartError as error:
        _fail(str(error), EXIT_FAILED)


@main.command()
@_config_option
def check(config: Path) -> None:
    """Check the configuration without starting; tell every problem at once."""
    loaded = _load(config)
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)
    routes = len(loaded.settings.route)
    click.echo(f"{config}: good, {routes} {'route' if routes == 1 else 'routes'}")
    for route in loaded.settings.route:
        click.echo(f"  {route.name}: {', '.join(route.allow)}")
    click.echo(f"redirect_uri to register in Tailchat: {redirect_uri(loaded.settings)}")


@main.command()
def secret() -> None:
    """Print a new secret for session.secret."""
    click.echo(new_secret())


@main.command()
def schema() -> None:
    """Print the JSON Schema of the configuration file, for editors."""
    click.echo(schema_text(), nl=False)


@main.command()
@_config_option
def health(config: Path) -> None:
    """Ask the running gate's admin listener whether it is well; for container health checks."""
    address = _load(config).settings.server.admin_listen
    where = listen_address(address) if address else None
    if not isinstance(where, TcpAddress):
        _fail("health needs server.admin_listen with a host and port", EXIT_USAGE)
    # Every address of the machine is no address to ask.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(where.host, where.host)  # noqa: S104 - compared only
    url = f"http://{TcpAddress(host, where.port)}/healthz"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_HEALTH_SECONDS):
            click.echo("ok")
    except (OSError, urllib.error.HTTPError) as error:
        _fail(f"{url} does not answer: {error}", EXIT_FAILED)


@main.command()
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
        _fail(str(error), EXIT_FAILED)


def _load(path: Path) -> Loaded:
    problems: tuple[Problem, ...] = ()
    try:
        return load(path, os.environ)
    except ConfigError as error:
        problems = error.problems
    return _fail(f"{path}: {report(problems)}", EXIT_USAGE)


def _fail(message: str, code: int) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(code)
