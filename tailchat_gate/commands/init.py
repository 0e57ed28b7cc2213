"""`init`: asks some questions and writes a first configuration with its secrets."""

import os
import pwd
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click
from pydantic import SecretStr, TypeAdapter, ValidationError

from tailchat_gate import __version__
from tailchat_gate.commands.common import EXIT_FAILED, EXIT_USAGE, fail, program
from tailchat_gate.commands.first_files import FirstAnswers, Places, new_files, write_all
from tailchat_gate.config.overlay import DEFAULT_CONFIG
from tailchat_gate.config.suggested import PROGRAM, completed
from tailchat_gate.config.tables.fields import BaseUrl, ClientId, ClientSecret, Origin
from tailchat_gate.config.tables.route_fields import Host, Upstream
from tailchat_gate.config.values.address import HttpAddress, upstream_address

#: Hosts that, inside a container, are the container itself.
_LOOPBACK: Final = ("localhost", "127.", "::1", "[::1]")
_IN_CONTAINER: Final = (
    "in a container that is the container itself; name the tool's service, such as "
    "http://grafana:3000"
)
#: Bytes; longer than any secret that the configuration takes.
_LONGEST_SECRET: Final = 65_536
_NOTHING_WRITTEN: Final = "nothing was written"
_UNANSWERED: Final = (
    f"\n{_NOTHING_WRITTEN}; with --tailchat, --public-url and --tool it asks no questions"
)
_AT_GATE: Final = "Address at which people will reach the gate"
_OF_TOOL: Final = "Host name of the tool, if it has one of its own, such as grafana.example.com"


def _question(annotation: Any) -> Callable[[str], str]:  # noqa: ANN401 - an annotation
    """Return a function that reads an answer as the configuration reads a key of this type."""
    adapter: TypeAdapter[str | SecretStr] = TypeAdapter(annotation)

    def read(text: str) -> str:
        try:
            value = adapter.validate_python(text.strip())
        except ValidationError as wrong:
            why = wrong.errors(include_input=False)[0]["msg"].removeprefix("Value error, ")
        else:
            return value.get_secret_value() if isinstance(value, SecretStr) else value
        raise click.BadParameter(f"expected {why}")

    return read


_API_URL: Final = _question(BaseUrl)
_PUBLIC_URL: Final = _question(Origin)
_UPSTREAM: Final = _question(Upstream)
_HOST: Final = _question(Host)
_CLIENT_ID: Final = _question(ClientId)
_CLIENT_SECRET: Final = _question(ClientSecret)


def _optional(
    read: Callable[[str], str],
) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    """Return a click callback that reads an option, None if it is left out."""
    return lambda _context, _parameter, text: None if text is None else read(text)


