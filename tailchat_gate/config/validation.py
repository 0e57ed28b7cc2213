"""Validates the tables of a document against their models and explains the problems to the admin.

Each table is checked alone, then against the others; no text of a problem contains a secret.
"""

from collections.abc import Collection, Iterable, Mapping
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from tailchat_gate.config.certificates import (
    certificate_files,
    certificate_warnings,
    exposed_certificate_keys,
    unusable_certificates,
)
from tailchat_gate.config.conflicts import Compared, conflicts
from tailchat_gate.config.files import (
    exposed_key_files,
    exposed_keys,
    key_problems,
    missing_exporter,
    named_files,
    unusable,
    unusable_authorities,
    unusable_logo,
)
from tailchat_gate.config.keys import env_name, may_show, names_in
from tailchat_gate.config.model import (
    LISTED,
    TABLES,
    Assertion,
    RouteSettings,
    Server,
    Settings,
    Tailchat,
    Token,
)
from tailchat_gate.config.never import TailchatUrls, never_works
from tailchat_gate.config.problems import (
    Draft,
    Location,
    did_you_mean,
    key_path,
    kind,
    partial,
    readable,
    shown,
)
from tailchat_gate.config.tables.fields import Groups
from tailchat_gate.config.tables.server import PUBLIC_ADDRESSES
from tailchat_gate.config.values.group import Group

_EXPECTED: Mapping[str, str] = MappingProxyType(
    {
        "string_type": "text in quotes",
        "string_unicode": "text in UTF-8",
        "int_type": "a whole number",
        "bool_type": "true or false",
        "tuple_type": "a list",
        "dict_type": "a table",
        "mapping_type": "a table",
        "model_type": "a table",
        "too_short": "at least one entry",
    }
)
_WHOLE = frozenset({"model_type", "dict_type", "mapping_type", "tuple_type"})
_AT_LEAST_ONE = 'at least one [[route]], such as name = "wiki", upstream = "http://wiki:3000"'

_GROUPS: TypeAdapter[Mapping[str, Group]] = TypeAdapter(Groups)

_Model = TypeVar("_Model", bound=BaseModel)


def validated(draft: Draft) -> Settings | None:
    """Check all tables, each alone and then together; None if the draft has problems."""
    document = draft.document
    for name in [name for name in document if name not in names_in("")]:
        near = did_you_mean(name, names_in(""))
        draft.refuse((name,), "an unknown table or key", f"a table that the gate has{near}")
    parts: dict[str, Any] = {}
    rows: dict[str, dict[int, Any]] = {}
    groups: Mapping[str, Group] | None = None
    for name in Settings.model_fields:
        if name in LISTED:
            rows[name] = _each(name, document.get(name, []), draft)
        elif name in TABLES:
            parts[name] = _model(TABLES[name], (name,), document.get(name, {}), draft)
        else:
            groups = _groups(document.get(name, {}), draft)
    names = groups if groups is not None else _group_names_alone(draft)
    _refuse_conflicts(draft, names, parts, rows["token"], rows["route"])
    _note_files(draft, parts, rows["route"])
    if draft.problems or groups is None or None in parts.values():
        return None
    hosts = _hosts_of(parts["server"], rows["route"].values())
    draft.warnings.extend(certificate_warnings(parts["server"], hosts))
    draft.note_exposed(*exposed_certificate_keys(parts["server"]))
    lists = {name: tuple(rows_of_table.values()) for name, rows_of_table in rows.items()}
    # Everything is checked already: validating again would check each rule twice.
    return Settings.model_construct(None, **parts, **lists, groups=groups)


