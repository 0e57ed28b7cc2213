"""Asks Tailchat which account has a name, for commands."""

import asyncio
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import click

from tailchat_gate.commands.common import EXIT_FAILED, EXIT_USAGE, fail
from tailchat_gate.config.load import ConfigError, load
from tailchat_gate.config.model import Settings
from tailchat_gate.config.values.identifier import SUB
from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.people.api import ApiResult, CannotTell, Refused, TailchatApi
from tailchat_gate.people.bot import Bot
from tailchat_gate.people.search import FoundAccount, read_account, search
from tailchat_gate.proxy.upstream.resolver import Names, NamesResolver
from tailchat_gate.serving.wiring.tailchat_parts import back_channel

T = TypeVar("T")


def confirmed_target(text: str, config: Path) -> str:
    """Look a name up in Tailchat and return `sub:ID` after a confirmation; else end the command.

    Names are not unique: after renames two people can have the same, and Tailchat finds the first.
    So the caller has to look at the ID, which takes a terminal.
    """
    try:
        settings = load(config, os.environ).settings
    except ConfigError:
        fail("to look a name up takes a valid configuration: write sub:ID instead", EXIT_USAGE)
    person = find_person(settings, text)
    about = f"{text} is {SUB}{person.sub}{person.since}"
    if not sys.stdin.isatty():
        why = "two people can share a name, and without a terminal nobody can confirm it"
        fail(f"{about}; {why}: write {SUB}{person.sub} instead", EXIT_USAGE)
    if not click.confirm(f"{about}. Is that who you mean?", err=True):
        fail("nothing was changed", EXIT_FAILED)
    return f"{SUB}{person.sub}"


def known_person(settings: Settings, name: str) -> str:
    """Look a name up in Tailchat; print and return the sub."""
    person = find_person(settings, name)
    click.echo(f"{name} is {person.sub}{person.since}", err=True)
    if person.refusal is not None:
        warning = f"the gate refuses this account on every route: {person.refusal}"
        click.echo(f"warning: {warning}", err=True)
    return person.sub


def find_person(settings: Settings, name: str) -> FoundAccount:
    """Return the account with a name in Tailchat; end the command if it cannot be found."""

    async def ask(api: TailchatApi) -> tuple[ApiResult, str]:
        tailchat = settings.tailchat
        bot = Bot(api, tailchat.client_id, tailchat.client_secret, time.time)
        return await search(bot, name), bot.problem

    result, problem = with_tailchat(settings, ask)
    if isinstance(result, CannotTell):
        fail(f"Tailchat cannot be asked who {name} is: {result.why}", EXIT_FAILED)
    if isinstance(result, Refused):
        why = problem or f"status {result.status} {result.name}"
        fail(f"the gate's bot cannot ask Tailchat who {name} is: {why}; write sub:ID", EXIT_FAILED)
    if result.data is None:
        fail(f"nobody in Tailchat has the name {name}; check its capital letters", EXIT_FAILED)
    person = read_account(settings, name, result)
    if person is None:
        fail(f"Tailchat's answer about {name} cannot be read: write sub:ID", EXIT_FAILED)
    return person


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the gate's log off the terminal: the command itself says what the log would."""
    handler = logging.NullHandler()
    logger = logging.getLogger(LOGGER_NAME)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def with_tailchat(settings: Settings, ask: Callable[[TailchatApi], Awaitable[T]]) -> T:
    """Run `ask` with an API of Tailchat, in an event loop of its own, and return its result."""

    async def run() -> T:
        # With this resolver a lookup that is never answered does not delay the end of the command.
        channel = back_channel(settings, NamesResolver(Names()))
        try:
            return await ask(TailchatApi(channel, clock=time.time))
        finally:
            await channel.close()

    with quiet():
        return asyncio.run(run())
