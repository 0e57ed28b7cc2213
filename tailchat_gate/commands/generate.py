"""`secret`, `key` and `token`: make new secrets for a configuration or a machine."""

import secrets

import click
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tailchat_gate.commands.common import EXIT_USAGE, fail
from tailchat_gate.config.values.identifier import token_name
from tailchat_gate.identity.machine_tokens import TOKEN_BYTES, hash_of, make_token
from tailchat_gate.identity.seal import new_secret


@click.command()
@click.argument("name")
def token(name: str) -> None:
    """Make a token for the machine NAME.

    The [[token]] for the configuration, with a hash, goes to standard output. The token itself goes
    to standard error, once; it is stored nowhere.
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
def secret() -> None:
    """Print a new secret for session.secret."""
    click.echo(new_secret())
