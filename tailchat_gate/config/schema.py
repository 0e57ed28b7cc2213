"""The JSON Schema of the configuration file, from which editors complete and check it."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from tailchat_gate.config.model import (
    Access,
    Assertion,
    Limits,
    Log,
    Pages,
    Route,
    Server,
    Session,
    Settings,
    State,
    Tailchat,
    Token,
)

Schema = dict[str, Any]

# Session.secrets and Tailchat.client_secret are what is left after these were read.
SECRET_FORMS: Mapping[tuple[str, str], Mapping[str, str]] = MappingProxyType(
    {
        ("tailchat", "client_secret"): MappingProxyType(
            {
                "client_secret": "Secret of the app registered at Tailchat.",
                "client_secret_file": "File with the secret of the app, instead of the key above.",
            }
        ),
        ("session", "secrets"): MappingProxyType(
            {
                "secret": "Secret that cookies are sealed with, 32 random characters or more.",
                "secrets": "Several such secrets: the first seals, all of them open.",
                "secret_file": "File with such secrets, one a line, instead of the keys above.",
            }
        ),
    }
)

_MODELS: tuple[type[BaseModel], ...] = (
    *(Server, Limits, Tailchat, Session, Access, State, Assertion, Token, Route, Pages, Log),
)
#: Tables that the file has any number of, each written whole.
_LISTED = (Route, Token)


class _FileSchema(GenerateJsonSchema):
    """Pydantic's generator without its titles; defaults are written by `file_schema`."""

    ignored_warning_kinds = {"non-serializable-default", "skipped-choice"}  # noqa: RUF012 - as in the base class

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ANN401, ARG002 - as in the base class
        """Leave the titles of fields out, they would repeat the keys."""
        return False


def file_schema() -> Schema:
    """Describe the file as an admin writes it: durations as text, secrets in all their forms.

    Nothing but a token's name and hash and a route's name and upstream is required, because the
    environment may supply it.
    """
    schema = Settings.model_json_schema(schema_generator=_FileSchema)
    tables = schema["$defs"]
    for model in _MODELS:
        table = tables[model.__name__]
        _write_defaults(table["properties"], model)
        if model not in _LISTED:
            table.pop("required", None)
    for (section, key), forms in SECRET_FORMS.items():
        _write_forms(tables[section.capitalize()], key, forms)
    for model in _LISTED:
        for described in tables[model.__name__]["properties"].values():
            choices = described.get("anyOf", ())
            if {"type": "null"} in choices:  # TOML has no null
                described.update(described.pop("anyOf")[0])
    properties = schema["properties"]
    properties["groups"]["default"] = {}
    for section in ("limits", "access", "state", "assertion", "pages", "log"):
        del properties[section]["default"]
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
    """Write the schema as docs/config.schema.json holds it."""
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