def _note_files(
    draft: Draft, tables: Mapping[str, BaseModel | None], routes: Mapping[int, RouteSettings]
) -> None:
    """Record the files of tables without problems, and warn of keys that every user can read."""
    assertion, tailchat = tables["assertion"], tables["tailchat"]
    key_files = assertion.key_files if isinstance(assertion, Assertion) else ()
    draft.note_exposed(*exposed_key_files(key_files), *exposed_keys(routes))
    draft.files.extend((*map(Path, key_files), *named_files(routes)))
    if isinstance(tailchat, Tailchat) and tailchat.ca_file:
        draft.files.append(Path(tailchat.ca_file))
    if logo := readable(tables["pages"], "logo", ""):
        draft.files.append(Path(logo))
    if isinstance(server := tables["server"], Server):
        draft.files.extend(certificate_files(server))


def _hosts_of(server: Server, routes: Iterable[RouteSettings]) -> list[str]:
    """Return the host names that visitors use."""
    public = urlsplit(server.public_url).hostname or ""
    return [public, *(route.host for route in routes if route.host)]


def _refuse_conflicts(
    draft: Draft,
    groups: Collection[str] | None,
    tables: Mapping[str, BaseModel | None],
    tokens: Mapping[int, Token],
    routes: Mapping[int, RouteSettings],
) -> None:
    """Compare keys and tables with each other; of tables with problems, use the valid keys."""

    def key(table: str, name: str, default: object) -> Any:  # noqa: ANN401 - the model's type
        return readable(tables[table] or draft.partial.get((table,)), name, default)

    compared = Compared(
        routes=_with_partial("route", routes, draft),
        tokens=_with_partial("token", tokens, draft),
        route_names=_names_alone("route", draft),
        token_names=_names_alone("token", draft),
        groups=groups,
        prefix=key("server", "prefix", None),
        public_url=key("server", "public_url", None),
        denied=key("access", "deny", ()),
        approvers=key("access", "approvers", ()),
        listen=tuple(chain(*(key("server", name, ()) for name in PUBLIC_ADDRESSES))),
        stores_sessions=key("session", "store", False),  # noqa: FBT003 - the default
        keeps_state=bool(key("state", "path", "?") or key("state", "url", "")),
        workers=key("server", "workers", 1),
    )
    server = tables["server"]
    for conflict in (
        *(unusable_certificates(server) if isinstance(server, Server) else ()),
        *key_problems(key("assertion", "key_files", ())),
        *conflicts(compared),
        *never_works(
            compared,
            TailchatUrls(key("tailchat", "api_url", ""), key("tailchat", "internal_url", "")),
        ),
        *unusable(compared.routes),
        *unusable_authorities(key("tailchat", "ca_file", "")),
        *unusable_logo(key("pages", "logo", "")),
        *missing_exporter(key("tracing", "endpoint", "")),
    ):
        draft.refuse(conflict.at, conflict.found, conflict.expected)


def _with_partial(section: str, made: Mapping[int, _Model], draft: Draft) -> dict[int, _Model]:
    """Return the tables of a list in their order, including the partly readable ones."""
    models: dict[int, Any] = dict(made)
    for at, part in draft.partial.items():
        if at[0] == section and isinstance(at[-1], int):
            models[at[-1]] = part
    return dict(sorted(models.items()))


def _model(model: type[_Model], at: Location, value: object, draft: Draft) -> _Model | None:
    try:
        return model.model_validate(value)
    except ValidationError as refused:
        _list(refused, at, model, draft)
        part = partial(model, value, refused)
        if part is not None:
            draft.partial[at] = part
    return None


def _groups(value: object, draft: Draft) -> Mapping[str, Group] | None:
    if ("groups",) in draft.settled:
        return None
    try:
        return _GROUPS.validate_python(value)
    except ValidationError as refused:
        _list(refused, ("groups",), None, draft)
    return None


def _group_names_alone(draft: Draft) -> Collection[str] | None:
    """Read only the names of groups that have problems; None if that is impossible."""
    table = draft.document.get("groups")
    return table.keys() if isinstance(table, dict) and ("groups",) not in draft.settled else None