def _secret_in(_context: click.Context, _parameter: click.Parameter, path: Path | None) -> str:
    """Return the client secret in a file, "" without one.

    It is not an option's value, because other users can see command lines. The number of bytes
    read is limited, because the path could be of an endless file.
    """
    if path is None:
        return ""
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST_SECRET + 1)
            text = content.decode() if len(content) <= _LONGEST_SECRET else ""
    except OSError as error:
        raise click.BadParameter(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        text = ""
    if not text.strip():
        raise click.BadParameter(f"{path}: no App Secret in it")
    return _CLIENT_SECRET(text)


@click.command()
@click.option(
    "--tailchat", metavar="URL", callback=_optional(_API_URL), help="Address of your Tailchat."
)
@click.option(
    "--public-url",
    metavar="URL",
    callback=_optional(_PUBLIC_URL),
    help="Where people reach the gate.",
)
@click.option(
    "--tool", metavar="URL", callback=_optional(_UPSTREAM), help="Where the gate reaches the tool."
)
@click.option(
    "--host", callback=_optional(_HOST), help="Host name of the tool, if it has one of its own."
)
@click.option(
    "--client-id",
    metavar="ID",
    callback=_optional(_CLIENT_ID),
    help="The App ID that Tailchat shows for the app.",
)
@click.option(
    "--client-secret-file",
    "client_secret",
    metavar="PATH",
    type=click.Path(path_type=Path),
    callback=_secret_in,
    help="File with the App Secret, which is copied; /dev/stdin for a pipe.",
)
@click.option("--docker", is_flag=True, help="Also write a compose.yaml, for a container.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    help=f"Where to write; {DEFAULT_CONFIG.parent}, or with --docker the current directory.",
)
def init(
    *,
    tailchat: str | None,
    public_url: str | None,
    tool: str | None,
    host: str | None,
    client_id: str | None,
    client_secret: str,
    docker: bool,
    directory: Path | None,
) -> None:
    """Write a first configuration, with its secrets, and say what to do next.

    It asks for what no option gives; with --tailchat, --public-url and --tool it asks nothing. It
    never overwrites a file.
    """
    places = Places(directory or (Path() if docker else DEFAULT_CONFIG.parent), docker)
    # Before the questions, because a failure after them would lose the answers.
    if problem := _problem(places):
        fail(*problem)
    if docker and tool and _is_loopback(tool):
        fail(f"{tool}: {_IN_CONTAINER}", EXIT_USAGE)
    asks = None in (tailchat, public_url, tool)
    try:
        answers = FirstAnswers(
            tailchat or _ask("Address of your Tailchat", "https://tailchat.example.com", _API_URL),
            public_url or _ask(_AT_GATE, "https://gate.example.com", _PUBLIC_URL),
            tool or _ask_tool(docker=docker),
            host or (_ask_later(_OF_TOOL, _HOST, "the gate's own") if asks else ""),
            client_id or "",
            client_secret,
        )
        click.echo(
            f"\nCreate an app in Tailchat's open platform and switch on OAuth for it.\n"
            f"Its one callback address, exactly:\n\n    {answers.callback}\n"
        )
        if asks:
            answers = _with_app(answers)
        places = _write(places, answers, asks=asks)
    except click.Abort:
        fail(_UNANSWERED, EXIT_FAILED)
    click.echo(_next_steps(places, answers))


def _problem(places: Places) -> tuple[str, int] | None:
    """Return why the files cannot be written, with what to do and the exit code."""
    try:
        there = places.taken()
        if not there:
            places.check()
            return None
    except OSError as error:
        return _of_error(error), EXIT_FAILED
    text = ", ".join(map(str, there))
    remedy = "move it away, or name another place with --directory"
    return f"{text}: exists already, and is not overwritten; {remedy}", EXIT_USAGE


def _of_error(error: OSError) -> str:
    where = error.filename or "the current directory"
    return f"{where}: {error.strerror}; --directory names another place"


def _is_loopback(upstream: str) -> bool:
    address = upstream_address(upstream)
    return isinstance(address, HttpAddress) and address.host.startswith(_LOOPBACK)


def _ask(text: str, example: str, read: Callable[[str], str]) -> str:
    return _prompt(f"{text} (such as {example})", read)


def _ask_tool(*, docker: bool) -> str:
    def read(text: str) -> str:
        upstream = _UPSTREAM(text)
        if docker and _is_loopback(upstream):
            raise click.BadParameter(_IN_CONTAINER)
        return upstream

    example = "http://grafana:3000" if docker else "http://127.0.0.1:3000"
    return _ask("Address of the tool, as the gate reaches it", example, read)


def _ask_later(
    text: str, read: Callable[[str], str], otherwise: str = "later", *, hide: bool = False
) -> str:
    """Ask a question that may be left unanswered; return "" then."""
    return _prompt(
        f"{text} (Enter: {otherwise})",
        lambda given: read(given) if given.strip() else "",
        default="",
        hide=hide,
    )


def _prompt(
    text: str, read: Callable[[str], str], default: str | None = None, *, hide: bool = False
) -> str:
    """Ask until `read` accepts the answer; without a terminal, end the command if it does not.

    The next line of a pipe would answer the next question, so asking again is no help there.
    """
    if sys.stdin.isatty():
        answer: str = click.prompt(
            text, default, show_default=False, hide_input=hide, value_proc=read
        )
        return answer
    click.echo(f"{text}: ", nl=False)
    line = sys.stdin.readline()
    click.echo()
    if not line:
        raise click.Abort
    if default is None and not line.strip():
        fail(f"{text}: no answer; {_NOTHING_WRITTEN}", EXIT_USAGE)
    try:
        return read(line)
    except click.BadParameter as wrong:
        fail(f"{text}: {wrong.message}; {_NOTHING_WRITTEN}", EXIT_USAGE)


def _with_app(answers: FirstAnswers) -> FirstAnswers:
    """Ask for the App ID and App Secret, where they are not known."""
    client_id = answers.client_id or _ask_later("App ID of the app", _CLIENT_ID)
    secret = answers.client_secret or _ask_later(
        "App Secret of the app, not shown here", _CLIENT_SECRET, hide=True
    )
    return replace(answers, client_id=client_id, client_secret=secret)


def _write(places: Places, answers: FirstAnswers, *, asks: bool) -> Places:
    """Write the files; if that fails, ask for another directory. Return the places written to."""
    while True:
        try:
            files = new_files(places, answers)
            write_all(files)
        except OSError as error:
            problem = _of_error(error)
            if not asks:
                fail(problem, EXIT_FAILED)
            click.echo(problem, err=True)
            places = replace(places, folder=Path(_prompt("Another directory", _directory(places))))
            continue
        for file in files:
            click.echo(f"wrote {file.path}")
        return places


def _directory(places: Places) -> Callable[[str], str]:
    def read(text: str) -> str:
        if problem := _problem(replace(places, folder=Path(text.strip()))):
            raise click.BadParameter(problem[0])
        return text.strip()

    return read


def _chown(folder: Path) -> str:
    """Return the command that gives the files to the gate's user, and makes that user if needed."""
    command = f"chown -R {PROGRAM} {shlex.quote(str(folder))}"
    try:
        pwd.getpwnam(PROGRAM)
    except KeyError:
        return f"useradd --system {PROGRAM} && {command}"
    return command


def _next_steps(places: Places, answers: FirstAnswers) -> str:
    config = places.config
    steps = []
    if not answers.client_id:
        steps.append(f"Write the App ID as client_id into {config}.")
    if not answers.client_secret:
        steps.append(f"Write the App Secret into {places.client_secret}, on one line.")
    if answers.host:
        steps.append(
            f"Point {answers.host} at the gate too, as {answers.public_url} is: in DNS, and "
            "in the proxy that does TLS."
        )
    if places.docker:
        compose = "docker compose"
        if places.folder != Path():
            compose = f"cd {shlex.quote(str(places.folder))} && {compose}"
        tag = f"tailchat-gate:{__version__}"
        steps += [
            f"Add the network of the tool to {places.compose}, where its comments say so.",
            f"Build the image, once: docker build --tag {tag} CLONE-OF-THE-GATE",
            f"Check it, with Tailchat: {compose} run --rm gate check --online",
            f"Start it: {compose} up --detach",
        ]
    else:
        if os.geteuid() == 0:
            steps.append(f"Give the files to the gate's user: {_chown(places.folder)}")
        commands = "tailchat-gate check --online", "tailchat-gate serve"
        check, start = (completed(command, config, program()) for command in commands)
        steps += [f"Check it, with Tailchat: {check}", f"Start it: {start}"]
    lines = [f"{number}. {step}" for number, step in enumerate(steps, 1)]
    return "\nNext:\n" + "\n".join(lines)
