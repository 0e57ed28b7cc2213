"""`check`, `schema`, `secret`, `key` and `token`: help with writing a configuration."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import click
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tailchat_gate.commands.common import EXIT_FAILED, EXIT_USAGE, config_option, fail, loaded_from
from tailchat_gate.commands.obstacles import obstacles
from tailchat_gate.config.keys import schema_text
from tailchat_gate.config.lint.addresses import beside_the_gate
from tailchat_gate.config.load import named
from tailchat_gate.config.model import Settings
from tailchat_gate.config.state_directory import in_foreign_home
from tailchat_gate.config.values.identifier import token_name
from tailchat_gate.identity.machine_tokens import TOKEN_BYTES, hash_of, make_token
from tailchat_gate.identity.seal import new_secret
from tailchat_gate.serving.rooms import redirect_uri


@click.command()
@click.argument("name")
def token(name: str) -> None:
    """Make a token for the machine NAME.

    Standard output gets the [[token]] for the configuration, which holds a hash and no secret.
    The token itself is shown once, on standard error, and kept nowhere.
    """
    problem = ""
    try:
        token_name(name)
    except ValueError as error:
        problem = str(error)
    if problem:
        fail(f"NAME: {problem}", EXIT_USAGE)
    made = make_token(secrets.token_bytes(TOKEN_BYTES))
    click.echo(f'[[token]]\nname = "{name}"\nhash = "{hash_of(made)}"')
    click.echo(f"The token, for the machine alone (Authorization: Bearer ...):\n{made}", err=True)


@click.command()
def key() -> None:
    """Print a new private key, EC P-256 in PEM, for a file of assertion.key_files."""
    made = generate_private_key(SECP256R1())
    pem = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    click.echo(pem.decode("ascii"), nl=False)


@click.command()
@config_option
def check(config: Path) -> None:
    """Check the configuration without starting; tell every problem at once.

    Exit codes: 0 good, 1 the gate would not start with it on this machine, 2 wrong.
    """
    loaded = loaded_from(config)
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)
    settings = loaded.settings
    for told in (*beside_the_gate(settings), *_foreign(settings)):
        click.echo(f"warning: {told}", err=True)
    found = list(obstacles(settings))
    for one in found:
        click.echo(f"warning: {one.key}: {one.told}; the gate does not start with that", err=True)
    # A missing file may exist on the gate's machine; a wrong one is wrong everywhere.
    stopped = not all(one.missing for one in found)
    routes = len(settings.route)
    state = "right by itself" if stopped else "good"
    name = named(config, os.environ)
    click.echo(f"{name}: {state}, {routes} {'route' if routes == 1 else 'routes'}")
    for route in settings.route:
        click.echo(f"  {route.name}: {', '.join(route.allow)}")
    click.echo(f"redirect_uri to register in Tailchat: {redirect_uri(settings)}")
    if stopped:
        fail("on this machine the gate does not start with it", EXIT_FAILED)


def _foreign(settings: Settings) -> Iterator[str]:
    told = in_foreign_home(settings.state.path, os.environ) if settings.state.path else ""
    if told:
        yield f"state.path: {told}"


@click.command()
def secret() -> None:
    """Print a new secret for session.secret."""
    click.echo(new_secret())


@click.command()
def schema() -> None:
    """Print the JSON Schema of the configuration file, for editors."""
    click.echo(schema_text(), nl=False)
