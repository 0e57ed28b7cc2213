"""The effective configuration: each value without secrets, and where it came from."""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final

from pydantic import BaseModel, SecretStr

from tailchat_gate.config.load import BY_DEFAULT, Sources
from tailchat_gate.config.model import LISTED, Settings
from tailchat_gate.config.problems import key_path
from tailchat_gate.serving.dashboard.facts import MOST_ROWS

_HIDDEN: Final = "(hidden)"
_FILE: Final = "file"
#: Keys whose values are or may hold secrets, although their type does not say so.
_SECRET_KEYS: Final = frozenset(("hash", "headers"))
_LONGEST: Final = 300


def effective(settings: Settings, sources: Sources) -> list[dict[str, object]]:
    """Return a row for each key: `key`, `value` and `source`.

    The source is "file", "default" or the name of an environment variable. Routes and tokens have
    rows only for keys that are set. There are at most MOST_ROWS.
    """
    return list(islice(_rows(settings, sources), MOST_ROWS))


def _rows(settings: Settings, sources: Sources) -> Iterator[dict[str, object]]:
    for name in type(settings).model_fields:
        table = getattr(settings, name)
        if name in LISTED:
            for entry in table:
                yield from _table(f"[[{name}]] {entry.name}", entry, {}, every=False)
        elif isinstance(table, BaseModel):
            own = {place[1]: source for place, source in sources.items() if place[:1] == (name,)}
            yield from _table(name, table, own, every=True)
        else:
            source = sources.get((name,), _FILE)
            for key, value in table.items():
                yield {"key": key_path((name, key)), "value": _shown(value), "source": source}


def _table(
    name: str, table: BaseModel, sources: Mapping[str | int, str], *, every: bool
) -> Iterator[dict[str, object]]:
    for key in type(table).model_fields:
        is_set = key in table.model_fields_set
        if not every and (not is_set or key == "name"):
            continue
        source = sources.get(key, _FILE if is_set else BY_DEFAULT)
        value = _HIDDEN if key in _SECRET_KEYS else _shown(getattr(table, key))
        shown = f"{name}.{key}" if every else f"{name}: {key}"
        yield {"key": shown, "value": value, "source": source}


def _shown(value: object) -> str:
    """Return a value much as TOML writes it."""
    text = _text(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _text(value: object) -> str:
    if isinstance(value, SecretStr):
        return _HIDDEN
    if isinstance(value, BaseModel):
        value = {key: getattr(value, key) for key in type(value).model_fields}
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key} = {_text(each)}' for key, each in value.items())} }}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, float):
        return f"{value:g}"
    if value is None or isinstance(value, str | bool | int):
        return json.dumps(value, ensure_ascii=False) if value is not None else ""
    return json.dumps(str(value))
