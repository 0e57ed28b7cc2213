"""The command line: one group, its commands from the commands room."""

import errno
import gc
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from tailchat_gate import __version__

#: Set by the shell that completes a command line; click's own name for it.
COMPLETE: Final = "_TAILCHAT_GATE_COMPLETE"
#: The headings of `--help`; below each its commands, with the module of `commands` that has them.
_GROUPS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "Run": {
            "serve": "serve",
            "reload": "admin",
            "upgrade": "admin",
            "health": "admin",
            "demo": "serve",
        },
        "Configuration": {
            "init": "init",
            "check": "check",
            "routes": "config",
            "secret": "generate",
            "key": "generate",
            "schema": "config",
            "import-oauth2-proxy": "oauth2_proxy.conversion",
            "completion": "completion",
        },
        "People": {
            "lock": "people.locks",
            "unlock": "people.locks",
            "locks": "people.locks",
            "sign-out": "people.locks",
            "sessions": "people.sessions",
            "grant": "people.grants",
            "revoke": "people.grants",
            "grants": "people.grants",
            "requests": "people.grants",
            "forget": "people.forget",
            "tailchat-groups": "people.groups",
        },
        "Machines": {
            "token": "generate",
        },
        "Look": {
            "doctor": "doctor",
            "explain": "explain",
            "refusals": "admin",
        },
    }
)
#: The length to which click cuts a command's summary in `--help`: more than any has.
_LONGEST: Final = 200
_MODULES: Final = {name: module for group in _GROUPS.values() for name, module in group.items()}


class _Commands(click.Group):
    """Imports the module of a command only when that command runs.

    Importing the whole gate takes longer than most commands, and `health` runs every few seconds.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        del ctx
        return list(_MODULES)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands below the headings of their groups."""
        width = max(map(len, _MODULES))
        for heading, names in _GROUPS.items():
            commands = ((name, self.get_command(ctx, name)) for name in names)
            rows = [
                (name.ljust(width), command.get_short_help_str(_LONGEST))
                for name, command in commands
                if command
            ]
            with formatter.section(heading):
                formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return a command by its name; an unknown name gets the nearest known one."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches  # noqa: PLC0415 - for mistakes alone

            near = get_close_matches(args[0], _MODULES, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise click.UsageError(f"{error.message}{hint}", ctx) from None

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the names of commands without importing any."""
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [CompletionItem(name) for name in _MODULES if name.startswith(incomplete)]

    def main(self, *args: Any, **extra: Any) -> Any:  # noqa: ANN401 - as in the base class
        """Run a command, or complete one, where a shell asks for that."""
        if COMPLETE in os.environ:
            import_module("tailchat_gate.commands.completion")
        return super().main(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as in the base class
        """Run a command; an OSError becomes an error message without a traceback.

        EPIPE is left to click, which ends quietly when the reader of the output has gone.
        """
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            # As `nginx -t` and others take it; each other file has an option or argument.
            if error.message.endswith(".toml)") and "extra argument" in error.message:
                raise click.UsageError(f"{error.message}; --config names it", error.ctx) from None
            raise
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            raise click.ClickException(_explained(error)) from None

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by its name."""
        del ctx
        if cmd_name not in _MODULES:
            return None
        # Modules are never freed; collecting garbage between them costs a tenth of the import.
        gc.disable()
        try:
            module = import_module(f"tailchat_gate.commands.{_MODULES[cmd_name]}")
        finally:
            gc.enable()
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command


def _explained(error: OSError) -> str:
    try:
        Path.cwd()
    except OSError:
        return "the current directory is gone; change to another one"
    cause = error.strerror or str(error)
    return f"{error.filename}: {cause}" if error.filename else f"input or output: {cause}"


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tailchat-gate")
def main() -> None:
    """Put any tool behind a Tailchat sign-in.

    Exit codes: 0 done, 1 could not start or did not answer, 2 wrong configuration or usage.
    Commands with further exit codes list them in their help.
    """
