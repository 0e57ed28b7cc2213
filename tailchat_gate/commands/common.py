"""Shared by all commands: the option for the file, reading it, printing, and how a command ends."""

import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click

from tailchat_gate.config.load import ConfigError, Loaded, Source
from tailchat_gate.config.overlay import DEFAULT_CONFIG
from tailchat_gate.config.problems import Problem
from tailchat_gate.config.report import Severity, paragraph, report
from tailchat_gate.config.suggested import PROGRAM, completed

_Item = TypeVar("_Item")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
#: Exit code: the gate could not start or did not answer.
EXIT_FAILED: Final = 1
#: Exit code: the configuration or the command line is wrong (click's number for the latter).
EXIT_USAGE: Final = 2

config_option = click.option(
    "--config",
    "-c",
    "config",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="TAILCHAT_GATE_CONFIG",
    default=DEFAULT_CONFIG,
    show_default=True,
    help="The TOML file; TAILCHAT_GATE_CONFIG in the environment names it too. Without a file in "
    "the usual place, the environment can hold all settings.",
)


def print_json(document: object) -> None:
    """Print a JSON document; characters that control a terminal are escaped."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    plain = text if text.replace("\n", "").isprintable() else "".join(map(_escaped, text))
    click.echo(plain)


def _escaped(char: str) -> str:
    return char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1]


def print_list(
    listed: Iterable[_Item],
    cells: Callable[[_Item], tuple[str, ...]],
    row: Callable[[_Item], Mapping[str, object]],
    *,
    nothing: str,
    as_json: bool,
) -> None:
    """Print a line with the `cells` of each item, or `nothing` if there are none.

    `as_json`: print a list with the `row` of each item.
    """
    items = tuple(listed)
    if as_json:
        print_json([dict(row(item)) for item in items])
    elif not items:
        click.echo(nothing)
    else:
        print_table([cells(item) for item in items])


def print_table(table: Sequence[tuple[str, ...]]) -> None:
    """Print rows with aligned columns, without characters that control a terminal."""
    table = [tuple(map(fit_for_a_terminal, row)) for row in table]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def fit_for_a_terminal(text: str) -> str:
    """Replace the characters of a stranger's text that could control a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


class Ended(SystemExit):
    """The command ends with `code`; `message` has been printed already."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(code)
        self.message: Final = message


def loaded_from(path: Path) -> Loaded:
    """Read the configuration; end the command with all its problems if it is invalid."""
    return read_from(Source(path, os.environ))


def read_from(source: Source) -> Loaded:
    """Read the configuration from a source, as loaded_from does."""
    problems: tuple[Problem, ...] = ()
    try:
        return source.read()
    except ConfigError as error:
        problems = error.problems
    return refuse(source.heading(), problems)


def refuse(name: str, problems: Iterable[Problem], more: str = "") -> NoReturn:
    """End the command with the problems of the configuration `name`, and `more` below them."""
    after = f"\n\n{more}" if more else ""
    fail(f"{name}: {report(problems, styled)}{after}", EXIT_USAGE)


def tell(severity: Severity, problems: Iterable[Problem]) -> None:
    """Print problems on standard error, one paragraph each."""
    for problem in problems:
        text = to_type(paragraph(problem, severity, styled))
        click.echo(f"{text}\n", err=True, color=colour())


_COLOURS: Final[Mapping[str, Mapping[str, Any]]] = {
    "error": {"fg": "red", "bold": True},
    "warning": {"fg": "yellow", "bold": True},
    "note": {"fg": "cyan", "bold": True},
    "place": {"fg": "blue"},
    "help": {"fg": "green"},
}


def styled(text: str, kind: str) -> str:
    """Colour a part of a report; click.echo removes the colour for a pipe."""
    return click.style(text, **_COLOURS[kind])


def colour() -> bool | None:
    """Whether to print colours: False for NO_COLOR, True for FORCE_COLOR, None for a terminal only.

    https://no-color.org and https://force-color.org: a variable counts if it is not empty.
    """
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return False if os.environ.get("TERM") == "dumb" else None


def toml(value: object) -> str:
    """Return a value as TOML writes it, tables on one line.

    TOML writes booleans, numbers and texts as JSON does, except for characters beyond U+FFFF: JSON
    escapes these as two surrogates, which TOML does not know.
    """
    if isinstance(value, dict):
        pairs = (f"{toml(name)} = {toml(item)}" for name, item in value.items())
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    written = json.dumps(value, ensure_ascii=False)
    return "".join(
        character if " " <= character <= "~" else f"\\U{ord(character):08x}"
        for character in written
    )


def fail(message: str, code: int) -> NoReturn:
    """End the command with a message on standard error."""
    message = to_type(message)
    click.echo(message, err=True, color=colour())
    raise Ended(click.unstyle(message), code)


def program() -> str:
    """Return what to type for the gate: its path where the shell does not find it by its name."""
    path = Path(sys.argv[0])
    found = shutil.which(PROGRAM)
    if path.name != PROGRAM or (found and path.exists() and path.samefile(found)):
        return PROGRAM
    # Absolute, because the next command may be typed in another terminal.
    return shlex.quote(str(path.absolute()))


def to_type(text: str) -> str:
    """Return `text` with its commands as they work here: for this program and this --config."""
    context = click.get_current_context(silent=True)
    config = context.params.get("config") if context else None
    return completed(text, config, program())
