"""Commands that look at the configuration without serving: check, secret, schema."""

import os
from collections.abc import Iterator
from pathlib import Path

import click

from tailchat_gate.build import redirect_uri
from tailchat_gate.commands.common import EXIT_FAILED, config_option, fail, loaded_from
from tailchat_gate.commands.obstacles import obstacles
from tailchat_gate.config.lint_addresses import beside_the_gate
from tailchat_gate.config.model import Settings
from tailchat_gate.config.schema import schema_text
from tailchat_gate.config.state_directory import in_foreign_home
from tailchat_gate.identity.seal import new_secret


@click.command()
@config_option
def check(config: Path) -> None:
    """Check the configuration without starting; tell every problem at once.

    Exit codes: 0 good, 1 the gate would not start with it on this machine, 2 wrong.
    """
    loaded = loaded_from(config)
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)
    settings = loaded.settings
    for told in (*beside_the_gate(settings), *_foreign(settings)):
        click.echo(f"warning: {told}", err=True)
    found = list(obstacles(settings))
    for one in found:
        click.echo(f"warning: {one.key}: {one.told}; the gate does not start with that", err=True)
    # What is missing may be there on the gate's machine; what is there and wrong is here.
    stopped = not all(one.missing for one in found)
    routes = len(settings.route)
    state = "right by itself" if stopped else "good"
    click.echo(f"{config}: {state}, {routes} {'route' if routes == 1 else 'routes'}")
    for route in settings.route:
        click.echo(f"  {route.name}: {', '.join(route.allow)}")
    click.echo(f"redirect_uri to register in Tailchat: {redirect_uri(settings)}")
    if stopped:
        fail("on this machine the gate does not start with it", EXIT_FAILED)


def _foreign(settings: Settings) -> Iterator[str]:
    told = in_foreign_home(settings.state.path, os.environ) if settings.state.path else ""
    if told:
        yield f"state.path: {told}"


@click.command()
def secret() -> None:
    """Print a new secret for session.secret."""
    click.echo(new_secret())


@click.command()
def schema() -> None:
    """Print the JSON Schema of the configuration file, for editors."""
    click.echo(schema_text(), nl=False)
