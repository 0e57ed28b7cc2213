from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailchat_gate.request.readings import (
    MAX_CHARACTERS,
    MAX_READINGS,
    TooManyReadingsError,
    readings,
)

#: What attacks on paths are made of.
PIECES = (
    *(
        "/",
        "//",
        ".",
        "..",
        ";",
        ";a=b",
        "..;",
        "a",
        "Z",
        "~",
        "%",
        "%2",
        "%zz",
        "%20",
        "%2e",
        "%2E",
    ),
    *("%2f", "%5c", "%25", "%252e", "%252f", "%25252f", "%3b", "%3f", "%23", "%09", "%0d%0a"),
    *("%c0%ae", "%c0%af", "%e0%80%ae", "%f0%80%80%af", "%fc%80%80%80%80%af", "%ff", "%c1%a1"),
    *("%ef%bc%8e", "%ef%bc%8f", "%e2%80%a5", "%c4%b1", "%c3%a9", "%u002e", "%uff0f", "%ud800"),
    *("%E6%98%9F", "%2500", "%ed%a0%80"),
)


def paths(size: int) -> st.SearchStrategy[str]:
    """Return a strategy for paths of up to `size` pieces."""
    pieces = st.lists(st.sampled_from(PIECES), max_size=size)
    return pieces.map(lambda found: "/" + "".join(found))


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/a",
        "/a/",
        "/a/b.c/d-e_f~g",
        "/.well-known/x",
        "/..a/...b",
        "/a!$&'()*+,=:@b",
        "/wiki/Category:Foo",
        "/A/B",
    ],
)
def test_plain_paths_have_one_reading(path: str) -> None:
    """A path that nobody escaped, doubled or dotted is read in one way, its case kept."""
    assert readings(path) == {path}


@pytest.mark.parametrize(
    ("path", "reading"),
    [
        ("/%61", "/a"),
        ("/%41", "/A"),
        ("/%2561", "/a"),
        ("/%25%36%31", "/a"),
        ("/%252561", "/a"),
        ("/%ff%2561", "/\udcffa"),
        ("/group%2Fproject", "/group/project"),
        ("/x%2Fy%20z", "/x%2Fy z"),
        ("/x%2fy/%2e%2e/admin", "/admin"),
        ("/x%5cy/%2e%2e/admin", "/admin"),
        ("/x%2fy/%7e;/%2e%2e/%2e%2e/admin", "/admin"),
        ("/x/../admin", "/admin"),
        ("/x/%2e%2e/admin", "/admin"),
        ("/x/.%2E/admin", "/admin"),
        ("/x/%2e./admin", "/admin"),
        ("/x%2f..%2fadmin", "/admin"),
        ("/x/..%5cadmin", "/admin"),
        ("/x/%252e%252e%252fadmin", "/admin"),
        ("/../../admin", "/admin"),
        ("/./admin", "/admin"),
        ("/x/..", "/"),
        ("/x/y/.", "/x/y/"),
        ("/x/..;/admin", "/admin"),
        ("/x/..;a=b/admin", "/admin"),
        ("/x/..%3b/admin", "/admin"),
        ("/admin;x/y", "/admin/y"),
        ("/;/admin", "/admin"),
        ("//admin", "/admin"),
        ("/x//../admin", "/x/admin"),
        ("/x//../admin", "/admin"),
        ("//x/admin", "/admin"),
        ("///x/admin", "/admin"),
        ("/%2fx/admin", "/admin"),
        ("/%5cx/admin", "/admin"),
        ("//x", "/"),
        ("/%5cadmin", "/admin"),
        ("/admin%3fx", "/admin"),
        ("/admin%23x", "/admin"),
        ("/%3fx", "/"),
        ("/admin%2500x", "/admin"),
        ("/admin%c0%80x", "/admin"),
        ("/x/%c0%ae%c0%ae/admin", "/admin"),
        ("/..%20/admin/%c0%ae%c0%ae", "/admin/\udcc0\udcae\udcc0\udcae"),
        ("/admin/%c0%ae%c0%ae", "/admin/\udcc0\udcae\udcc0\udcae"),
        ("/x/%c0%ae%c0%ae%c0%afadmin", "/admin"),
        ("/x/%c0%2e%c0n/admin", "/admin"),
        ("/x/..%c1%1cadmin", "/admin"),
        ("/x/%ce/y/../admin", "/x/admin"),
        ("/x/%e0%80%ae%e0%80%ae/admin", "/admin"),
        ("/x/%f0%80%80%ae%f0%80%80%ae/admin", "/admin"),
        ("/x/%f8%80%80%80%ae%fc%80%80%80%80%ae/admin", "/admin"),
        ("/%c1%a1dmin", "/admin"),
        ("/x/%ef%bc%8e%ef%bc%8e/admin", "/admin"),
        ("/x/%e2%80%a5/admin", "/admin"),
        ("/x%ef%bc%8f..%ef%bc%8fadmin", "/admin"),
        ("/%ef%bc%85%36%31dmin", "/admin"),
        ("/%ef%bd%81dmin", "/admin"),
        ("/%c5%bfecret", "/secret"),
        ("/%e2%84%aaeys", "/Keys"),
        ("/adm%c4%b1n", "/admin"),
        ("/adm%c4%b0n", "/admIn"),
        ("/%c3%a1dmin", "/admin"),
        ("/x/%u002e%u002e/admin", "/admin"),
        ("/%uff41dmin", "/admin"),
        ("/ADMIN/%2e", "/ADMIN/"),
        ("/admin./x", "/admin/x"),
        ("/admin..%20.", "/admin"),
        ("/admin%20/x", "/admin/x"),
        ("/x/..%20/admin", "/admin"),
        ("/ad%09min", "/admin"),
        ("/ad%0d%0amin", "/admin"),
        ("/x/.%09./admin", "/admin"),
        ("/admin::$DATA", "/admin"),
        ("/admin:$i30:$INDEX_ALLOCATION/x", "/admin/x"),
        ("/%EF%B7%BA", "/صلى الله عليه وسلم"),
        ("/%E6%98%9F", "/星"),
        ("/a%", "/a%"),
        ("/a%zz%2e", "/a%zz."),
        ("/%ud800x/%2e", "/%ud800x/"),
    ],
)
def test_reading_is_found(path: str, reading: str) -> None:
    """What some server makes of a path is among its readings, and so is the path itself."""
    found = readings(path)

    assert reading in found
    assert path in found


