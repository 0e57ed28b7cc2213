"""`routes`: the routes of a configuration in the order of matching."""

from pathlib import Path

import click

from tailchat_gate.commands.common import config_option, loaded_from
from tailchat_gate.config.model import Route as RouteSettings
from tailchat_gate.serving.rooms import route_table

_HEADINGS = ("NAME", "HOST", "PATH", "METHODS", "ALLOW", "DENY", "UPSTREAM")


@click.command()
@config_option
def routes(config: Path) -> None:
    """Print the routes in the order in which they count.

    The first whose host, path and methods fit a request serves it. Where host and path fit and
    no route of the same host and path takes the method, it is refused.
    """
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
        route.upstream,
    )
