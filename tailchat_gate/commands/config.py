"""`routes` and `schema`: help with a configuration."""

from pathlib import Path

import click

from tailchat_gate.commands.common import config_option, loaded_from
from tailchat_gate.config.keys import schema_text
from tailchat_gate.config.model import RouteSettings


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
