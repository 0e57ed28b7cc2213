"""The command line: one group, its commands from the commands room."""

import click

from tailchat_gate import __version__
from tailchat_gate.commands import admin, config, explain, locks, serve
from tailchat_gate.commands.admin import refusals
from tailchat_gate.commands.forget import forget


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tailchat-gate")
def main() -> None:
    """Put any tool behind a Tailchat sign-in.

    Exit codes: 0 done, 1 could not start or did not answer, 2 wrong configuration or usage.
    """


for command in (
    serve.serve,
    admin.reload,
    config.check,
    explain.explain,
    config.routes,
    config.secret,
    config.token,
    config.key,
    config.schema,
    locks.lock,
    locks.unlock,
    locks.locks,
    locks.sign_out,
    forget,
    serve.health,
    refusals,
    serve.demo,
):
    main.add_command(command)
