"""A trial build may compile the request path; every other build is pure Python."""

import tomllib

from compiled import ROOT, compilable, interpreted


def test_each_module_that_is_compiled_exists() -> None:
    """A module that was moved is compiled at its new place, and no module is named twice."""
    found = compilable()

    assert [path for path in found if not (ROOT / path).is_file()] == []
    assert list(found) == sorted(set(found))


def test_a_build_is_pure_python_unless_it_is_asked_to_compile() -> None:
    """The two commands of the README need no C compiler."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())
    hook = told["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["mypyc"]

    assert hook["enable-by-default"] is False


def test_all_of_it_is_compiled_or_nothing() -> None:
    """A compiled form that lacks a module would be tested by nobody."""
    assert list(interpreted()) in ([], list(compilable()))