def _each(section: str, value: object, draft: Draft) -> dict[int, Any]:
    """Check each table of a list; return those without problems by position."""
    if Settings.model_fields[section].is_required() and value in (None, []):
        draft.refuse((section,), "nothing", _AT_LEAST_ONE)
        return {}
    if not isinstance(value, list):
        draft.refuse((section,), kind(value), f"[[{section}]] with two pairs of brackets")
        return {}
    model = TABLES[section]
    rows = enumerate(value)
    read = {index: _model(model, (section, index), row, draft) for index, row in rows}
    return {index: made for index, made in read.items() if made is not None}


def _names_alone(section: str, draft: Draft) -> Collection[str] | None:
    """Read only the names in a list of tables with problems; None if that is impossible."""
    rows = draft.document.get(section, [])
    if not isinstance(rows, list) or (section,) in draft.settled:
        return None
    return [str(row.get("name")) for row in rows if isinstance(row, dict)]


def _list(
    refused: ValidationError, at: Location, model: type[BaseModel] | None, draft: Draft
) -> None:
    for error in refused.errors(include_url=False):
        path = (*at, *error["loc"])
        draft.refuse(path, *_describe_error(error, path, model))


def _describe_error(
    error: ErrorDetails, at: Location, model: type[BaseModel] | None
) -> tuple[str, str]:
    """Convert one error of pydantic into what was found and what was expected.

    `at` is the full place in the file, `model` the model of its table, None for [groups].
    """
    inner = _inner(at, model)
    if inner is not None and error["type"] == "extra_forbidden":
        table = key_path(part for part in at[:-1] if isinstance(part, str))
        near = did_you_mean(str(at[-1]), inner.model_fields)
        return "an unknown key", f"a key that [[{table}]] has{near}"
    if inner is not None and error["type"] == "missing":
        return "nothing", f"a value such as {shown(_example(inner, at))}"
    if error["type"] == "missing":
        return "nothing", _wanted(at, model)
    if error["type"] == "extra_forbidden" and model is None:
        return "an unknown key", 'a key that a group has: "members" or "max"'
    if error["type"] == "extra_forbidden":
        table = f"[[{at[0]}]]" if at[0] in LISTED else f"[{at[0]}]"
        near = did_you_mean(str(at[-1]), names_in(str(at[0])))
        return "an unknown key", f"a key that {table} has{near}"
    return _describe_input(error, at), _expected(error)


def _inner(at: Location, model: type[BaseModel] | None) -> type[BaseModel] | None:
    """Return the model of an inner table such as route.health, None outside of one."""
    below = at[2:] if at[0] in LISTED else at[1:]
    if model is None or len(below) < len(("key", 0, "key of the inner table")):
        return None
    field = model.model_fields.get(str(below[0]))
    kinds = get_args(field.annotation) if field is not None else ()
    models = (kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel))
    return next(models, None)


def _example(model: type[BaseModel], at: Location) -> object:
    return (model.model_fields[str(at[-1])].examples or [""])[0]


def _describe_input(error: ErrorDetails, at: Location) -> str:
    value = error["input"]
    if isinstance(value, SecretStr):
        return f"a secret of {len(value.get_secret_value())} characters"
    if "[key]" in at:
        return shown(value)
    if error["type"] in _WHOLE or not may_show(at):
        return kind(value)
    return shown(value)


def _expected(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    if error["type"] == "value_error":
        return str(context["error"])
    if error["type"] == "literal_error":
        near = ""
        words = str(context["expected"]).replace("'", '"')
        if isinstance(error["input"], str):
            near = did_you_mean(
                error["input"], words.replace(" or ", ", ").strip('"').split('", "')
            )
        return words + near
    return _EXPECTED.get(error["type"], error["msg"])


def _wanted(at: Location, model: type[BaseModel] | None) -> str:
    examples = model.model_fields[str(at[-1])].examples if model else None
    such = f"a value such as {shown(examples[0])}" if examples else "a value"
    if at[0] in LISTED:
        return such
    return f"{such} (or {env_name((str(at[0]), str(at[-1])))} in the environment)"
