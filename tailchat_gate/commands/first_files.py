"""The files that `init` writes: a first configuration, its secrets, and a compose.yaml."""

import errno
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tailchat_gate import __version__
from tailchat_gate.commands.common import toml
from tailchat_gate.config.overlay import DEFAULT_CONFIG
from tailchat_gate.identity.seal import new_secret
from tailchat_gate.syntax import ROUTE_NAME

#: The mode of secrets for a container, whose user does not exist on this machine; the owner still
#: has to write the App Secret.
_READABLE: Final = 0o644
#: The directory of secrets inside the container of compose.yaml.
_RUN_SECRETS: Final = "/run/secrets"
_ID_LATER: Final = '# The App ID that Tailchat shows for the app.\n#client_id = "tc_..."'

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
name = {name}
{host}
upstream = {upstream}
# Everybody with an account on your Tailchat. To choose people, write "sub:ID" for a person, who
# sees the ID at {userinfo}, or "group:NAME" for a group in a table [groups].
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
_NO_HOST: Final = (
    "# Without a host of its own, the tool is at public_url itself, and at every other host."
)


@dataclass(frozen=True, slots=True)
class FirstAnswers:
    """The answers to the questions; `host`, `client_id` and `client_secret` are "" for none yet."""

    api_url: str
    public_url: str
    upstream: str
    host: str = ""
    client_id: str = ""
    client_secret: str = field(default="", repr=False)

    @property
    def callback(self) -> str:
        """The redirect_uri to register in Tailchat."""
        return f"{self.public_url}/oauth2/callback"

    @property
    def name(self) -> str:
        """The name of the route: the first label of the tool's host, if it can be one."""
        label = self.host.partition(".")[0]
        return label if re.fullmatch(ROUTE_NAME, label) else "tool"


@dataclass(frozen=True, slots=True)
class Places:
    """The paths of the files; `docker`: for the container of a compose.yaml."""

    folder: Path
    docker: bool

    @property
    def config(self) -> Path:
        """The configuration."""
        return self.folder / DEFAULT_CONFIG.name

    @property
    def compose(self) -> Path:
        """The file that starts the container."""
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

    def taken(self) -> list[Path]:
        """Return the files that exist already; a dangling link counts."""
        return [path for path in self._all() if path.exists() or path.is_symlink()]

    def check(self) -> None:
        """Check that the files can be written, and leave nothing behind. Raises OSError."""
        for folder in {self.folder, self._secrets}:
            there = next(
                path
                for path in (folder.absolute(), *folder.absolute().parents)
                if path.exists() or path.is_symlink()
            )
            try:
                Path(tempfile.mkdtemp(dir=there)).rmdir()
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(folder)) from None
        if self.docker and self._secrets.exists():
            _closed_to_others(self._secrets)

    def _all(self) -> list[Path]:
        needed = [self.session_secret, self.client_secret, self.config]
        return [*needed, self.compose] if self.docker else needed


@dataclass(frozen=True, slots=True)
class NewFile:
    """One file to write, with its mode; `in_closed`: only if no other user can enter its folder."""

    path: Path
    text: str = field(repr=False)
    mode: int
    in_closed: bool = False


def new_files(places: Places, answers: FirstAnswers) -> list[NewFile]:
    """Return the files to write."""
    # Compose mounts a secret with its mode, and the user of the container does not exist on this
    # machine, so the directory keeps other users out instead.
    mode = _READABLE if places.docker else 0o600
    names = {
        path.name: toml(f"{_RUN_SECRETS}/{path.name}" if places.docker else str(path.absolute()))
        for path in (places.client_secret, places.session_secret)
    }
    config = _CONFIG.format(
        callback=answers.callback,
        userinfo=f"{answers.public_url}/oauth2/userinfo",
        public_url=toml(answers.public_url),
        api_url=toml(answers.api_url),
        client_id=f"client_id = {toml(answers.client_id)}" if answers.client_id else _ID_LATER,
        name=toml(answers.name),
        host=f"host = {toml(answers.host)}" if answers.host else _NO_HOST,
        upstream=toml(answers.upstream),
        **names,
    )
    files = [
        NewFile(places.session_secret, f"{new_secret()}\n", mode, in_closed=places.docker),
        NewFile(places.client_secret, answers.client_secret, mode, in_closed=places.docker),
        NewFile(places.config, config, 0o644 if places.docker else 0o600),
    ]
    if places.docker:
        compose = _COMPOSE.format(version=__version__)
        files.append(NewFile(places.compose, compose, 0o644))
    return files


def write_all(files: Sequence[NewFile]) -> None:
    """Create all files, or none if one exists or cannot be written. Raises OSError."""
    made: list[Path] = []
    try:
        for file in files:
            _write(file, made)
    except BaseException:
        for path in made:
            path.unlink(missing_ok=True)
        raise


def _write(file: NewFile, made: list[Path]) -> None:
    folder = file.path.parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if file.in_closed:
        _closed_to_others(folder)
    descriptor = os.open(file.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    made.append(file.path)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            opened.write(file.text)
            opened.flush()
            os.fchmod(opened.fileno(), file.mode)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file.path)) from None


def _closed_to_others(folder: Path) -> None:
    """Raise PermissionError if users other than this one may enter a directory.

    Nothing else keeps other users of this machine from the secrets of a container.
    """
    status = folder.stat()
    if folder.is_symlink() or status.st_mode & 0o077:
        raise PermissionError(
            errno.EPERM, "other users can enter it; set its mode to 0700", str(folder)
        )
    if status.st_uid != os.geteuid():
        raise PermissionError(
            errno.EPERM, "belongs to another user, who could read the secrets", str(folder)
        )
