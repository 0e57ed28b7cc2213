"""`init`: asks three questions and writes a first configuration with its secrets."""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click
from pydantic import TypeAdapter, ValidationError

from tailchat_gate import __version__
from tailchat_gate.commands.common import EXIT_FAILED, EXIT_USAGE, fail, toml
from tailchat_gate.config.overlay import DEFAULT_CONFIG
from tailchat_gate.config.tables.fields import BaseUrl, ClientId, Origin
from tailchat_gate.config.tables.route_fields import Upstream
from tailchat_gate.config.values.address import HttpAddress, upstream_address
from tailchat_gate.identity.seal import new_secret

#: Secrets of a container: its user is none of this machine's.
_READABLE: Final = 0o444
#: Where the container of compose.yaml has them.
_RUN_SECRETS: Final = "/run/secrets"
#: What a container reaches under these names is the container itself.
_LOOPBACK: Final = ("localhost", "127.", "::1", "[::1]")
_UNANSWERED: Final = (
    "\nnothing was written; where nobody can answer, --tailchat, --public-url and --tool do"
)
_LATER: Final = '# The id that Tailchat shows for the app.\n#client_id = "tc_..."'

_CONFIG: Final = """\
# Tailchat Gate. `tailchat-gate check` checks this file, config.example.toml has every key.

[server]
# Where people reach the gate; its callback in Tailchat is {callback}
public_url = {public_url}

[tailchat]
# The Tailchat server as browsers reach it.
api_url = {api_url}
{client_id}
client_secret_file = {client_secret}

[session]
secret_file = {session_secret}

[[route]]
name = "tool"
upstream = {upstream}
# Everybody who has an account on your Tailchat. To choose: "sub:ID" for a person, whose ID is at
# {userinfo}, or "group:NAME" for a group in a table [groups].
allow = ["signed-in"]
"""

_COMPOSE: Final = """\
# Tailchat Gate, made by `tailchat-gate init --docker`.

name: tailchat-gate

services:
  gate:
    image: tailchat-gate:{version}
    restart: unless-stopped
    ports:
      # For a proxy on this machine that does TLS.
      - "127.0.0.1:4180:4180"
    volumes:
      - ./config.toml:/etc/tailchat-gate/config.toml:ro
      - state:/var/lib/tailchat-gate
    secrets:
      - client_secret
      - session_secret
    # Add the network of the tool here and below, so that its name is known.
    networks:
      - default
    read_only: true
    cap_drop:
      - ALL
    security_opt:
      - no-new-privileges:true
    # Longer than the gate's own shutdown_timeout, so that running requests may finish.
    stop_grace_period: 40s

networks:
  # Such as tools: {{ external: true }}
  default: {{}}

volumes:
  # Who is locked out, and which sessions were signed out.
  state: {{}}

secrets:
  client_secret:
    file: ./secrets/client_secret
  session_secret:
    file: ./secrets/session_secret
"""


@dataclass(frozen=True, slots=True)
class _Answers:
    """What was asked for; `client_id` and `client_secret` are "" where they come later."""

    api_url: str
    public_url: str
    upstream: str
    client_id: str
    client_secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Places:
    """Where the files go; `docker`: for the container of a compose.yaml."""

    folder: Path
    docker: bool

    @property
    def config(self) -> Path:
        """The configuration."""
        return self.folder / DEFAULT_CONFIG.name

    @property
    def compose(self) -> Path:
        """What starts the container."""
        return self.folder / "compose.yaml"

    @property
    def client_secret(self) -> Path:
        """The secret of the app."""
        return self._secrets / "client_secret"

    @property
    def session_secret(self) -> Path:
        """The secret that sessions are sealed with."""
        return self._secrets / "session_secret"

    @property
    def _secrets(self) -> Path:
        return self.folder / "secrets" if self.docker else self.folder

    def all(self) -> list[Path]:
        """Return all of them, the configuration as the last that `serve` needs."""
        needed = [self.session_secret, self.client_secret, self.config]
        return [*needed, self.compose] if self.docker else needed


@dataclass(frozen=True, slots=True)
class _Written:
    """One file to write, with its mode."""

    path: Path
    text: str = field(repr=False)
    mode: int


def _question(annotation: Any) -> Callable[[str], str]:  # noqa: ANN401 - an annotation
    """Return what reads an answer as the configuration reads that key."""
    adapter: TypeAdapter[str] = TypeAdapter(annotation)

    def read(text: str) -> str:
        try:
            return adapter.validate_python(text.strip())
        except ValidationError as wrong:
            why = wrong.errors()[0]["msg"].removeprefix("Value error, ")
        raise click.BadParameter(f"expected {why}")

    return read


_API_URL: Final = _question(BaseUrl)
_PUBLIC_URL: Final = _question(Origin)
_UPSTREAM: Final = _question(Upstream)
_CLIENT_ID: Final = _question(ClientId)


def _optional(
    read: Callable[[str], str],
) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    """Return the check of an option that may be left out."""
    return lambda _context, _parameter, text: None if text is None else read(text)


