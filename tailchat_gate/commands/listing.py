"""One way to list: a table for people, with its columns aligned, or JSON for programs."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import click

_Item = TypeVar("_Item")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def print_json(document: object) -> None:
    """Print a document for programs."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def print_list(
    found: Iterable[_Item],
    cells: Callable[[_Item], tuple[str, ...]],
    row: Callable[[_Item], Mapping[str, object]],
    *,
    nothing: str,
    as_json: bool,
) -> None:
    """Print a line of `cells` for each item, or `nothing` without one; as JSON a list of `row`."""
    items = tuple(found)
    if as_json:
        print_json([dict(row(item)) for item in items])
    elif not items:
        click.echo(nothing)
    else:
        print_table([cells(item) for item in items])


def print_table(table: Sequence[tuple[str, ...]]) -> None:
    """Print rows with their columns below each other."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def fit_for_a_terminal(text: str) -> str:
    """Return a stranger's text without the characters that control a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)