@pytest.mark.parametrize(
    ("path", "others"),
    [
        ("/group%2Fproject", {"/group/project"}),
        ("/a%20b", {"/a b"}),
        ("/%E6%98%9F", {"/星"}),
        ("/a;b", {"/a"}),
        ("/x//y", {"/x/y"}),
        ("/v1.", {"/v1"}),
    ],
)
def test_honest_paths_have_few_readings(path: str, others: set[str]) -> None:
    """What honest clients send is read in two ways, none of them elsewhere."""
    assert readings(path) == {path, *others}


@given(path=paths(6))
@settings(max_examples=60, deadline=None)
def test_readings_are_complete(path: str) -> None:
    """Reading a reading again finds nothing new, so no order of steps was left out."""
    try:
        found = readings(path)
    except TooManyReadingsError:
        return

    assert all(readings(reading) <= found for reading in found)


@given(
    path=st.one_of(paths(12), st.binary(max_size=40).map(lambda raw: "/" + raw.decode("latin-1")))
)
@settings(deadline=None)
def test_any_path_is_read_or_refused(path: str) -> None:
    """Every path gives a bounded number of absolute readings, or the one refusal."""
    try:
        found = readings(path)
    except TooManyReadingsError:
        return

    assert len(found) <= MAX_READINGS
    assert all(reading.startswith("/") for reading in found)


def test_escapes_of_any_depth() -> None:
    """A letter that is escaped many times over is followed down to the letter."""
    assert "/a" in readings("/%" + "25" * 40 + "61")


@pytest.mark.parametrize(
    "make",
    [
        lambda: "/%" + "25" * 4000 + "2e",
        lambda: "/" + "//;x/.." * 1000,
        lambda: "/" + "%252e%252e%252f;%255c//" * 300,
        lambda: "/" + "".join("%" + "25" * depth + "2f;" for depth in range(60)),
        lambda: "/" + "%20" * 2700 + "%ef%bc%8e;%5c//%2e.",
        lambda: "/" + "." * 8000 + "%2f%5c;//%09%c3%a9%2e",
        lambda: "/" + "%EF%B7%BA" * 1500,
        lambda: "/" + "%EF%B7%BA" * 100 + "%2f;%41//x%5c",
        lambda: "/a" + "%CC%80%CC%96" * 16,
    ],
)
def test_evil_paths_are_refused(make: Callable[[], str]) -> None:
    """A path made to be read in very many ways, or at great length, is refused."""
    with pytest.raises(TooManyReadingsError, match="too many ways"):
        readings(make())


def test_long_honest_paths_pass() -> None:
    """A path as long as a request line allows is read, with escapes of a foreign script in it."""
    path = "/wiki/" + "%E6%98%9F" * 880

    assert len(path) > 7900
    assert readings(path) == {path, "/wiki/" + "星" * 880}
    assert MAX_CHARACTERS > 8 * 8190


def test_long_almost_plain_path_is_refused() -> None:
    """The shortcut for plain paths does not backtrack over a long one that just fails it."""
    with pytest.raises(TooManyReadingsError):
        readings("/" + "a." * 40_000)
