"""`doctor`: finds out what is wrong around the gate, and says how to repair it."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import click

from tailchat_gate.commands.admin import exchange
from tailchat_gate.commands.common import (
    EXIT_FAILED,
    EXIT_USAGE,
    colour,
    config_option,
    fit_for_a_terminal,
    json_option,
    print_json,
    to_type,
)
from tailchat_gate.commands.people.accounts import quiet
from tailchat_gate.config.load import (
    ConfigError,
    Loaded,
    admin_address,
    load,
    named,
    state_section,
)
from tailchat_gate.config.problems import Problem
from tailchat_gate.config.tables.process import State
from tailchat_gate.config.values.address import TcpAddress, UnixAddress, listen_address
from tailchat_gate.config.values.quantities import counted
from tailchat_gate.diagnosis import machine, running
from tailchat_gate.diagnosis.doctor import (
    SetUp,
    TailchatCalls,
    local_checks,
    network_checks,
    tailchat_checks,
)
from tailchat_gate.diagnosis.edge import after_sign_in
from tailchat_gate.diagnosis.statement import (
    CALL_SECONDS,
    Check,
    Mark,
    Statement,
    joined,
    run_checks,
    wrong,
)
from tailchat_gate.observe.log import Pace
from tailchat_gate.people.api import TailchatApi
from tailchat_gate.people.bot import Bot
from tailchat_gate.people.inquiry import Inquiry
from tailchat_gate.people.panel import Panel
from tailchat_gate.people.registration import RegistrationCheck
from tailchat_gate.proxy.upstream.backends import Dialer
from tailchat_gate.proxy.upstream.resolver import Names, NamesResolver
from tailchat_gate.serving.wiring.tailchat_parts import back_channel, sign_in_check

_COLOURS: Final = {
    Mark.OK: "green",
    Mark.WARNING: "yellow",
    Mark.WRONG: "red",
    Mark.UNKNOWN: "blue",
}
_NAME_WIDTH: Final = 17
_MARK_WIDTH: Final = 8


@click.command()
@config_option
@json_option
def doctor(config: Path, *, as_json: bool) -> None:
    """Check the gate's surroundings; say what is wrong and how to repair it.

    It asks Tailchat whether people can sign in, looks up the names of all hosts, and checks the
    tools, the gate's public address, the running gate and this machine. It changes nothing. Run it
    as the gate's user, or as root, where the gate runs. With an invalid configuration it checks
    only the running gate, which still has an earlier one, and the store.

    Exit codes: 0 nothing is wrong, 1 something is, 2 the configuration is invalid.
    """
    try:
        loaded = load(config, os.environ)
    except ConfigError as error:
        _print([*map(_of_problem, error.problems), *_despite(config)], as_json=as_json)
        sys.exit(EXIT_USAGE)
    statements = _examine(loaded, named(config, os.environ))
    _print(statements, as_json=as_json)
    if any(statement.mark is Mark.WRONG for statement in statements):
        sys.exit(EXIT_FAILED)


def ask_tailchat(loaded: Loaded, file: str) -> list[Statement]:
    """Run the checks of Tailchat; `file` names the configuration in their statements."""

    async def ask() -> list[Statement]:
        async with _set_up(loaded, file) as set_up:
            return joined(await run_checks(tuple(tailchat_checks(set_up))))

    with quiet():
        return asyncio.run(ask())


def _examine(loaded: Loaded, file: str) -> list[Statement]:
    """Run all checks."""
    settings = loaded.settings
    listens = settings.server.admin_listen
    where = listen_address(listens) if listens else None

    async def run() -> list[Statement]:
        async with _set_up(loaded, file) as set_up:
            checks = (
                *local_checks(set_up, await _running_gate(where)),
                *tailchat_checks(set_up),
                *network_checks(set_up),
            )
            statements = after_sign_in(await run_checks(checks))
        return joined(statements + await run_checks((_store(settings.state),)))

    with quiet():
        return asyncio.run(run())


def _despite(config: Path) -> list[Statement]:
    """Run the checks that need no valid configuration: a gate may still run with an earlier one."""
    file, state = named(config, os.environ), state_section(config, os.environ)
    try:
        where = admin_address(config, os.environ)
    except ValueError:
        return []

    async def run() -> list[Statement]:
        gate = await _running_gate(where)
        checks = [Check(running.GATE, partial(running.gate, str(where or ""), gate, file))]
        if gate.status is not None:
            descriptors = partial(machine.descriptors, gate.descriptors)
            checks.append(Check(machine.DESCRIPTORS, descriptors))
        statements = await run_checks(checks)
        return joined(statements + await run_checks((_store(state),) if state is not None else ()))

    with quiet():
        return asyncio.run(run())


def _store(state: State) -> Check:
    """Return the check of the store, which runs alone: it changes the user of the process."""
    return Check(machine.STORE, partial(machine.store, state, os.environ))


@asynccontextmanager
async def _set_up(loaded: Loaded, file: str) -> AsyncIterator[SetUp]:
    """Yield the set-up of the checks, and close its connections afterwards."""
    settings, tailchat = loaded.settings, loaded.settings.tailchat
    names = Names()
    channel = back_channel(settings, NamesResolver(names))
    api = TailchatApi(channel, clock=time.time)
    bot = Bot(api, tailchat.client_id, tailchat.client_secret, time.time)
    calls = TailchatCalls(
        sign_in_check(settings, channel, time.time),
        api,
        bot,
        Inquiry(api, bot, api_url=tailchat.api_url, keeps_emails=False),
        RegistrationCheck(settings, api, set()),
        Panel(
            bot,
            settings.access.panel,
            Pace(time.time),
            max_bytes=tailchat.groups_max_bytes,
        ),
    )
    try:
        yield SetUp(loaded, file, os.environ, calls, Dialer(names), time.time)
    finally:
        await channel.close()


async def _running_gate(where: TcpAddress | UnixAddress | None) -> running.Running:
    if where is None:
        return running.Running()

    def ask(path: str) -> tuple[int, bytes]:
        return exchange(where, "GET", path, seconds=CALL_SECONDS)

    return await running.look(ask)


def _of_problem(problem: Problem) -> Statement:
    text = f"{problem.key_path}: found {problem.found}"
    return wrong(machine.CONFIGURATION, text, f"expected {problem.expected}")


def _print(statements: Sequence[Statement], *, as_json: bool) -> None:
    if as_json:
        rows = [
            {
                "check": statement.name,
                "mark": statement.mark,
                "text": statement.text,
                "next": to_type(statement.remedy),
            }
            for statement in statements
        ]
        passed = all(statement.mark is not Mark.WRONG for statement in statements)
        print_json({"ok": passed, "checks": rows})
        return
    for statement in statements:
        mark = click.style(f"{statement.mark:<{_MARK_WIDTH}}", fg=_COLOURS[statement.mark])
        click.echo(
            f"{mark}{statement.name:<{_NAME_WIDTH}}{fit_for_a_terminal(statement.text)}",
            color=colour(),
        )
        if statement.remedy and statement.mark is not Mark.OK:
            remedy = fit_for_a_terminal(to_type(statement.remedy))
            click.echo(f"{'':<{_MARK_WIDTH + _NAME_WIDTH}}-> {remedy}")
    count = {mark: sum(statement.mark is mark for statement in statements) for mark in Mark}
    warnings = counted(count[Mark.WARNING], "warning")
    others = f"{count[Mark.UNKNOWN]} unknown, {count[Mark.OK]} ok"
    click.echo(f"{count[Mark.WRONG]} wrong, {warnings}, {others}")
