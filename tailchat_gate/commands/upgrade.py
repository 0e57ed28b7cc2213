"""`upgrade`: another process of the program takes over from the running gate."""

import http.client
import json
from pathlib import Path
from typing import Final

import click

from tailchat_gate.commands.admin import admin_listener, end_if_unreadable, exchange
from tailchat_gate.commands.common import EXIT_FAILED, config_option, fail
from tailchat_gate.request.field_names import ORDER_HEADER
from tailchat_gate.serving.upgrade import START_SECONDS

_OK: Final = 200
_REFUSED: Final = 422
_SIGNAL: Final = "upgrade needs server.admin_listen; without one, send the gate SIGUSR2"


@click.command()
@config_option
@click.option(
    "--admin",
    metavar="ADDRESS",
    help="Address of the running gate's admin listener, if it is not the one in the file.",
)
def upgrade(config: Path, admin: str | None) -> None:
    """Replace the running gate by the program that is installed now, and lose no request.

    The running gate starts the new process as it was started itself, passes it its sockets, and
    ends once that process serves. If the new one cannot start, the running gate continues, and the
    command prints why and exits with 1.
    """
    where = admin_listener(config, admin, _SIGNAL)
    seconds = START_SECONDS + 10
    try:
        status, text = exchange(
            where, "POST", "/upgrade", {ORDER_HEADER: "upgrade"}, seconds=seconds
        )
        if status not in {_OK, _REFUSED}:
            raise ConnectionError(f"{status} {text.decode(errors='replace').strip()[:200]}")
        outcome = json.loads(text)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if admin is None:
            end_if_unreadable(config)
        fail(f"no gate answers at {where}: {error}; --admin names another address", EXIT_FAILED)
    if outcome["problem"]:
        fail(f"{outcome['problem']}\n\nthe running gate continues to serve", EXIT_FAILED)
    click.echo(f"process {outcome['pid']} serves, version {outcome['version']}")
