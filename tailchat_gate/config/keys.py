"""Every key an admin can write, with the environment variable that sets it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

from tailchat_gate.config.schema import Schema, file_schema

ENV_PREFIX = "TAILCHAT_GATE_"

Form = Literal["text", "list", "literal"]


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the file.

    `path` is ("server", "listen"), ("groups",) or, inside a route, ("route", "name").
    `form` says how an environment variable's text becomes its value: taken as it is, a list of
    texts, or a TOML or JSON literal.
    `env` is the variable, "" for the keys inside a route or token, which are set together.
    `default` is written as in the file, None where there is none.
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
    """List the keys of one table; "" stands for the tables themselves."""
    if not section:
        return tuple(dict.fromkeys(key.path[0] for key in all_keys()))
    return tuple(key.path[1] for key in all_keys() if key.path[0] == section and key.path[1:])


def env_name(path: tuple[str, ...]) -> str:
    """Name the environment variable of a key: TAILCHAT_GATE_SERVER__LISTEN."""
    return ENV_PREFIX + "__".join(path).upper()


def _keys(schema: Schema) -> Iterator[Key]:
    tables = schema["$defs"]
    for section, described in schema["properties"].items():
        inner = described.get("items", described)
        if "$ref" not in described:  # [groups], [[token]] and [[route]] are set whole
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
    return "text" if described.get("type", "string") == "string" else "literal"
