"""Writes docs/keys.md and docs/config.schema.json from the model: `python docs/keys.py`.

The pages in docs/configure/ have a section for each key, which tests compare with the model;
docs/keys.md is the list of all keys, with a link to each section.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tailchat_gate.config.keys import Key, all_keys, file_schema, schema_text
from tailchat_gate.config.model import LISTED

_DOCS: Final = Path(__file__).parent
_HEAD: Final = """\
# Every key at a glance

`python docs/keys.py` writes this page from the program's own model; do not edit it by hand.
Each key links to the section that explains it and says what else its value must be.
"""
_COLUMNS: Final = "| Key | Type | Default | Meaning |\n|---|---|---|---|"
_PLAIN: Final = {
    "boolean": "`true` or `false`",
    "integer": "whole number",
    "number": "number",
    "object": "table",
    "string": "text",
}


def page() -> str:
    """Return the page."""
    schema = file_schema()
    tables = dict.fromkeys(key.path[0] for key in all_keys())
    return "\n".join((_HEAD, *(_section(name, schema) for name in tables)))


def _section(name: str, schema: dict[str, Any]) -> str:
    described = schema["properties"][name]
    inner = described.get("items", described)
    fields = _properties(inner, schema)
    heading = f"[[{name}]]" if name in LISTED else f"[{name}]"
    rows = [_row(key, _field(key, described, fields)) for key in all_keys() if key.path[0] == name]
    return "\n".join((f"## {heading}\n", _COLUMNS, *rows, ""))


def _properties(described: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = described.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = schema["$defs"].get(name, {}).get("properties", {})
    return found


def _field(key: Key, table: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = fields[key.path[1]] if key.path[1:] else table
    return found


def _row(key: Key, described: dict[str, Any]) -> str:
    name = ".".join(key.path)
    anchor = re.sub(r"[^\w-]", "", name)
    default = "none" if key.default is None else f"`{_written(key.default)}`"
    words = (_type(described), default, key.description)
    cells = (cell.replace("|", r"\|").replace("<", "&lt;") for cell in words)
    return f"| [`{name}`](configure/{_page_of(name)}#{anchor}) | {' | '.join(cells)} |"


def _page_of(name: str) -> str:
    """Return the name of the page with a key's section; raises KeyError for a key without one."""
    for file in sorted((_DOCS / "configure").glob("*.md")):
        if f"\n## `{name}`\n" in file.read_text(encoding="utf-8"):
            return file.name
    raise KeyError(name)


def _written(value: object) -> str:
    """Write a default as the file has it."""
    return json.dumps(value, ensure_ascii=False)


def _type(described: dict[str, Any]) -> str:
    return " or ".join(dict.fromkeys(_types(described)))


def _types(described: dict[str, Any]) -> Iterator[str]:
    pattern = described.get("pattern", "")
    if "anyOf" in described:
        for choice in described["anyOf"]:
            yield from _types(choice)
    elif "enum" in described:
        yield from (f'`"{value}"`' for value in described["enum"])
    elif "const" in described:
        yield from () if described["const"] == 0 else (f'`"{described["const"]}"`',)
    elif "$ref" in described:
        yield "table"
    elif described["type"] == "array":
        yield "list of tables" if "$ref" in described["items"] else "list of texts"
    elif "KiB" in pattern or "[0-9]+d" in pattern:
        yield "size" if "KiB" in pattern else "duration"
    elif described["type"] != "null":
        yield _PLAIN[described["type"]]


if __name__ == "__main__":
    (_DOCS / "keys.md").write_text(page(), encoding="utf-8")
    (_DOCS / "config.schema.json").write_text(schema_text(), encoding="utf-8")
