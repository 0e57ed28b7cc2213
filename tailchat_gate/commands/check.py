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
    findings = _findings(config, loaded, name, online=online)
    _SHOWN[form](name, findings)
    if not findings.starts:
        raise Ended(_NOT_HERE, EXIT_FAILED)
    if findings.errors:
        raise Ended(_NOBODY, EXIT_FAILED)
    if strict and findings.warnings:
        raise Ended("there are warnings", EXIT_WARNINGS)


def _refuse(name: str, problems: Sequence[Problem], form: str) -> None:
    match form:
        case "json":
            rows = [as_json(problem, "error") for problem in problems]
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
    errors, statements = _online(loaded, name) if online else ((), ())
    further = (
        *of_examples(settings),
        *_foreign(settings),
        *statements,
        *(f"{key}: {problem}; the gate does not start with that" for key, problem, _ in stops),
    )
    return _Findings(
        settings,
        locate(config, loaded, errors),
        (*loaded.located, *locate(config, loaded, further)),
        locate(config, loaded, beside_the_gate(settings)),
        starts=all(stop.missing for stop in stops),
    )


def _online(loaded: Loaded, name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Ask Tailchat; return why nobody can sign in, and the other findings."""
    from tailchat_gate.commands.doctor import ask_tailchat  # noqa: PLC0415 - for --online alone
    from tailchat_gate.diagnosis.sign_in import (  # noqa: PLC0415 - for --online alone
        as_sentence,
        ends_sign_ins,
    )

    troubling = [statement for statement in ask_tailchat(loaded, name) if statement.needs_attention]
    errors = tuple(as_sentence(statement) for statement in troubling if ends_sign_ins(statement))
    return errors, tuple(
        as_sentence(statement) for statement in troubling if not ends_sign_ins(statement)
    )


def _foreign(settings: Settings) -> Iterator[str]:
    warning = in_foreign_home(settings.state.path, os.environ) if settings.state.path else ""
    if warning:
        yield f"state.path: {warning}"


def _as_text(name: str, findings: _Findings) -> None:
    tell("note", findings.notes)
    tell("warning", findings.warnings)
    tell("error", findings.errors)
    settings = findings.settings
    state = "good" if findings.starts and not findings.errors else "valid by itself"
    click.echo(f"{name}: {state}, {counted(len(settings.route), 'route')}")
    for route in settings.route:
        click.echo(f"  {route.name}: {', '.join(route.allow)}")
    click.echo(f"callback address to enter in Tailchat: {settings.redirect_uri}")
    if not findings.starts:
        click.echo(_NOT_HERE, err=True)
    if findings.errors:
        click.echo(_NOBODY, err=True)


def _as_json(name: str, findings: _Findings) -> None:
    rows = [as_json(problem, "error") for problem in findings.errors]
    rows += [as_json(problem, "note") for problem in findings.notes]
    rows += [as_json(problem, "warning") for problem in findings.warnings]
    print_json({**_document(name, findings), "problems": rows})


def _document(name: str, findings: _Findings | None) -> dict[str, Any]:
    return {
        "file": name,
        "valid": findings is not None,
        "starts": findings is not None and findings.starts,
        "routes": len(findings.settings.route) if findings else None,
        "redirect_uri": findings.settings.redirect_uri if findings else None,
    }


def _as_commands(_name: str, findings: _Findings) -> None:
    _print_commands("note", findings.notes)
    _print_commands("warning", findings.warnings)
    _print_commands("error", findings.errors)


def _print_commands(severity: Severity, problems: Sequence[Problem]) -> None:
    for problem in problems:
        click.echo(github(problem, severity))


_SHOWN: Final = {"text": _as_text, "json": _as_json, "github": _as_commands}
