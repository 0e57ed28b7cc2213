"""Writes problems and warnings for people, for GitHub's workflows and for programs.

It also knows which command helps with which problem.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from types import MappingProxyType
from typing import Final, Literal

from tailchat_gate.config.problems import ENV_PREFIX, Problem
from tailchat_gate.config.values.identifier import SUB
from tailchat_gate.config.values.quantities import counted

_IDS: Final = (
    "people see their ID on the page /oauth2/userinfo, and `tailchat-gate refusals` lists the "
    "IDs of people who were refused; `tailchat-gate tailchat-groups` lists groups"
)
_OF_APP: Final = "it is the \"App {}\" of the app's page in Tailchat's open platform"
#: The hint for a problem, by its key.
_COMMANDS: Final = MappingProxyType(
    {
        re.compile(r"session\.secrets?(?:\[[0-9]+\])?"): "`tailchat-gate secret` prints a new one",
        re.compile(r"token\[[0-9]+\]\.hash"): "`tailchat-gate token NAME` prints a token's",
        re.compile(r"groups\..*"): _IDS,
        re.compile(r"tailchat\.client_id"): _OF_APP.format("ID"),
        re.compile(r"tailchat\.client_secret(?:_file)?"): _OF_APP.format("Secret"),
    }
)
#: Parts of a problem's text that already say what to do.
_HINTS: Final = ("`tailchat-gate", "did you mean", "is set too", "open platform")
_NO_FILE: Final = "`tailchat-gate init` writes a first one; --config names another"
Severity = Literal["error", "warning", "note"]
#: Colours a part of a report: takes the text and its kind, a Severity, "place" or "help".
Style = Callable[[str, str], str]

_NEAR: Final = "; did you mean "


def hint_for(problem: Problem) -> str:
    """Return the command that helps with a problem; "" for none or if the text already has it."""
    if not problem.expected or any(hint in str(problem) for hint in _HINTS):
        return ""
    if problem.found.startswith(f'"{SUB}'):
        return _IDS
    if problem.found == "No such file or directory" and "configuration" in problem.expected:
        return _NO_FILE
    key = problem.key_path
    if key.startswith(ENV_PREFIX):
        key = key.removeprefix(ENV_PREFIX).lower().replace("__", ".")
    return next((hint for known, hint in _COMMANDS.items() if known.fullmatch(key)), "")


def plain(text: str, kind: str) -> str:
    """Return a part of a report uncoloured: the default Style."""
    del kind
    return text


def report(problems: Iterable[Problem], style: Style = plain) -> str:
    """Format problems for people, one paragraph each."""
    listed = tuple(problems)
    paragraphs = (paragraph(problem, "error", style) for problem in listed)
    return "\n\n".join([f"{counted(len(listed), 'problem')} in the configuration", *paragraphs])


def paragraph(problem: Problem, severity: Severity, style: Style = plain) -> str:
    """Format one problem or warning, with its line and a caret if it is in a file."""
    return "\n".join(_lines(problem, severity, style))


def _lines(problem: Problem, severity: Severity, style: Style) -> Iterator[str]:
    key = "" if problem.is_of_file else f"{problem.key}: "
    yield f"{style(severity, severity)}: {key}{problem.message}"
    expected, _, near = problem.expected.partition(_NEAR)
    excerpt, gap = problem.excerpt, " "
    if excerpt is not None:
        number = str(excerpt.line) if excerpt.source else ""
        gap = " " * (len(number) + 1)
        yield style(f"{gap[1:]}--> {excerpt.position}", "place")
        if excerpt.source:
            bar = style(f"{gap}|", "place")
            yield bar
            yield f"{style(f'{number} |', 'place')} {excerpt.source}"
            yield f"{bar} {style(excerpt.caret, severity)}"
    elif problem.key_path.startswith(ENV_PREFIX):
        yield style("--> the environment", "place")
    if expected:
        yield f"{gap}{style('=', 'place')} expected: {expected}"
    if near:
        yield f"{gap}{style('=', 'place')} {style('help', 'help')}: write {near.removesuffix('?')}"
    if problem.hint:
        yield f"{gap}{style('=', 'place')} {style('help', 'help')}: {problem.hint}"


def github(problem: Problem, severity: Severity) -> str:
    """Return a workflow command, which GitHub shows beside the line of the file.

    https://docs.github.com/actions/reference/workflow-commands-for-github-actions
    """
    excerpt = problem.excerpt
    properties: dict[str, object] = {}
    if excerpt is not None:
        properties["file"] = excerpt.file
        if excerpt.line:
            properties |= {"line": excerpt.line, "col": excerpt.column}
            properties |= {"endColumn": excerpt.end_column} if excerpt.source else {}
    properties["title"] = problem.key
    message = problem.message
    message += f"; expected {problem.expected}" if problem.expected else ""
    message += f"; {problem.hint}" if problem.hint else ""
    written = ",".join(f"{name}={_property(str(value))}" for name, value in properties.items())
    command = "notice" if severity == "note" else severity
    return f"::{command} {written}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def as_json(problem: Problem, severity: Severity) -> dict[str, object]:
    """Return a problem as a JSON object for programs."""
    excerpt = problem.excerpt
    return {
        "severity": severity,
        "key": problem.key_path,
        "name": problem.table or None,
        "message": problem.message,
        "expected": problem.expected or None,
        "hint": problem.hint or None,
        "file": excerpt.file if excerpt else None,
        "line": (excerpt.line or None) if excerpt else None,
        "column": (excerpt.column or None) if excerpt else None,
        "end_column": (excerpt.end_column or None) if excerpt else None,
    }
