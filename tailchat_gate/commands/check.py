"""`check`: lists everything that is wrong with a configuration, for people or for programs."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from tailchat_gate.commands.common import (
    EXIT_FAILED,
    EXIT_USAGE,
    Ended,
    config_option,
    print_json,
    refuse,
    tell,
)
from tailchat_gate.config.lint.addresses import beside_the_gate, of_examples
from tailchat_gate.config.load import ConfigError, Loaded, Source, locate
from tailchat_gate.config.model import Settings
from tailchat_gate.config.problems import Problem
from tailchat_gate.config.report import Severity, as_json, github
from tailchat_gate.config.state_directory import in_foreign_home
from tailchat_gate.config.values.quantities import counted

#: Exit code of --strict: the configuration is valid, and there are warnings.
EXIT_WARNINGS: Final = 4

_NOBODY: Final = "nobody can sign in with it"
_NOT_HERE: Final = "on this machine the gate does not start with it"


@dataclass(frozen=True, slots=True)
class _Findings:
    """Findings about a valid configuration; `starts`: nothing on this machine prevents a start.

    `errors` are the reasons why nobody can sign in, according to Tailchat.
    """

    settings: Settings
    errors: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    notes: tuple[Problem, ...]
    starts: bool


@click.command()
@config_option
@click.option(
    "--online",
    is_flag=True,
    help="Also ask Tailchat whether people can sign in, who can get an account, and about groups.",
)
@click.option("--strict", is_flag=True, help="Exit with 4 if there are warnings.")
@click.option(
    "--format",
    "form",
    type=click.Choice(("text", "json", "github")),
    default="text",
    show_default=True,
    help="Text for people, JSON for programs, or commands by which GitHub marks the file's lines.",
)
@click.option("--json", "form", flag_value="json", help="The same as --format json.")
def check(*, config: Path, online: bool, strict: bool, form: str) -> None:
    """Check the configuration without starting, and list every problem at once.

    Exit codes: 0 valid, 1 the gate would not start with it on this machine, or with --online nobody
    can sign in, 2 invalid, 4 valid with warnings, under --strict.
    """
    source = Source(config, os.environ)
    problems: tuple[Problem, ...] = ()
    try:
        loaded = source.read()
    except ConfigError as error:
        problems = error.problems
    name = source.heading()
    if problems:
        _refuse(name, problems, form)
    found = _findings(config, loaded, name, online=online)
    _SHOWN[form](name, found)
    if not found.starts:
        raise Ended(_NOT_HERE, EXIT_FAILED)
    if found.errors:
        raise Ended(_NOBODY, EXIT_FAILED)
    if strict and found.warnings:
        raise Ended("there are warnings", EXIT_WARNINGS)


def _refuse(name: str, problems: Sequence[Problem], form: str) -> None:
    match form:
        case "json":
            rows = [as_json(one, "error") for one in problems]
            print_json({**_document(name, None), "problems": rows})
        case "github":
            _print_commands("error", problems)
        case _:
            refuse(name, problems)
    raise Ended("the configuration is invalid", EXIT_USAGE)


def _findings(config: Path, loaded: Loaded, name: str, *, online: bool) -> _Findings:
    settings = loaded.settings
    from tailchat_gate.diagnosis.machine import obstacles  # noqa: PLC0415 - not for a bad file

    # A file that is missing here may exist on the gate's machine; a wrong one is wrong everywhere.
    stops = list(obstacles(settings))
    errors, said = _online(loaded, name) if online else ((), ())
    further = (
        *of_examples(settings),
        *_foreign(settings),
        *said,
        *(f"{key}: {problem}; the gate does not start with that" for key, problem, _ in stops),
    )
    return _Findings(
        settings,
        locate(config, loaded, errors),
        (*loaded.located, *locate(config, loaded, further)),
        locate(config, loaded, beside_the_gate(settings)),
        starts=all(one.missing for one in stops),
    )


def _online(loaded: Loaded, name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Ask Tailchat; return why nobody can sign in, and the other findings."""
    from tailchat_gate.commands.doctor import ask_tailchat  # noqa: PLC0415 - for --online alone
    from tailchat_gate.diagnosis.sign_in import (  # noqa: PLC0415 - for --online alone
        as_sentence,
        ends_sign_ins,
    )

    found = [said for said in ask_tailchat(loaded, name) if said.needs_attention]
    errors = tuple(as_sentence(said) for said in found if ends_sign_ins(said))
    return errors, tuple(as_sentence(said) for said in found if not ends_sign_ins(said))


def _foreign(settings: Settings) -> Iterator[str]:
    warning = in_foreign_home(settings.state.path, os.environ) if settings.state.path else ""
    if warning:
        yield f"state.path: {warning}"


def _as_text(name: str, found: _Findings) -> None:
    tell("note", found.notes)
    tell("warning", found.warnings)
    tell("error", found.errors)
    settings = found.settings
    state = "good" if found.starts and not found.errors else "valid by itself"
    click.echo(f"{name}: {state}, {counted(len(settings.route), 'route')}")
    for route in settings.route:
        click.echo(f"  {route.name}: {', '.join(route.allow)}")
    click.echo(f"redirect_uri to register in Tailchat: {settings.redirect_uri}")
    if not found.starts:
        click.echo(_NOT_HERE, err=True)
    if found.errors:
        click.echo(_NOBODY, err=True)


def _as_json(name: str, found: _Findings) -> None:
    rows = [as_json(one, "error") for one in found.errors]
    rows += [as_json(one, "note") for one in found.notes]
    rows += [as_json(one, "warning") for one in found.warnings]
    print_json({**_document(name, found), "problems": rows})


def _document(name: str, found: _Findings | None) -> dict[str, Any]:
    return {
        "file": name,
        "valid": found is not None,
        "starts": found is not None and found.starts,
        "routes": len(found.settings.route) if found else None,
        "redirect_uri": found.settings.redirect_uri if found else None,
    }


def _as_commands(_name: str, found: _Findings) -> None:
    _print_commands("note", found.notes)
    _print_commands("warning", found.warnings)
    _print_commands("error", found.errors)


def _print_commands(severity: Severity, problems: Sequence[Problem]) -> None:
    for problem in problems:
        click.echo(github(problem, severity))


_SHOWN: Final = {"text": _as_text, "json": _as_json, "github": _as_commands}
