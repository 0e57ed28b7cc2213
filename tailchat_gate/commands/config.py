"""`check`, `routes` and `schema`: help with a configuration."""

import grp
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from tailchat_gate.commands.common import EXIT_FAILED, config_option, fail, loaded_from
from tailchat_gate.config.keys import schema_text
from tailchat_gate.config.lint.addresses import beside_the_gate
from tailchat_gate.config.load import named
from tailchat_gate.config.model import RouteSettings, Settings
from tailchat_gate.config.state_directory import in_foreign_home, is_made, writable_by_all
from tailchat_gate.config.values.address import UnixAddress, listen_address
from tailchat_gate.state.files import NAME


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
    for warning in _online(settings) if online else ():
        click.echo(f"warning: {warning}", err=True)
    found = list(obstacles(settings))
    for key, problem, _ in found:
        click.echo(f"warning: {key}: {problem}; the gate does not start with that", err=True)
    # A missing file may exist on the gate's machine; a wrong one is wrong everywhere.
    stopped = not all(one.missing for one in found)
    routes = len(settings.route)
    state = "right by itself" if stopped else "good"
    name = named(config, os.environ)
    click.echo(f"{name}: {state}, {routes} {'route' if routes == 1 else 'routes'}")
    for route in settings.route:
        click.echo(f"  {route.name}: {', '.join(route.allow)}")
    click.echo(f"redirect_uri to register in Tailchat: {settings.redirect_uri}")
    if stopped:
        fail("on this machine the gate does not start with it", EXIT_FAILED)


def _online(settings: Settings) -> tuple[str, ...]:
    # Imported here, so that `check` loads no more than it needs.
    from tailchat_gate.commands.groups import group_warnings  # noqa: PLC0415
    from tailchat_gate.commands.people import (  # noqa: PLC0415
        registration_warnings,
        sign_in_warnings,
    )

    return (
        *sign_in_warnings(settings),
        *registration_warnings(settings),
        *group_warnings(settings),
    )


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
    # Imported here, so that `check` loads no more than it needs.
    from tailchat_gate.serving.rooms import route_table  # noqa: PLC0415

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


class Obstacle(NamedTuple):
    """What would prevent a start, with the key that names it.

    `missing`: a file, directory or group does not exist, as on a machine other than the gate's.
    """

    key: str
    problem: str
    missing: bool = False


def obstacles(settings: Settings) -> Iterator[Obstacle]:
    """Check what a start opens: files, the directories of files and sockets, a group.

    Write permission is not checked, because it depends on the gate's user. Free addresses are not
    checked either, because a running gate uses them.
    """
    if settings.state.path:
        yield from _of_state("state.path", Path(settings.state.path))
    if settings.log.audit_file:
        yield from _of_file("log.audit_file", Path(settings.log.audit_file))
    server = settings.server
    for key, texts in (("listen", server.listen), ("admin_listen", (server.admin_listen,))):
        for text in filter(None, texts):
            yield from _of_listener(f"server.{key}", listen_address(text))
    if server.unix_group and not server.unix_group.isdecimal():
        try:
            grp.getgrnam(server.unix_group)
        except KeyError:
            problem = f"there is no group {server.unix_group} here"
            yield Obstacle("server.unix_group", problem, missing=True)


def _of_state(key: str, folder: Path) -> Iterator[Obstacle]:
    """Check the directory of the stored locks."""
    if is_made(str(folder), os.environ) and not folder.exists():
        there = next(parent for parent in folder.parents if parent.exists())
        if not there.is_dir():
            yield Obstacle(key, f"{there} is no directory")
        return
    file = folder / NAME
    yield from _of_file(key, file)
    if file.is_symlink():
        yield Obstacle(key, f"{file} is a symbolic link, which may lead anywhere")
    else:
        yield from (Obstacle(key, found) for found in map(_open_to_all, (folder, file)) if found)


def _open_to_all(path: Path) -> str:
    try:
        return writable_by_all(path, path.stat().st_mode)
    except OSError:
        return ""


def _of_file(key: str, file: Path) -> Iterator[Obstacle]:
    yield from _of_directory(key, file.parent)
    if file.is_dir():
        yield Obstacle(key, f"{file} is a directory")


def _of_listener(key: str, where: object) -> Iterator[Obstacle]:
    if not isinstance(where, UnixAddress):
        return
    path = Path(where.path)
    yield from _of_directory(key, path.parent)
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except OSError:
        return
    if not is_socket:
        yield Obstacle(key, f"{path} is there and is no socket")


def _of_directory(key: str, folder: Path) -> Iterator[Obstacle]:
    if folder.is_dir():
        return
    if folder.exists():
        yield Obstacle(key, f"{folder} is no directory")
    else:
        yield Obstacle(key, f"there is no directory {folder} here", missing=True)
