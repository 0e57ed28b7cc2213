"""Where tests are: in the room of the package that they test, as CONTRIBUTING.md says."""

import re
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
_IMPORTED = re.compile(r"^ *(?:from|import) (\w+)", re.MULTILINE)
_STARTED = re.compile(r"\b(\w+)\.py\b")


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


def test_each_kit_serves_several_files() -> None:
    """What serves one file of tests is beside it; what conftest.py uses serves all."""
    users = defaultdict[str, set[Path]](set)
    for path in TESTS.rglob("*.py"):
        text = path.read_text("utf-8")
        for name in (*_IMPORTED.findall(text), *_STARTED.findall(text)):
            users[name].add(path)
    kits = sorted((TESTS / "kit").glob("*.py"))
    serve_all = {kit for kit in kits if TESTS / "conftest.py" in users[kit.stem]}
    alone = {kit.stem for kit in kits if len(users[kit.stem] - {kit}) < 2 and kit not in serve_all}

    assert alone == set()
