"""Checks a value by the part of JSON Schema that the configuration's schema uses."""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from types import MappingProxyType
from typing import Any

Schema = dict[str, Any]

#: Editors show a schema the dates of TOML as text.
TEXT = (str, date)
KINDS: Mapping[str, type | tuple[type, ...]] = MappingProxyType(
    {
        "object": dict,
        "array": list,
        "string": TEXT,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
    }
)
NOTES = frozenset({"$schema", "$defs", "title", "description", "default", "examples"})


def _about(
    kind: type | tuple[type, ...], holds: Callable[[Any, Any], bool]
) -> Callable[[Any, object], bool]:
    """Hold values of one kind to a rule and let all others pass, as JSON Schema does."""
    return lambda rule, value: not isinstance(value, kind) or holds(rule, value)


#: Words that look at a value by itself: (rule, value) -> whether it holds.
PLAIN: Mapping[str, Callable[[Any, Any], bool]] = MappingProxyType(
    {
        "type": lambda rule, value: isinstance(value, KINDS[rule]),
        "enum": lambda rule, value: value in rule,
        "const": lambda rule, value: value == rule,
        "pattern": _about(TEXT, lambda rule, value: bool(re.search(rule, str(value)))),
        "minLength": _about(str, lambda rule, value: len(value) >= rule),
        "minItems": _about(list, lambda rule, value: len(value) >= rule),
        "uniqueItems": _about(list, lambda _, value: len(set(map(str, value))) == len(value)),
        "minimum": _about((int, float), lambda rule, value: value >= rule),
        "maximum": _about((int, float), lambda rule, value: value <= rule),
        "required": _about(dict, lambda rule, value: set(rule) <= value.keys()),
    }
)


class Validator:
    """Lists what a schema has against a value; a word it does not know is a KeyError."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._nested: dict[str, Callable[[Schema, Any, str], Iterator[str]]] = {
            "$ref": self._ref,
            "anyOf": self._any_of,
            "not": self._not,
            "items": self._items,
            "properties": self._properties,
            "additionalProperties": self._additional,
        }

    def errors(self, value: object, schema: Schema | None = None, at: str = "") -> Iterator[str]:
        """Yield `place: word` for every rule that does not hold."""
        schema = self._root if schema is None else schema
        for word, rule in schema.items():
            if word in PLAIN:
                if not PLAIN[word](rule, value):
                    yield f"{at}: {word}"
            elif word not in NOTES:
                yield from self._nested[word](schema, value, at)

    def _ref(self, schema: Schema, value: object, at: str) -> Iterator[str]:
        yield from self.errors(
            value, self._root["$defs"][schema["$ref"].removeprefix("#/$defs/")], at
        )

    def _any_of(self, schema: Schema, value: object, at: str) -> Iterator[str]:
        if all(any(self.errors(value, option)) for option in schema["anyOf"]):
            yield f"{at}: anyOf"

    def _not(self, schema: Schema, value: object, at: str) -> Iterator[str]:
        if not any(self.errors(value, schema["not"])):
            yield f"{at}: not"

    def _items(self, schema: Schema, value: object, at: str) -> Iterator[str]:
        for index, item in enumerate(value if isinstance(value, list) else ()):
            yield from self.errors(item, schema["items"], f"{at}[{index}]")

    def _properties(self, schema: Schema, value: object, at: str) -> Iterator[str]:
        for key, item in (value if isinstance(value, dict) else {}).items():
            if key in schema["properties"]:
                yield from self.errors(item, schema["properties"][key], f"{at}.{key}")

    def _additional(self, schema: Schema, value: object, at: str) -> Iterator[str]:
        rule = schema["additionalProperties"]
        for key, item in (value if isinstance(value, dict) else {}).items():
            if key in schema.get("properties", {}):
                continue
            if rule is False:
                yield f"{at}.{key}: unknown"
            else:
                yield from self.errors(item, rule, f"{at}.{key}")
