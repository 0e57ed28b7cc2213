"""`upgrade`: another process of the program takes over from the running gate."""

from pathlib import Path
from typing import Final

import click

from tailchat_gate.commands.admin import admin_option, ordered
from tailchat_gate.commands.common import EXIT_FAILED, config_option, fail
from tailchat_gate.serving.upgrade import START_SECONDS

_SIGNAL: Final = "upgrade needs server.admin_listen; without one, send the gate SIGUSR2"


@click.command()
@config_option
@admin_option
def upgrade(config: Path, admin: str | None) -> None:
    """Replace the running gate by the program that is installed now, and lose no request.

    The running gate starts the new process with its own arguments, passes it its sockets, and ends
    once that process serves. If the new process cannot start, the running gate continues, and the
    command prints why and exits with 1.
    """
    is_refused, outcome = ordered(config, admin, "upgrade", _SIGNAL, seconds=START_SECONDS + 10)
    if is_refused:
        after = (
            "no process took over; the gate stops"
            if outcome.get("stops")
            else "the running gate continues to serve"
        )
        fail(f"{outcome['problem']}\n\n{after}", EXIT_FAILED)
    click.echo(f"process {outcome['pid']} serves, version {outcome['version']}")
