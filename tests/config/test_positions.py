"""Positions in the file are those of the values that tomllib reads, in any valid text."""

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from configkit import CORPUS
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tailchat_gate.config.document import decoded
from tailchat_gate.config.positions import Scan
from tailchat_gate.config.problems import Location

ROOT = Path(__file__).parents[2]
FILES = sorted(
    (
        *(ROOT / "config.example.toml", ROOT / "pyproject.toml"),
        *CORPUS.rglob("*.toml"),
        *(ROOT / "tailchat_gate" / "pages" / "locales").glob("*.toml"),
    )
)


def _leaves(value: object, at: Location = ()) -> Iterator[tuple[Location, object]]:
    """Yield what is neither a table nor a list, with its place."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, (*at, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaves(inner, (*at, index))
    else:
        yield at, value


def _check(text: str, document: dict[str, object]) -> None:
    """Read each value again from where the scan found it, and compare all of them."""
    scan = Scan(text)
    found = {
        place: tomllib.loads(f"x = {text[slice(*span.value)]}")["x"]
        for place, span in scan.spans.items()
        if span.is_leaf
    }

    assert scan.is_complete
    # As text, since nan is not equal to itself.
    assert {place: repr(value) for place, value in found.items()} == {
        place: repr(value) for place, value in _leaves(document)
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_values_of_files_are_where_the_parser_reads_them(file: Path) -> None:
    """In every file of the project each value is found at the place that the parser gives it."""
    text = decoded(file.read_bytes())
    try:
        document = tomllib.loads(text)
    except ValueError:
        assert file.stem in {"syntax", "unfinished"}
        return

    _check(text, document)


_WORDS = st.sampled_from(["a", "b-1", "1", "route", '"a b"', "'c.\"'", '"\\u00e9\\""', '"]"'])
_SPACES = st.sampled_from(["", " ", "\t "])
_BREAKS = st.sampled_from(["", " ", "\n", " # ] } \"'\n", "\n\n\t"])
_ATOMS = st.sampled_from(
    [
        *("1", "0x1f", "1_000.5e-3", "inf", "true"),
        *("1979-05-27 07:32:00", "1979-05-27T07:32:00Z", "07:32:00", "1979-05-27"),
        *('""', '"a"', '"\\" # ]"', "''", "'\\'", "'\" # ='"),
        *('"""\n[a]\nb = "1"\n"""', '"""""a"""', '"""a""\\""""', '"""a"""""', '"""\\\n  a"""'),
        *("'''\n[a]\n'''", "''''a'''", "'''a''''", "'''a'''''"),
    ]
)


@st.composite
def _key(draw: st.DrawFn) -> str:
    parts = draw(st.lists(_WORDS, min_size=1, max_size=3))
    return f"{draw(_SPACES)}.{draw(_SPACES)}".join(parts)


def _values(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    @st.composite
    def listed(draw: st.DrawFn) -> str:
        parts = draw(st.lists(inner, max_size=3))
        text = ",".join(f"{draw(_BREAKS)}{part}{draw(_BREAKS)}" for part in parts)
        comma = draw(st.sampled_from(["", ","])) if parts else ""
        return f"[{text}{comma}{draw(_BREAKS)}]"

    @st.composite
    def table(draw: st.DrawFn) -> str:
        pairs = draw(st.lists(st.tuples(_key(), inner), max_size=3))
        text = ",".join(f"{draw(_SPACES)}{key}{draw(_SPACES)}= {one}" for key, one in pairs)
        return f"{{{text}{draw(_SPACES)}}}"

    return listed() | table()


_PAIRS = st.tuples(_key(), _SPACES, st.recursive(_ATOMS, _values, max_leaves=6)).map(
    lambda found: f"{found[1]}{found[0]}{found[1]}={found[1]}{found[2]}"
)
_HEADERS = st.tuples(_key(), _SPACES, st.booleans()).map(
    lambda found: f"[{found[1]}{found[0]}{found[1]}]" if found[2] else f"[[{found[0]}]]"
)
_LINES = st.tuples(_PAIRS | _HEADERS, st.sampled_from(["", " # a = 1", "\n"])).map("".join)


# On a busy machine the making of texts is slow, of which this says nothing.
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(st.lists(_LINES, max_size=6).map("\n".join))
def test_values_of_any_text_are_where_the_parser_reads_them(text: str) -> None:
    """Whatever the parser reads, the scan finds every value and no other, at its place."""
    try:
        document = tomllib.loads(text)
    except ValueError:
        assume(False)
        raise

    _check(text, document)


@given(st.text(alphabet="a=[]{}\"'\\\n#., 1", max_size=40))
def test_what_is_no_toml_ends_without_an_error(text: str) -> None:
    """A text with a mistake has the places before it, and the scan ends."""
    scan = Scan(text)

    assert all(0 <= start <= end <= len(text) for start, end in scan.comments)
    assert scan.spans.keys() or not scan.is_complete or not tomllib.loads(text)
