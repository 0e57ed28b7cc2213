"""`tailchat-groups`, and what `check --online` says of Tailchat's groups."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import click

from tailchat_gate.commands.common import EXIT_FAILED, config_option, fail, loaded_from
from tailchat_gate.commands.people import asked
from tailchat_gate.config.model import Settings
from tailchat_gate.people.api import CannotTell, Done, TailchatApi
from tailchat_gate.people.bot import Bot
from tailchat_gate.people.group_overview import GroupView, lines_of, read_views, warnings_of
from tailchat_gate.people.group_watch import KEY_IS_PUBLIC
from tailchat_gate.people.public_key import has_public_key

_GROUPS: Final = "group/getUserGroups"
_BASIC_INFO: Final = "group/getGroupBasicInfo"


class _Seen(NamedTuple):
    """What the bot sees: `problem` is why it sees nothing, "" where it does.

    `existing` are the ids of groups that exist although the bot is not in them.
    """

    views: tuple[GroupView, ...] = ()
    problem: str = ""
    public_key: bool = False
    existing: frozenset[str] = frozenset()


@click.command()
@config_option
def tailchat_groups(config: Path) -> None:
    """List the groups and roles that the gate's bot sees in Tailchat, with the lines to copy.

    For each it says who could let people in: names can be given to any group, so look at the owner.

    Exit codes: 0 listed, 1 Tailchat does not answer the bot, 2 wrong configuration.
    """
    settings = loaded_from(config).settings
    seen = _seen(settings)
    if seen.public_key:
        click.echo(f"warning: {KEY_IS_PUBLIC}", err=True)
    if seen.problem:
        fail(seen.problem, EXIT_FAILED)
    if not seen.views:
        click.echo("the gate's bot is in no group of Tailchat", err=True)
    for line in lines_of(seen.views):
        click.echo(line)


def group_warnings(settings: Settings) -> Iterator[str]:
    """Yield what is wrong with Tailchat's groups, or with its key."""
    seen = _seen(settings)
    if seen.public_key:
        yield KEY_IS_PUBLIC
    if any(group.sources for group in settings.groups.values()):
        if seen.problem:
            yield seen.problem
        else:
            yield from warnings_of(settings.groups, seen.views, seen.existing)


def _seen(settings: Settings) -> _Seen:
    tailchat = settings.tailchat

    async def ask(api: TailchatApi) -> _Seen:
        public = await has_public_key(api, time.time()) is True
        bot = Bot(api, tailchat.client_id, tailchat.client_secret, time.time)
        found = await bot.call(_GROUPS, {}, limit=tailchat.groups_max_bytes)
        views = read_views(found.data, bot.sub) if isinstance(found, Done) else None
        if views is None:
            said = found.problem or found.reason if isinstance(found, CannotTell) else ""
            problem = f"the gate's bot cannot ask Tailchat for its groups: {bot.problem or said}"
            return _Seen(
                problem=f"{problem}; {bot.remedy}" if bot.remedy else problem, public_key=public
            )
        sources = (source for group in settings.groups.values() for source in group.sources)
        missing = {source.group for source in sources} - {view.id for view in views}
        existing = {name for name in missing if await _exists(api, name)}
        return _Seen(tuple(views), "", public, frozenset(existing))

    return asked(settings, ask)


async def _exists(api: TailchatApi, group: str) -> bool:
    found = await api.call(_BASIC_INFO, {"groupId": group})
    return isinstance(found, Done) and found.data is not None
