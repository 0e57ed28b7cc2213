"""Overrides the file by the environment, and reads each secret from the form it is given in."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from tailchat_gate.config.document import DocumentError, parse_text
from tailchat_gate.config.files import exposure
from tailchat_gate.config.keys import SECRET_FORMS, Key, all_keys, env_name
from tailchat_gate.config.model import TABLES
from tailchat_gate.config.problems import ENV_PREFIX, Draft, Problem, did_you_mean, key_path, kind
from tailchat_gate.config.tables.fields import AUTO

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
#: Put before a value, it makes a TOML document of it.
_ASSIGNED = "value = "


class NoLiteralError(ValueError):
    """A text is neither a TOML nor a JSON value; `where` is the position of the mistake, or ""."""

    def __init__(self, expected: str, where: str) -> None:
        super().__init__(expected)
        self.where = where


@dataclass(frozen=True, slots=True)
class Assigned:
    """The settings of the environment: values and variable names by key path, and problems.

    `names` also has the variables whose value cannot be read.
    """

    values: dict[tuple[str, ...], object] = field(default_factory=dict, repr=False)
    names: dict[tuple[str, ...], str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def assigned(environ: Mapping[str, str]) -> Assigned:
    """Read every variable that begins with TAILCHAT_GATE_; an unknown name is a problem.

    No value of a variable appears in a problem.
    """
    result = Assigned()
    known = {key.env: key for key in all_keys() if key.env}
    for name in sorted(environ):
        text = environ[name]
        if not name.upper().startswith(ENV_PREFIX) or name == CONFIG_ENV or _is_service(name, text):
            continue
        key = known.get(name)
        if key is None:
            wanted = "a variable that the gate knows" + did_you_mean(name, [*known, CONFIG_ENV])
            result.problems.append(Problem(name, "an unknown variable", wanted))
            continue
        result.names[key.path] = name
        try:
            result.values[key.path] = _value(key, text)
        except NoLiteralError as wrong:
            kind = f"text that is neither TOML nor JSON{wrong.where}"
            result.problems.append(Problem(name, kind, str(wrong)))
    return result


def overlay(set_there: Assigned, draft: Draft) -> None:
    """Override the file by the environment, except for secrets; see `settle_secret`."""
    secret = {(section, form) for (section, _), forms in SECRET_FORMS.items() for form in forms}
    for path, name in set_there.names.items():
        if path in secret:
            continue
        draft.sources[path] = name
        if path not in set_there.values:
            draft.settled.add(path)
            continue
        table = draft.document
        if len(path) > 1:
            inner = table.setdefault(path[0], {})
            if not isinstance(inner, dict):
                continue  # validation refuses a value in place of a table
            table = inner
        table[path[-1]] = set_there.values[path]


def _is_service(name: str, text: str) -> bool:
    if _SERVICE_NAME.fullmatch(name):
        return True
    return bool(_SERVICE_PORT.fullmatch(name) and _SERVICE_URL.fullmatch(text))


def _value(key: Key, text: str) -> object:
    if key.form == "text" or (text == AUTO and isinstance(key.default, int)):
        return text
    if key.form == "literal":
        return _literal(text, _wanted(key))
    if text.lstrip().startswith("["):
        return _literal(text, "a list in TOML or JSON, or entries with commas between them")
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
    """Read one value as TOML or else as JSON; raises NoLiteralError(expected)."""
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


_LARGEST = 64 * 1024


def settle_secret(owner: tuple[str, str], set_there: Assigned, folder: Path, draft: Draft) -> None:
    """Replace the forms in which a secret was written by its value, under the model's key.

    `owner` is a key of SECRET_FORMS; paths of files are relative to `folder`.
    """
    section, key = owner
    table = draft.document.setdefault(section, {})
    if not isinstance(table, dict):
        return  # validation refuses a value in place of a table
    paths = {form: (section, form) for form in SECRET_FORMS[owner]}
    in_file = {form: table.pop(form) for form in paths if form in table}
    in_environ = {
        form: set_there.values[path] for form, path in paths.items() if path in set_there.values
    }
    if not (in_file or set_there.names.keys() & set(paths.values()) or _is_required(owner)):
        return
    if len(in_environ) < len(set_there.names.keys() & set(paths.values())):
        draft.settled.add(owner)
        return
    secret = _given(owner, in_file, in_environ, folder)
    draft.files.extend(secret.files)
    draft.note_exposed(*secret.warnings)
    if secret.problems:
        draft.problems.extend(secret.problems)
        draft.settled.add(owner)
        return
    table[key] = secret.value
    draft.sources[owner] = secret.label
    for index, _ in enumerate(secret.value if isinstance(secret.value, list) else ()):
        if not secret.listed:
            draft.sources[*owner, index] = secret.label
    for index, line in enumerate(secret.lines):
        draft.lines[(*owner, index) if isinstance(secret.value, list) else owner] = line


@dataclass(frozen=True, slots=True)
class _Given:
    """A secret as it was given.

    `value` goes to the model: a SecretStr, a list of these, a value of a wrong kind, or None if
    nothing can be read.
    `label` names the source of the value; `listed`: the entries have places of their own there.
    `lines` are the file and line of each entry, for messages; `files` were read.
    """

    value: object = field(default=None, repr=False)
    label: str = ""
    listed: bool = False
    lines: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()


def _given(
    owner: tuple[str, str],
    in_file: Mapping[str, object],
    in_environ: Mapping[str, object],
    folder: Path,
) -> _Given:
    """Read a secret from its one form; several forms are a problem.

    `in_file` and `in_environ` have the forms by their keys; any form in the environment overrides
    all forms in the file.
    """
    source = in_environ or in_file
    forms = [form for form in SECRET_FORMS[owner] if form in source]
    labels = {
        form: env_name((owner[0], form)) if in_environ else key_path((owner[0], form))
        for form in SECRET_FORMS[owner]
    }
    if not forms:
        return _Given(problems=(_missing(owner),))
    first, *others = forms
    if others:
        wanted = "only one of " + ", ".join(labels.values())
        both = f"{labels[first]} is set too"
        return _Given(problems=tuple(Problem(labels[form], both, wanted) for form in others))
    value = source[first]
    if first.endswith("_file"):
        return _from_file(labels[first], value, folder, many=owner == ("session", "secrets"))
    if owner == ("session", "secrets") and first == "secret":
        return _Given([_hidden(value)], labels[first])
    if isinstance(value, list):
        return _Given([_hidden(item) for item in value], labels[first], listed=True)
    return _Given(_hidden(value), labels[first])


def _is_required(owner: tuple[str, str]) -> bool:
    return TABLES[owner[0]].model_fields[owner[1]].is_required()


def _from_file(label: str, value: object, folder: Path, *, many: bool) -> _Given:
    if not isinstance(value, str) or not value or "\0" in value:
        return _Given(problems=(Problem(label, kind(value), "the path of a file"),))
    path = folder / value
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as refused:
        reason = refused.strerror or "unreadable"
        problem = Problem(label, f"{path}: {reason}", "a file that can be read")
        return _Given(problems=(problem,), files=(path,))
    lines = _lines(content)
    if isinstance(lines, str):
        problem = Problem(label, f"{path}: {lines}", "a file that holds the secret")
        return _Given(problems=(problem,), files=(path,))
    if not many and len(lines) > 1:
        found = f"{path}: {len(lines)} lines"
        problem = Problem(label, found, "a file with the secret on one line")
        return _Given(problems=(problem,), files=(path,))
    warnings = tuple(exposure(label, path))
    secrets = [SecretStr(text) for _, text in lines]
    numbered = tuple(f"{path}, line {number}" for number, _ in lines)
    found_there = secrets if many else secrets[0]
    return _Given(found_there, label, lines=numbered, warnings=warnings, files=(path,))


def _lines(content: bytes) -> list[tuple[int, str]] | str:
    """Return the lines that are not blank with their numbers, or a text that says what is wrong."""
    if len(content) > _LARGEST:
        return f"more than {_LARGEST // 1024} KiB"
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = None  # handled outside, so that no traceback holds the content
    if text is None:
        return "not UTF-8 text"
    numbered = enumerate(text.replace("\r\n", "\n").split("\n"), 1)
    return [(number, line) for number, line in numbered if line.strip()] or "empty"


def _hidden(value: object) -> object:
    return SecretStr(value) if isinstance(value, str) else value


def _missing(owner: tuple[str, str]) -> Problem:
    forms = list(SECRET_FORMS[owner])
    names = ", ".join(forms[:-1]) + f" or {forms[-1]}"
    here = key_path((owner[0], forms[0]))
    variables = " or ".join(env_name((owner[0], form)) for form in (forms[0], forms[-1]))
    return Problem(here, "nothing", f"{names} (or {variables} in the environment)")
