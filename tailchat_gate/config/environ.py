"""Settings from environment variables, which override the file."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tailchat_gate.config.document import DocumentError, parse_text
from tailchat_gate.config.keys import ENV_PREFIX, SECRET_FORMS, Key, all_keys
from tailchat_gate.config.problems import Draft, Problem, did_you_mean

CONFIG_ENV = "TAILCHAT_GATE_CONFIG"  # the path of the file, for the command line
#: The default path of the file.
DEFAULT_CONFIG = Path("/etc/tailchat-gate/config.toml")

# Kubernetes sets these in every pod of a namespace that has a Service named tailchat-gate or
# tailchat-gate-*, and Docker did for links; they are not settings.
_SERVICE_NAME = re.compile(
    r"TAILCHAT_GATE(_[A-Z0-9]+)*?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?"
    r"|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_SERVICE_PORT = re.compile(r"TAILCHAT_GATE(_[A-Z0-9]+)*?_PORT")
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://.*")
#: Makes a TOML document of a value.
_ASSIGNED = "value = "


class NoLiteralError(ValueError):
    """A text is not a TOML or JSON value; `where` says where a list or table is wrong."""

    def __init__(self, expected: str, where: str) -> None:
        super().__init__(expected)
        self.where = where


@dataclass(frozen=True, slots=True)
class Assigned:
    """What the environment sets: values and variable names by key path, and problems."""

    values: dict[tuple[str, ...], object] = field(default_factory=dict, repr=False)
    names: dict[tuple[str, ...], str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def assigned(environ: Mapping[str, str]) -> Assigned:
    """Read every variable that begins with TAILCHAT_GATE_; an unknown name is a problem.

    No value of a variable appears in a problem.
    """
    found = Assigned()
    known = {key.env: key for key in all_keys() if key.env}
    for name in sorted(environ):
        text = environ[name]
        if not name.upper().startswith(ENV_PREFIX) or name == CONFIG_ENV or _is_service(name, text):
            continue
        key = known.get(name)
        if key is None:
            wanted = "a variable that the gate knows" + did_you_mean(name, [*known, CONFIG_ENV])
            found.problems.append(Problem(name, "an unknown variable", wanted))
            continue
        found.names[key.path] = name
        try:
            found.values[key.path] = _value(key, text)
        except NoLiteralError as wrong:
            kind = f"text that is neither TOML nor JSON{wrong.where}"
            found.problems.append(Problem(name, kind, str(wrong)))
    return found


def overlay(set_there: Assigned, draft: Draft) -> None:
    """Override the file by the environment; secrets.py settles the secrets."""
    secret = {(section, form) for (section, _), forms in SECRET_FORMS.items() for form in forms}
    for place, name in set_there.names.items():
        if place in secret:
            continue
        draft.sources[place] = name
        if place not in set_there.values:
            draft.settled.add(place)
            continue
        table = draft.document
        if len(place) > 1:
            inner = table.setdefault(place[0], {})
            if not isinstance(inner, dict):
                continue  # a value in place of the table is refused as a whole
            table = inner
        table[place[-1]] = set_there.values[place]


def _is_service(name: str, text: str) -> bool:
    if _SERVICE_NAME.fullmatch(name):
        return True
    return bool(_SERVICE_PORT.fullmatch(name) and _SERVICE_URL.fullmatch(text))


def _value(key: Key, text: str) -> object:
    if key.form == "text":
        return text
    if key.form == "literal":
        return _literal(text, _wanted(key))
    if text.lstrip().startswith("["):
        return _literal(text, "a list in TOML or JSON, or plain text with commas between")
    return [part.strip() for part in text.split(",")] if text.strip() else []


def _wanted(key: Key) -> str:
    if isinstance(key.default, bool):
        return "true or false"
    if isinstance(key.default, int):
        return "a whole number"
    if key.path == ("groups",):
        return """a table in TOML or JSON, such as {ops = ["660000000000000000000001"]}"""
    if key.path == ("token",):
        return """a list in TOML or JSON, such as [{"name": "backup", "hash": "sha256:..."}]"""
    return """a list in TOML or JSON, such as [{"name": "wiki", "upstream": "http://wiki:3000"}]"""


def _literal(text: str, expected: str) -> object:
    """Read one value, TOML first; raises NoLiteralError(expected)."""
    where = ""
    try:
        table = parse_text(text.strip(), before=_ASSIGNED)
    except DocumentError as wrong:
        table = {}
        if text.lstrip()[:1] in {"[", "{"}:
            where = f"; as TOML, {wrong.found}"
    if table.keys() == {"value"}:
        return table["value"]
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    raise NoLiteralError(expected, where)
