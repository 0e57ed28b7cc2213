"""Every key of the configuration: its JSON Schema and its environment variable."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, Literal, get_args

from pydantic import BaseModel, SecretStr
from pydantic.json_schema import GenerateJsonSchema

from tailchat_gate.config.model import LISTED, TABLES, Settings
from tailchat_gate.config.problems import ENV_PREFIX, Location
from tailchat_gate.config.tables.target import HealthCheck

Schema = dict[str, Any]

#: The keys of the file in which a secret can be written, each with its description, by the
#: secret's table and its key in the model.
SECRET_FORMS: Mapping[tuple[str, str], Mapping[str, str]] = MappingProxyType(
    {
        (name, key): forms
        for name, table in TABLES.items()
        for key, forms in table.secret_forms.items()
    }
)


Form = Literal["text", "list", "literal"]


class _FileSchema(GenerateJsonSchema):
    """Pydantic's generator without titles; `file_schema` writes the defaults."""

    ignored_warning_kinds = {"non-serializable-default", "skipped-choice"}  # noqa: RUF012 - as in the base class

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ANN401, ARG002 - as in the base class
        """Return False: titles would only repeat the keys."""
        return False


def file_schema() -> Schema:
    """Return the JSON Schema of the file as it is written: durations as text, all secret forms.

    Only a token's name and hash and a route's name and upstream are required, because the
    environment can set everything else.
    """
    schema = Settings.model_json_schema(schema_generator=_FileSchema)
    tables = schema["$defs"]
    properties = schema["properties"]
    for name, model in TABLES.items():
        table = tables[model.__name__]
        _write_defaults(table["properties"], model)
        if name not in LISTED:
            table.pop("required", None)
            properties[name].pop("default", None)
        for key, forms in model.secret_forms.items():
            _write_forms(table, key, forms)
    for name in LISTED:
        for described in tables[TABLES[name].__name__]["properties"].values():
            choices = described.get("anyOf", ())
            if {"type": "null"} in choices:  # TOML has no null
                described.update(described.pop("anyOf")[0])
    _write_defaults(tables[HealthCheck.__name__]["properties"], HealthCheck)
    tables[HealthCheck.__name__].pop("title", None)
    properties["groups"]["default"] = {}
    del schema["required"]
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Tailchat Gate configuration",
        "description": "What one gate reads at its start; environment variables go over it.",
        "type": schema.pop("type"),
        "additionalProperties": schema.pop("additionalProperties"),
        "properties": schema.pop("properties"),
        "$defs": tables,
    }


def schema_text() -> str:
    """Return the text of docs/config.schema.json."""
    return json.dumps(file_schema(), indent=2, ensure_ascii=False) + "\n"


def _write_defaults(properties: Schema, model: type[BaseModel]) -> None:
    defaults = model.model_construct().model_dump(mode="json")
    for key, described in properties.items():
        described.pop("default", None)
        if defaults.get(key) is not None:
            described["default"] = defaults[key]


def _write_forms(table: Schema, key: str, forms: Mapping[str, str]) -> None:
    text: Schema = {"type": "string", "minLength": 1}
    described: Schema = {}
    for form, description in forms.items():
        value = {"type": "array", "items": text, "minItems": 1} if form == "secrets" else dict(text)
        described[form] = {"description": description, **value}
    rest = {name: value for name, value in table["properties"].items() if name != key}
    before = list(table["properties"]).index(key)
    items = list(rest.items())
    table["properties"] = dict(items[:before] + list(described.items()) + items[before:])
    names = list(forms)
    pairs = [[a, b] for i, a in enumerate(names) for b in names[i + 1 :]]
    table["not"] = {"anyOf": [{"required": pair} for pair in pairs]}


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the file.

    `path` is ("server", "listen"), ("groups",) or, inside a route, ("route", "name").
    `form` says how the text of an environment variable becomes a value: unchanged ("text"), as a
    list of texts ("list"), or as a TOML or JSON literal.
    `env` is the variable, "" for a key inside a route or token: one variable sets all routes, or
    all tokens. `default` is written as in the file, None if there is no default.
    """

    path: tuple[str, ...]
    form: Form
    env: str
    default: object
    description: str


@cache
def all_keys() -> tuple[Key, ...]:
    """List the keys in the order of the file."""
    return tuple(_keys(file_schema()))


def names_in(section: str) -> tuple[str, ...]:
    """List the keys of one table; "" lists the tables themselves."""
    if not section:
        return tuple(dict.fromkeys(key.path[0] for key in all_keys()))
    return tuple(key.path[1] for key in all_keys() if key.path[0] == section and key.path[1:])


def may_show(at: Location) -> bool:
    """Whether the value at a place in the file may be shown: a known key that holds no secret."""
    table, below = str(at[0]), at[2:] if at[0] in LISTED else at[1:]
    if table not in TABLES or not below:
        return table == "groups"
    key = str(below[0])
    if any(key in forms for owner, forms in SECRET_FORMS.items() if owner[0] == table):
        return key.endswith("_file")
    known = TABLES[table].model_fields.get(key)
    return known is not None and known.repr is not False and not _is_secret(known.annotation)


def _is_secret(annotation: object) -> bool:
    return annotation is SecretStr or any(map(_is_secret, get_args(annotation)))


def env_name(path: tuple[str, ...]) -> str:
    """Name the environment variable of a key: TAILCHAT_GATE_SERVER__LISTEN."""
    return ENV_PREFIX + "__".join(path).upper()


def _keys(schema: Schema) -> Iterator[Key]:
    tables = schema["$defs"]
    for section, described in schema["properties"].items():
        inner = described.get("items", described)
        if "$ref" not in described:  # [groups], [[token]] and [[route]] are set as a whole
            yield _key((section,), described, listed=False)
        if "$ref" in inner:
            properties = tables[inner["$ref"].rpartition("/")[2]]["properties"]
            for name, value in properties.items():
                yield _key((section, name), value, listed=inner is not described)


def _key(path: tuple[str, ...], described: Schema, *, listed: bool) -> Key:
    env = "" if listed else env_name(path)
    return Key(path, _form(described), env, described.get("default"), described["description"])


def _form(described: Schema) -> Form:
    kinds = [described, *described.get("anyOf", ())]
    if any(kind.get("items", {}).get("type") == "string" for kind in kinds):
        return "list"
    is_text = described.get("type", "string") == "string"
    return "text" if is_text and {"integer"}.isdisjoint(map(_type_of, kinds)) else "literal"


def _type_of(described: Schema) -> object:
    return described.get("type")
