"""The command that has a running gate load its configuration anew."""

import http.client
import json
from pathlib import Path
from typing import Any, Final

import click

from tailchat_gate.admin import ORDER_HEADER
from tailchat_gate.commands.admin_listener import (
    Where,
    admin_listener,
    end_if_unreadable,
    exchange,
)
from tailchat_gate.commands.common import EXIT_FAILED, EXIT_USAGE, config_option, fail
from tailchat_gate.config.load import report
from tailchat_gate.config.problem import Problem

#: For a large file on a busy machine; the gate goes on whether or not it is waited for.
_SECONDS: Final = 60.0
_OK: Final = 200
_REFUSED: Final = 422
_SIGNAL: Final = "reload needs server.admin_listen; without one, send the gate SIGHUP"


@click.command()
@config_option
@click.option(
    "--admin",
    metavar="ADDRESS",
    help="Where the running gate's admin listener is, where the file now says another address.",
)
def reload(config: Path, admin: str | None) -> None:
    """Have the running gate load its configuration anew, and tell how it went.

    The gate is asked at server.admin_listen, and reads the file that it was started with. Ends
    with 2 and every problem where that file is refused; the gate then goes on as before.
    """
    where = admin_listener(config, admin, _SIGNAL)
    try:
        status, body = _order(where)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if admin is None:
            end_if_unreadable(config)
        fail(f"no gate answers at {where}: {error}; --admin names another address", EXIT_FAILED)
    if status == _REFUSED:
        problems = [Problem(**problem) for problem in body["problems"]]
        fail(f"{body['file']}: {report(problems)}\n\nnothing has changed", EXIT_USAGE)
    for warning in body["warnings"]:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"{body['file']}: in force, generation {body['generation']}")
    for change in body["changes"] or ["nothing in it has changed"]:
        click.echo(f"  {change}")


def _order(where: Where) -> tuple[int, dict[str, Any]]:
    """Give the order; return the status and the outcome. Raises OSError where nobody answers."""
    status, text = exchange(where, "POST", "/reload", {ORDER_HEADER: "reload"}, seconds=_SECONDS)
    if status not in {_OK, _REFUSED}:
        raise ConnectionError(f"{status} {text.decode(errors='replace').strip()[:200]}")
    body = json.loads(text)
    if not isinstance(body, dict):
        raise ValueError("an answer that is no gate's")  # noqa: TRY004 - of what was received
    return status, body
