"""The command line: one group, its commands from the commands room."""

import click

from tailchat_gate import __version__
from tailchat_gate.commands import configuration, locks, process, reload, rules, token
from tailchat_gate.commands.forget import forget
from tailchat_gate.commands.refusals import refusals


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tailchat-gate")
def main() -> None:
    """Put any tool behind a Tailchat sign-in.

    Exit codes: 0 done, 1 could not start or did not answer, 2 wrong configuration or usage.
    """


for command in (
    process.serve,
    reload.reload,
    configuration.check,
    rules.explain,
    rules.routes,
    configuration.secret,
    token.token,
    token.key,
    configuration.schema,
    locks.lock,
    locks.unlock,
    locks.locks,
    locks.sign_out,
    forget,
    process.health,
    refusals,
    process.demo,
):
    main.add_command(command)
