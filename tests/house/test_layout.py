"""Where tests are: in the room of the package that they test, as CONTRIBUTING.md says."""

from collections import defaultdict
from pathlib import Path

import pytest

import tailchat_gate

TESTS = Path(__file__).parents[1]
PACKAGE = Path(tailchat_gate.__file__).parent
FILES = sorted(TESTS.rglob("test_*.py"))
#: Folders of tests that are no room of the package; CONTRIBUTING.md says what each has.
OTHERS = {"house", "wire", "recipes"}
#: Every test with a gate is one of what wires it.
TESTED_BY_ALL = {"serving/wiring"}


def _folder(path: Path, root: Path) -> str:
    return path.parent.relative_to(root).as_posix()


#: The folders of the package with modules, and those of the modules with one name.
MODULES = defaultdict[str, set[str]](set)
for _path in PACKAGE.glob("*/**/[!_]*.py"):
    MODULES[_path.stem].add(_folder(_path, PACKAGE))
ROOMS = set[str]().union(*MODULES.values())
FOLDERS = {_folder(path, TESTS) for path in FILES}


def test_every_folder_of_tests_is_a_room_of_the_package() -> None:
    """No file is beside the rooms, and no folder of tests has lost its room."""
    assert FOLDERS - ROOMS == OTHERS


def test_every_room_of_the_package_has_its_tests() -> None:
    """A room, or a part of one, that is new gets a folder of tests."""
    above = {folder.partition("/")[0] for folder in FOLDERS}

    assert ROOMS - FOLDERS - above == TESTED_BY_ALL


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_with_the_name_of_a_module_is_in_its_room(file: Path) -> None:
    """The tests of a module are found by its name, and no others are found by it.

    A file may have the name of its own folder, which a module elsewhere can have, too.
    """
    name, folder = file.stem.removeprefix("test_"), _folder(file, TESTS)

    assert not MODULES[name] or folder in MODULES[name] or folder.rpartition("/")[2] == name


def test_no_two_files_of_tests_have_one_name() -> None:
    """Documents name a file of tests without its folder."""
    assert len({file.name for file in FILES}) == len(FILES)
