"""`routes` and `schema`: print the routes of a configuration, and the schema of its file."""

from pathlib import Path

import click

from tailchat_gate.commands.common import (
    config_option,
    json_option,
    loaded_from,
    print_json,
    print_table,
)
from tailchat_gate.config.keys import schema_text
from tailchat_gate.config.model import RouteSettings


@click.command()
def schema() -> None:
    """Print the JSON Schema of the configuration file, for editors."""
    click.echo(schema_text(), nl=False)


_HEADINGS = ("NAME", "HOST", "PATH", "METHODS", "ALLOW", "DENY", "UPSTREAM")


@click.command()
@config_option
@json_option
def routes(config: Path, *, as_json: bool) -> None:
    """Print the routes in the order in which the gate tries them.

    The first route whose host, path and methods match a request serves it. If routes match its host
    and path, but none accepts its method, the gate refuses it.
    """
    from tailchat_gate.serving.wiring.config_parts import route_table  # noqa: PLC0415 - `schema` needs no table

    settings = loaded_from(config).settings
    in_order = [route.settings for route in route_table(settings).in_order]
    if as_json:
        print_json({"routes": list(map(_row, in_order)), "deny": list(settings.access.deny)})
        return
    print_table([_HEADINGS, *map(_cells, in_order)])
    if settings.access.deny:
        click.echo(f"\nDenied on all of them: {', '.join(settings.access.deny)}")


def _cells(route: RouteSettings) -> tuple[str, ...]:
    return (
        route.name,
        route.host or "any",
        route.path,
        ",".join(route.methods) or "any",
        ",".join(route.allow),
        ",".join(route.deny) or "-",
        route.upstream_text,
    )


def _row(route: RouteSettings) -> dict[str, object]:
    return {
        "name": route.name,
        "host": route.host,
        "path": route.path,
        "methods": list(route.methods),
        "allow": list(route.allow),
        "deny": list(route.deny),
        "upstream": list(route.backends),
    }
