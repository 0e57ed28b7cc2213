"""`check`, `routes` and `schema`: help with a configuration."""

import os
from collections.abc import Iterator
from pathlib import Path

import click

from tailchat_gate.commands.common import EXIT_FAILED, config_option, fail, loaded_from
from tailchat_gate.config.keys import schema_text
from tailchat_gate.config.lint.addresses import beside_the_gate
from tailchat_gate.config.load import Loaded, named
from tailchat_gate.config.model import RouteSettings, Settings
from tailchat_gate.config.state_directory import in_foreign_home
from tailchat_gate.diagnosis.obstacles import obstacles


@click.command()
@config_option
@click.option(
    "--online",
    is_flag=True,
    help="Also ask Tailchat whether people can sign in, who can get an account, and about groups.",
)
def check(*, config: Path, online: bool) -> None:
    """Check the configuration without starting, and list every problem at once.

    Exit codes: 0 valid, 1 the gate would not start with it on this machine, 2 invalid.
    """
    loaded = loaded_from(config)
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)
    settings = loaded.settings
    for warning in (*beside_the_gate(settings), *_foreign(settings)):
        click.echo(f"warning: {warning}", err=True)
    name = named(config, os.environ)
    for warning in _online(loaded, name) if online else ():
        click.echo(f"warning: {warning}", err=True)
    found = list(obstacles(settings))
    for key, problem, _ in found:
        click.echo(f"warning: {key}: {problem}; the gate does not start with that", err=True)
    # A missing file may exist on the gate's machine; a wrong one is wrong everywhere.
    stopped = not all(one.missing for one in found)
    routes = len(settings.route)
    state = "right by itself" if stopped else "good"
    click.echo(f"{name}: {state}, {routes} {'route' if routes == 1 else 'routes'}")
    for route in settings.route:
        click.echo(f"  {route.name}: {', '.join(route.allow)}")
    click.echo(f"redirect_uri to register in Tailchat: {settings.redirect_uri}")
    if stopped:
        fail("on this machine the gate does not start with it", EXIT_FAILED)


def _online(loaded: Loaded, name: str) -> tuple[str, ...]:
    from tailchat_gate.commands.doctor import ask_tailchat  # noqa: PLC0415 - for --online alone
    from tailchat_gate.diagnosis.sign_in import as_sentence  # noqa: PLC0415 - for --online alone

    return tuple(as_sentence(said) for said in ask_tailchat(loaded, name) if said.asks_for_a_look)


def _foreign(settings: Settings) -> Iterator[str]:
    warning = in_foreign_home(settings.state.path, os.environ) if settings.state.path else ""
    if warning:
        yield f"state.path: {warning}"


@click.command()
def schema() -> None:
    """Print the JSON Schema of the configuration file, for editors."""
    click.echo(schema_text(), nl=False)


_HEADINGS = ("NAME", "HOST", "PATH", "METHODS", "ALLOW", "DENY", "UPSTREAM")


@click.command()
@config_option
def routes(config: Path) -> None:
    """Print the routes in the order in which the gate tries them.

    The first route whose host, path and methods match a request serves it. The gate refuses a
    request whose host and path match, but whose method no route with them accepts.
    """
    from tailchat_gate.serving.rooms import route_table  # noqa: PLC0415 - `check` needs no table

    settings = loaded_from(config).settings
    table = [_HEADINGS, *(_row(route.settings) for route in route_table(settings).in_order)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
    if settings.access.deny:
        click.echo(f"\nDenied on all of them: {', '.join(settings.access.deny)}")


def _row(route: RouteSettings) -> tuple[str, ...]:
    return (
        route.name,
        route.host or "any",
        route.path,
        ",".join(route.methods) or "any",
        ",".join(route.allow),
        ",".join(route.deny) or "-",
        route.upstream_text,
    )