@click.command()
@click.option("--tailchat", callback=_optional(_API_URL), help="Address of your Tailchat.")
@click.option("--public-url", callback=_optional(_PUBLIC_URL), help="Where people reach the gate.")
@click.option("--tool", callback=_optional(_UPSTREAM), help="Where the gate reaches the tool.")
@click.option("--client-id", callback=_optional(_CLIENT_ID), help="Id of the app in Tailchat.")
@click.option("--docker", is_flag=True, help="Also write a compose.yaml, for a container.")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    help=f"Where to write; {DEFAULT_CONFIG.parent}, or with --docker the current directory.",
)
def init(
    *,
    tailchat: str | None,
    public_url: str | None,
    tool: str | None,
    client_id: str | None,
    docker: bool,
    directory: Path | None,
) -> None:
    """Write a first configuration, with its secrets, and say what to do next.

    Asks for what no option says. Files that are there already are never written over.
    """
    places = _Places(directory or (Path() if docker else DEFAULT_CONFIG.parent), docker)
    # Before the questions: their answers would be lost.
    _stop_where_taken(places.all())
    asks = None in (tailchat, public_url, tool)
    try:
        api_url = tailchat or _ask(
            "Address of your Tailchat", "https://tailchat.example.com", _API_URL
        )
        origin = public_url or _ask(
            "Address at which people will reach the gate", "https://gate.example.com", _PUBLIC_URL
        )
        upstream = tool or _ask(
            "Address of the tool, as the gate reaches it",
            "http://grafana:3000" if docker else "http://127.0.0.1:3000",
            _UPSTREAM,
        )
    except click.Abort:
        fail(_UNANSWERED, EXIT_FAILED)
    if docker and _is_loopback(upstream):
        fail(
            f"{upstream}: in a container that is the container itself; name the tool's service, "
            "such as http://grafana:3000",
            EXIT_USAGE,
        )
    click.echo(
        f"\nCreate an app in Tailchat's open platform and switch on OAuth for it.\n"
        f"Its one callback (redirect_uri), exactly:\n\n    {_callback(origin)}\n"
    )
    secret = ""
    if asks:
        client_id = client_id or _ask_later("Client id of the app", _CLIENT_ID)
        secret = _ask_later("Client secret of the app", str.strip, hide=True)
    answers = _Answers(api_url, origin, upstream, client_id or "", secret)
    try:
        for file in _files(places, answers):
            _write(file)
            click.echo(f"wrote {file.path}")
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}; --directory names another place", EXIT_FAILED)
    click.echo(_next_steps(places, answers))


def _callback(public_url: str) -> str:
    """Return the redirect_uri to register in Tailchat."""
    return f"{public_url}/oauth2/callback"


def _ask(text: str, example: str, read: Callable[[str], str]) -> str:
    answer: str = click.prompt(f"{text} (such as {example})", value_proc=read)
    return answer


def _ask_later(text: str, read: Callable[[str], str], *, hide: bool = False) -> str:
    """Ask for what may be filled in later; "" for that."""
    answer: str = click.prompt(
        f"{text} (Enter: later)",
        default="",
        show_default=False,
        hide_input=hide,
        value_proc=lambda given: read(given) if given.strip() else "",
    )
    return answer


def _is_loopback(upstream: str) -> bool:
    address = upstream_address(upstream)
    return isinstance(address, HttpAddress) and address.host.startswith(_LOOPBACK)


def _files(places: _Places, answers: _Answers) -> list[_Written]:
    """Return the files to write, in the order of `_Places.all`."""
    # Compose mounts a secret as it is, and the user of the container is no user of this machine:
    # the directory keeps others away.
    mode = _READABLE if places.docker else 0o600
    names = {
        path.name: toml(f"{_RUN_SECRETS}/{path.name}" if places.docker else str(path.absolute()))
        for path in (places.client_secret, places.session_secret)
    }
    config = _CONFIG.format(
        callback=_callback(answers.public_url),
        userinfo=f"{answers.public_url}/oauth2/userinfo",
        public_url=toml(answers.public_url),
        api_url=toml(answers.api_url),
        client_id=f"client_id = {toml(answers.client_id)}" if answers.client_id else _LATER,
        upstream=toml(answers.upstream),
        **names,
    )
    written = [
        _Written(places.session_secret, f"{new_secret()}\n", mode),
        _Written(places.client_secret, answers.client_secret, mode),
        _Written(places.config, config, 0o644 if places.docker else 0o600),
    ]
    if places.docker:
        compose = _COMPOSE.format(version=__version__)
        written.append(_Written(places.compose, compose, 0o644))
    return written


def _stop_where_taken(paths: list[Path]) -> None:
    there = [str(path) for path in paths if path.exists() or path.is_symlink()]
    if there:
        fail(f"{', '.join(there)}: there already, and not written over", EXIT_USAGE)


def _write(file: _Written) -> None:
    """Write a file that is not there. Raises OSError."""
    folder = file.path.parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if file.mode == _READABLE and (folder.is_symlink() or folder.stat().st_mode & 0o077):
        # The directory alone keeps other users of this machine from these files.
        raise PermissionError(errno.EPERM, "open to other users; mode 0700 keeps them out", folder)
    descriptor = os.open(file.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        opened.write(file.text)
        os.fchmod(opened.fileno(), file.mode)


def _next_steps(places: _Places, answers: _Answers) -> str:
    config = places.config
    steps = []
    if not answers.client_id:
        steps.append(f"Write the app's client_id into {config}.")
    if not answers.client_secret:
        steps.append(f"Write the app's client secret into {places.client_secret}, on one line.")
    if places.docker:
        steps.append(
            "Build the image, once: docker build --tag "
            f"tailchat-gate:{__version__} CLONE-OF-THE-GATE"
        )
        steps.append("Start it: docker compose up --detach")
    else:
        option = "" if config == DEFAULT_CONFIG else f" --config {config}"
        if os.geteuid() == 0:
            steps.append(
                f"Give the files to the gate's user: chown -R tailchat-gate {places.folder}"
            )
        steps.append(f"Check it, with Tailchat: tailchat-gate check --online{option}")
        steps.append(f"Start it: tailchat-gate serve{option}")
    lines = [f"{number}. {step}" for number, step in enumerate(steps, 1)]
    return "\nNext:\n" + "\n".join(lines)
