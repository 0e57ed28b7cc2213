"""The names in the configuration that a shell completes; only they have to be valid.

A shell that starts runs completion.py, which is another module because this one imports config.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from tailchat_gate.config.document import Document, parse
from tailchat_gate.config.overlay import CONFIG_ENV, DEFAULT_CONFIG
from tailchat_gate.config.values.identifier import SUB, TOKEN
from tailchat_gate.identity.revocation.state import ALL
from tailchat_gate.syntax import TAILCHAT_ID


def routes(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of routes."""
    return _that_begin(incomplete, _texts(_rows(_document(context), "route"), "name"))


def tokens(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of tokens."""
    return _that_begin(incomplete, _texts(_rows(_document(context), "token"), "name"))


def persons(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the people in groups and lists of the configuration."""
    return _that_begin(incomplete, _people(_document(context)))


def people_or_all(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[str]:
    """Return the same people, and the word for everybody."""
    return _that_begin(incomplete, (ALL, *_people(_document(context))))


def targets(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the people and machines in the configuration, and the word for everybody."""
    document = _document(context)
    machines = (TOKEN + name for name in _texts(_rows(document, "token"), "name"))
    return _that_begin(incomplete, (ALL, *machines, *_people(document)))


def urls(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the addresses of the routes that have a host."""
    document = _document(context)
    server = document.get("server")
    public = server.get("public_url") if isinstance(server, dict) else ""
    scheme = public.partition(":")[0] if isinstance(public, str) and public else "https"
    addresses = []
    for row in _rows(document, "route"):
        host, path = row.get("host"), row.get("path", "/")
        if isinstance(host, str) and isinstance(path, str) and "*" not in host:
            addresses.append(f"{scheme}://{host}{path}")
    return _that_begin(incomplete, addresses)


def _document(context: click.Context) -> Document:
    path = context.params.get("config") or os.environ.get(CONFIG_ENV) or DEFAULT_CONFIG
    try:
        return parse(Path(path).read_bytes())
    except (OSError, ValueError):
        return {}


def _rows(document: Document, name: str) -> list[Document]:
    rows = document.get(name)
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _people(document: Document) -> Iterator[str]:
    """Yield the people in groups and in the lists of routes, as `sub:ID`."""
    groups = document.get("groups")
    for members in groups.values() if isinstance(groups, dict) else ():
        listed = members.get("members") if isinstance(members, dict) else members
        yield from (SUB + sub for sub in _list(listed) if TAILCHAT_ID.fullmatch(sub))
    for row in _rows(document, "route"):
        for key in ("allow", "deny"):
            yield from (entry for entry in _list(row.get(key)) if entry.startswith(SUB))


def _list(value: object) -> Iterator[str]:
    return (item for item in (value if isinstance(value, list) else ()) if isinstance(item, str))


def _texts(rows: Iterable[Document], key: str) -> Iterator[str]:
    return (text for row in rows if isinstance(text := row.get(key), str))


def _that_begin(incomplete: str, names: Iterable[str]) -> list[str]:
    return [
        name for name in dict.fromkeys(names) if name.startswith(incomplete) and name.isprintable()
    ]
