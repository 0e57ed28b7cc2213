"""The command line: one group, its commands from the commands room."""

import gc
from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Final

import click

from tailchat_gate import __version__

#: In which module of the commands room each command is.
_MODULES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "serve": "serve",
        "reload": "admin",
        "init": "init",
        "upgrade": "upgrade",
        "check": "check",
        "doctor": "doctor",
        "explain": "explain",
        "routes": "config",
        "secret": "generate",
        "token": "generate",
        "key": "generate",
        "schema": "config",
        "lock": "locks",
        "unlock": "locks",
        "locks": "locks",
        "sign-out": "locks",
        "grant": "grants",
        "grants": "grants",
        "revoke": "grants",
        "requests": "grants",
        "forget": "forget",
        "sessions": "sessions",
        "health": "admin",
        "refusals": "admin",
        "tailchat-groups": "groups",
        "demo": "serve",
        "import-oauth2-proxy": "oauth2_proxy",
    }
)


class _Commands(click.Group):
    """Imports the module of a command with its command alone.

    To import all of the gate takes longer than most commands run; `health` runs every few seconds.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        del ctx
        return sorted(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by its name."""
        del ctx
        if cmd_name not in _MODULES:
            return None
        # Modules stay: to look for garbage among them again and again is a tenth of their import.
        gc.disable()
        try:
            module = import_module(f"tailchat_gate.commands.{_MODULES[cmd_name]}")
        finally:
            gc.enable()
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tailchat-gate")
def main() -> None:
    """Put any tool behind a Tailchat sign-in.

    Exit codes: 0 done, 1 could not start or did not answer, 2 wrong configuration or usage.
    """
