"""The command that lists who was refused what, so that a sub can be copied into a group."""

import json
from pathlib import Path

import click

from tailchat_gate.commands.admin_listener import asked
from tailchat_gate.commands.common import config_option


@click.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print what the admin listener says.")
def refusals(config: Path, *, as_json: bool) -> None:
    """List the last persons and machines that were refused a tool, the latest first."""
    body = asked(config, "/refusals").decode()
    if as_json:
        click.echo(body, nl=False)
        return
    found = json.loads(body)["refusals"]
    if not found:
        click.echo("nobody was refused since the gate was started")
    for one in found:
        # A machine has neither.
        named = one["nickname"] or one["discriminator"]
        who = _plain(f"  {one['nickname']}#{one['discriminator']}") if named else ""
        times = "once" if one["count"] == 1 else f"{one['count']} times"
        click.echo(f"{one['last']}  {one['sub']}{who}")
        click.echo(f"    {one['route']}: {one['reason']}, {times}")


def _plain(text: str) -> str:
    """Return a stranger's text without what a terminal would act on."""
    return "".join(char if char.isprintable() else "?" for char in text)
