"""`tailchat-groups`: lists the groups and roles of Tailchat that `[groups]` can name."""

import time
from pathlib import Path

import click

from tailchat_gate.commands.common import (
    EXIT_FAILED,
    config_option,
    fail,
    fit_for_a_terminal,
    json_option,
    loaded_from,
    print_json,
)
from tailchat_gate.commands.people.accounts import with_tailchat
from tailchat_gate.config.model import Settings
from tailchat_gate.diagnosis.sign_in import Seen, look
from tailchat_gate.people.api import TailchatApi
from tailchat_gate.people.bot import Bot, has_public_key
from tailchat_gate.people.groups.overview import lines_of, rows_of
from tailchat_gate.people.groups.watch import KEY_IS_PUBLIC


@click.command()
@config_option
@json_option
def tailchat_groups(config: Path, *, as_json: bool) -> None:
    """List the groups and roles that the gate's bot sees in Tailchat, with lines for [groups].

    For each it says who can let people in. Anybody can give a group any name, so look at the owner.

    Exit codes: 0 listed, 1 Tailchat does not answer the bot, 2 wrong configuration.
    """
    settings = loaded_from(config).settings
    seen, is_public = _seen(settings)
    if is_public:
        click.echo(f"warning: {KEY_IS_PUBLIC}", err=True)
    if seen.problem:
        fail(f"{seen.problem}; {seen.remedy}" if seen.remedy else seen.problem, EXIT_FAILED)
    if as_json:
        print_json(rows_of(seen.views))
        return
    if not seen.views:
        click.echo("the gate's bot is in no group of Tailchat", err=True)
    for line in lines_of(seen.views):
        click.echo(fit_for_a_terminal(line))


def _seen(settings: Settings) -> tuple[Seen, bool]:
    """Return the groups that the bot sees, and whether Tailchat's key is public."""
    tailchat = settings.tailchat

    async def ask(api: TailchatApi) -> tuple[Seen, bool]:
        bot = Bot(api, tailchat.client_id, tailchat.client_secret, time.time)
        is_public = await has_public_key(api, time.time()) is True
        return await look(settings, api, bot), is_public

    return with_tailchat(settings, ask)
