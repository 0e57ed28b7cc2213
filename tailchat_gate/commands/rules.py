"""Commands that tell what the rules come to: explain, routes. They contact nothing."""

from pathlib import Path

import click

from tailchat_gate.build import route_table
from tailchat_gate.commands.asked import Asked, NotAskedError, read_asked
from tailchat_gate.commands.common import EXIT_FAILED, EXIT_USAGE, config_option, fail, loaded_from
from tailchat_gate.commands.locks import locked
from tailchat_gate.commands.outcome import Asker, explained
from tailchat_gate.config import word
from tailchat_gate.config.lint_people import no_tailchat_id
from tailchat_gate.config.model import Route

_HEADINGS = ("NAME", "HOST", "PATH", "METHODS", "ALLOW", "DENY", "UPSTREAM")


def _sub(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    # As `lock` and allow lists have it; the page shows the id alone.
    sub = value.removeprefix(word.SUB)
    _entry(word.SUB + sub, word.SUBS)
    return sub


def _token(_context: click.Context, _option: click.Parameter, value: str) -> str:
    name = value.removeprefix(word.TOKEN)
    if value:
        _entry(word.TOKEN + name, "the name of a token, as in token:NAME")
    return name


def _entry(entry: str, expected: str) -> None:
    try:
        word.deny_entry(entry)
    except ValueError:
        raise click.BadParameter(f"expected {expected}") from None


@click.command()
@config_option
@click.argument("url")
@click.option("--as", "sub", metavar="SUB", callback=_sub, help="Who asks; left out, nobody.")
@click.option("--token", metavar="NAME", default="", callback=_token, help="The machine that asks.")
@click.option("--method", "-X", metavar="METHOD", default="GET", show_default=True)
def explain(config: Path, url: str, sub: str | None, token: str, method: str) -> None:
    """Tell what becomes of a request for URL: route, rules, decision, and what the tool gets.

    Locks are looked up in the file; a session that was ended is not.

    Exit codes: 0 it is let through, 1 it is refused, 2 wrong configuration or usage.
    """
    if sub is not None and token:
        fail("--as or --token: who shows a token is a machine, signed in or not", EXIT_USAGE)
    settings = loaded_from(config).settings
    if token and token not in {known.name for known in settings.token}:
        told = f"warning: no [[token]] has the name {token}: such a one is refused as token-unknown"
        click.echo(told, err=True)
    if sub is not None and (odd := no_tailchat_id(sub)):
        click.echo(f"warning: {odd}: nobody signs in as that", err=True)
    try:
        asked: Asked = read_asked(url, method, settings)
    except NotAskedError as error:
        fail(str(error), EXIT_USAGE)
    lock = locked(settings, sub, token)
    allowed, lines = explained(settings, asked, Asker(sub, token, lock))
    for line in lines:
        click.echo(line)
    if not allowed:
        raise SystemExit(EXIT_FAILED)


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


def _row(route: Route) -> tuple[str, ...]:
    return (
        route.name,
        route.host or "any",
        route.path,
        ",".join(route.methods) or "any",
        ",".join(route.allow),
        ",".join(route.deny) or "-",
        route.upstream,
    )
