"""Names what differs between two configurations, never the values."""

from collections.abc import Iterator, Mapping
from typing import Final

from pydantic import BaseModel

from tailchat_gate.config.model import Settings
from tailchat_gate.config.problems import Problem, key_path

#: What a process reads once, at its start.
FIXED: Final = (("server", "workers"), ("state", "path"), ("log", "audit_file"))


def changes(old: Settings, new: Settings) -> tuple[str, ...]:
    """Return one line per difference, in the order of the file.

    For example "server.trusted_proxies", "groups.ops", "route wiki: allow, headers", "route old:
    removed".
    """
    return tuple(_changes(old, new))


def beyond_reload(old: Settings, new: Settings) -> tuple[Problem, ...]:
    """Return a problem for each difference that needs a restart."""
    found: list[Problem] = []
    for section, key in FIXED:
        before = getattr(getattr(old, section), key)
        if getattr(getattr(new, section), key) != before:
            wanted = "what it was at the start, or a restart"
            found.append(Problem(key_path((section, key)), "another value", wanted))
    return tuple(found)


def _changes(old: Settings, new: Settings) -> Iterator[str]:
    for section in Settings.model_fields:
        before, after = getattr(old, section), getattr(new, section)
        if isinstance(after, BaseModel):
            for key in _differing(_values(before), _values(after)):
                yield key_path((section, key))
        elif isinstance(after, Mapping):
            for name in _differing(before, after):
                yield key_path((section, name))
        else:
            yield from _entries(section, _by_name(before), _by_name(after))


def _entries(
    section: str, before: Mapping[str, BaseModel], after: Mapping[str, BaseModel]
) -> Iterator[str]:
    """Compare tables that have names, such as routes."""
    for name in _differing(before, after):
        if name not in after:
            yield f"{section} {name}: removed"
        elif name not in before:
            yield f"{section} {name}: added"
        else:
            keys = _differing(_values(before[name]), _values(after[name]))
            yield f"{section} {name}: {', '.join(keys)}"


def _differing(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    names = dict.fromkeys((*after, *before))
    missing = object()
    return [name for name in names if before.get(name, missing) != after.get(name, missing)]


def _values(section: BaseModel) -> dict[str, object]:
    return {key: getattr(section, key) for key in type(section).model_fields}


def _by_name(entries: tuple[BaseModel, ...]) -> dict[str, BaseModel]:
    return {str(getattr(entry, "name", "")): entry for entry in entries}
