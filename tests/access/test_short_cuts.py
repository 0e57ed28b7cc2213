"""Every short cut in finding a route decides as the long way does, which looks at everything."""

from typing import NamedTuple

import pytest
from choices import Choices, chosen
from hypothesis import given, settings
from routekit import Row, around, covers, make_table
from test_spellings import HOSTS, METHODS, spelling

from tailchat_gate.access.routes import Match, RouteTable
from tailchat_gate.reasons import RefusedError
from tailchat_gate.request.readings import TooManyReadingsError
from tailchat_gate.request.target import read_host, read_target

PLACES = (
    *(("/",), ("/", "/admin"), ("/", "/x", "/Admin", "/x/y")),
    *(("/", "/x/y/z", "/x.html", "/x/index.html"), ("/x", "/x/y.z/w", "/x/y/")),
)
ALLOWS = (("public",), ("signed-in",), ("group:ops",))


def rows_of(choices: Choices) -> tuple[Row, ...]:
    """Return up to five routes, most often few places, some of them with a path replaced."""
    paths = choices.of((*PLACES, ("/",)))
    rows: dict[tuple[str | None, str, tuple[str, ...]], Row] = {}
    for _ in range(choices.between(1, 5)):
        path = choices.of(paths)
        host = choices.of((None, "gate.test", "*.test"))
        methods = choices.of(((), (), ("GET",), ("POST", "PROPFIND")))
        rows[(host, path, methods)] = Row(
            path,
            choices.of(ALLOWS),
            host,
            methods,
            upstream_path=choices.of((None, None, "/", "/in", "/in/x")),
        )
    return tuple(rows.values())


def long_way(table: RouteTable, host: str, path: str, method: str) -> tuple[object, ...] | None:
    """Return what `match` would without any of its short cuts and memories."""
    here = table._patterns.get(host) or table._any_host
    return outcome(here._judge(path, method))


def outcome(found: Match | None) -> tuple[object, ...] | None:
    """Return what of a match decides: the route, and its rules in any order."""
    return None if found is None else (found.route, frozenset(found.rules))


class Asked(NamedTuple):
    """Routes, and requests for a path."""

    rows: tuple[Row, ...]
    path: str
    host: str
    methods: tuple[str, str]


def asked(choices: Choices) -> Asked:
    """Return any routes and requests."""
    path, host = spelling(choices), choices.of(HOSTS)
    methods = (choices.of(METHODS), choices.of(METHODS))
    return Asked(rows_of(choices), path, host, methods)


@given(chosen(asked))
@settings(max_examples=150, deadline=None)
def test_the_short_way_decides_as_the_long_way(requests: Asked) -> None:
    """Whatever the routes, host, path and methods, no short cut skips a check of the long way."""
    rows, path, host, methods = requests
    table, name = make_table(*rows), read_host([host]).name
    try:
        path = read_target(path, None).path
    except RefusedError:
        return
    here = [row for row in rows if covers(row.host, name)]
    same_for_all = all(row.path == "/" for row in here) and not any(
        row.upstream_path for row in around(rows, name, "/")
    )
    for method in methods:
        for _ in range(2):
            try:
                whole = long_way(table, name, path, method)
            except TooManyReadingsError:
                if not same_for_all:
                    with pytest.raises(TooManyReadingsError):
                        table.match(name, path, method)
            else:
                assert outcome(table.match(name, path, method)) == whole


SEGMENTS = (
    *("x", "X", "y", "z", "xx", "admin", "Admin", "y.z", "x.html", "x.", "index.html", "index"),
    *("INDEX.php", "a.b", "1", "w", "", "."),
)


def forms(choices: Choices) -> tuple[tuple[Row, ...], list[str], list[str]]:
    """Return routes, and segments of two paths."""
    segments, others = choices.several(SEGMENTS, 6), choices.several(SEGMENTS, 3)
    return rows_of(choices), segments, others


@given(chosen(forms))
@settings(max_examples=300, deadline=None)
def test_paths_of_one_form_lead_to_the_same_places(
    asked: tuple[tuple[Row, ...], list[str], list[str]],
) -> None:
    """What a form was judged to be holds for every plain path of that form."""
    rows, segments, others = asked
    table = make_table(*rows)
    for path in ("/" + "/".join(segments), "/" + "/".join([*segments[:-1], *others])):
        here = table._any_host
        form = here._plain.form(path)
        if form is None:
            continue
        assert here._plain.form(form) == form
        for method in METHODS:
            wanted = long_way(table, "any.host", path, method)
            assert long_way(table, "any.host", form, method) == wanted
            assert outcome(table.match("any.host", path, method)) == wanted
