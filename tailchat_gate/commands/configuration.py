"""Commands that look at the configuration without serving: check, secret, schema."""

import os
from collections.abc import Iterator
from pathlib import Path

import click

from tailchat_gate.build import redirect_uri
from tailchat_gate.commands.common import config_option, loaded_from
from tailchat_gate.config.lint_addresses import beside_the_gate
from tailchat_gate.config.model import Settings
from tailchat_gate.config.schema import schema_text
from tailchat_gate.config.state_directory import is_made
from tailchat_gate.identity.seal import new_secret


@click.command()
@config_option
def check(config: Path) -> None:
    """Check the configuration without starting; tell every problem at once."""
    loaded = loaded_from(config)
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)
    for told in (*beside_the_gate(loaded.settings), *_missing(loaded.settings)):
        click.echo(f"warning: {told}", err=True)
    routes = len(loaded.settings.route)
    click.echo(f"{config}: good, {routes} {'route' if routes == 1 else 'routes'}")
    for route in loaded.settings.route:
        click.echo(f"  {route.name}: {', '.join(route.allow)}")
    click.echo(f"redirect_uri to register in Tailchat: {redirect_uri(loaded.settings)}")


def _missing(settings: Settings) -> Iterator[str]:
    """Tell of directories that a start needs on this machine, which may be another than the gate's.

    Only that, because whether the gate may write there is its user's affair.
    """
    written = {"locks.file": settings.locks.file, "log.audit_file": settings.log.audit_file}
    for key, file in written.items():
        folder = Path(file).parent
        if file and not folder.is_dir() and not is_made(file, os.environ):
            yield f"{key}: there is no directory {folder} here; the gate does not start without it"


@click.command()
def secret() -> None:
    """Print a new secret for session.secret."""
    click.echo(new_secret())


@click.command()
def schema() -> None:
    """Print the JSON Schema of the configuration file, for editors."""
    click.echo(schema_text(), nl=False)
