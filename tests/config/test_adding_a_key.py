"""A key is added by one module and its documentation; all else takes it from there."""

import filecmp
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from configkit import SECRETS, write_smallest

ROOT: Final = Path(__file__).parents[2]
COPIED: Final = ("tailchat_gate", "docs", "tests/kit", "tests/data/config", "tests/config")
DOCUMENTATION_TEST: Final = "tests/house/test_config_docs.py"
TESTS: Final = (
    DOCUMENTATION_TEST,
    "tests/config/test_config_diff.py",
    "tests/config/test_config_environ.py",
)
MODULE: Final = "tailchat_gate/config/tables/server.py"
WRITTEN: Final = ("config.example.toml", "docs/configure/process.md")
MADE: Final = ("docs/config.schema.json", "docs/keys.md")
VARIABLE: Final = "TAILCHAT_GATE_SERVER__MOTTO"
VALUE: Final = "quite-private-words"

#: The key as its table has it: confidential, with a rule of its own.
IN_THE_MODULE: Final = """    motto: Annotated[str, AfterValidator(distinct_words)] = Field(
        default="",
        description="What the gate says of itself; empty says nothing.",
        repr=False,
    )
    watch: StrictBool"""
RULE: Final = '''def distinct_words(text: str) -> str:
    """Check a motto; raises ValueError."""
    if " " in text:
        raise ValueError("a motto without a blank")
    return text


class Server(Section)'''
IN_THE_EXAMPLE: Final = """#watch = true

# What the gate says of itself.
#motto = ""
"""
IN_THE_DOCS: Final = f"""## `server.motto`

- Type: text
- Default: `""`
- Environment: `{VARIABLE}`

What the gate says of itself.

## `server.watch`"""

#: Reads the files in one process, and says what it found of the key.
LOOK: Final = """
import json, os, sys
from pathlib import Path
from click.testing import CliRunner
from tailchat_gate.cli import main
from tailchat_gate.config.keys import all_keys
from tailchat_gate.config.load import load
from tailchat_gate.config.model import changes

files, variable, value = json.loads(sys.argv[1])


def read(name, **environ):
    return load(Path(files[name]), {**os.environ, **environ}).settings


def run(*words):
    done = CliRunner().invoke(main, words)
    return done.exit_code, done.stdout, done.stderr


new = read("new")
print(json.dumps({
    "schema": run("schema")[1],
    "changes": changes(read("old"), new),
    "values": (new.server.motto, read("other", **{variable: value}).server.motto),
    "repr": repr(new),
    "variable": {".".join(key.path): key.env for key in all_keys()}["server.motto"],
    "check": {name: run("check", "--config", file) for name, file in files.items()},
    "explain": run("explain", "https://gate.example.com/", "--config", files["new"]),
}))
"""
#: A line of [server] in each of the files that are read.
LINES: Final = {
    "old": "",
    "new": f'motto = "{VALUE}"',
    "other": 'motto = "of-the-file"',
    "two words": f'motto = "{VALUE} more"',
    "number": "motto = 71077345",
    "misspelt": f'moto = "{VALUE}"',
}
#: Enough for tests without an event loop: to load every plugin takes longer than to run them.
PYTEST_INI: Final = """[pytest]
pythonpath = . tests/kit
filterwarnings = error
"""


class Copy:
    """A copy of the package with its documentation, and of the tests that read these."""

    def __init__(self, root: Path) -> None:
        self.root = root
        leave = shutil.ignore_patterns("__pycache__")
        for name in COPIED:
            shutil.copytree(ROOT / name, root / name, ignore=leave)
        for name in ("pyproject.toml", "config.example.toml"):
            shutil.copy(ROOT / name, root / name)
        (root / "tests/house").mkdir()
        for name in (DOCUMENTATION_TEST, "tests/house/schemakit.py"):
            shutil.copy(ROOT / name, root / name)

    def put(self, name: str, before: str, text: str) -> None:
        """Put a text in place of another that is in a file once."""
        file = self.root / name
        content = file.read_text(encoding="utf-8")
        assert content.count(before) == 1
        file.write_text(content.replace(before, text), encoding="utf-8")

    def run(self, *words: str, environ: Mapping[str, str] = SECRETS) -> tuple[int, str, str]:
        """Run Python in the copy; return its exit code and what it wrote."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("TAILCHAT_", "PYTEST_"))}
        done = subprocess.run(
            [sys.executable, "-P", *words],
            cwd=self.root,
            env={**clean, **environ, "PYTHONPATH": str(self.root)},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def failures(self, *tests: str) -> set[str]:
        """Return the names of the tests of the configuration that fail in the copy."""
        (self.root / "pytest.ini").write_text(PYTEST_INI, encoding="utf-8")
        plain = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        options = ("-q", "-p", "no:cacheprovider", "--noconftest")
        code, out, err = self.run("-m", "pytest", *options, *tests, environ=plain)
        (self.root / "pytest.ini").unlink()
        assert code in {0, 1}, out + err
        return set(re.findall(r"^FAILED (.+?)(?: - .*)?$", out, flags=re.MULTILINE))

    def touched(self) -> list[str]:
        """Return the files that are not as they are in the project."""
        found = (path for path in self.root.rglob("*") if path.is_file())
        names = [str(path.relative_to(self.root)) for path in found]
        own = [name for name in names if "__pycache__" not in name and not name.startswith(".")]
        return sorted(
            name for name in own if not filecmp.cmp(ROOT / name, self.root / name, shallow=False)
        )


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """Return a copy whose [server] has one more key, without its documentation."""
    made = Copy(tmp_path_factory.mktemp("copy"))
    made.put(MODULE, "    watch: StrictBool", IN_THE_MODULE)
    made.put(MODULE, "class Server(Section)", RULE)
    assert made.touched() == [MODULE]
    return made


@pytest.fixture(scope="module")
def seen(copy: Copy, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what one process of the copy says of the key in each of the files."""
    folder = tmp_path_factory.mktemp("files")
    smallest = write_smallest(folder)
    text = smallest.read_text(encoding="utf-8")
    files: dict[str, str] = {}
    for name, line in LINES.items():
        file = folder / f"{name}.toml"
        file.write_text(text.replace("[server]\n", f"[server]\n{line}\n"), encoding="utf-8")
        file.chmod(0o600)
        files[name] = str(file)
    code, out, err = copy.run("-c", LOOK, json.dumps((files, VARIABLE, VALUE)))
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_the_schema_has_the_key(seen: dict[str, Any]) -> None:
    """Editors are told of it with its type, its default and its words."""
    assert json.loads(seen["schema"])["$defs"]["Server"]["properties"]["motto"] == {
        "type": "string",
        "default": "",
        "description": "What the gate says of itself; empty says nothing.",
    }


def test_a_reload_names_the_key(seen: dict[str, Any]) -> None:
    """What differs is told by its name, and its value is in no words about the settings."""
    assert (seen["changes"], seen["values"][0]) == (["server.motto"], VALUE)
    assert VALUE not in seen["repr"]


def test_the_environment_sets_the_key(seen: dict[str, Any]) -> None:
    """Its variable has the usual name, and goes over the file."""
    assert (seen["values"][1], seen["variable"]) == (VALUE, VARIABLE)


def test_check_and_explain_take_the_key(seen: dict[str, Any]) -> None:
    """Both commands read a file that has it."""
    assert "new.toml: good, 1 route" in seen["check"]["new"][1]
    assert "wiki" in seen["explain"][1]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("two words", "server.motto: found text\n"),
        ("number", "server.motto: found a number\n"),
        ("misspelt", '= help: write "motto"'),
    ],
)
def test_check_refuses_the_key_in_its_words(seen: dict[str, Any], name: str, told: str) -> None:
    """A wrong value is told by place and rule without being shown, a misspelt key by its own."""
    code, out, err = seen["check"][name]

    assert code == 2
    assert told in err
    assert VALUE not in out + err
    assert "71077345" not in out + err


def test_only_its_documentation_is_missed(copy: Copy, seen: dict[str, Any]) -> None:
    """Without documentation its test alone fails; two files to write and two made suffice."""
    missed = copy.failures(*TESTS)
    copy.put(WRITTEN[0], "#watch = true\n", IN_THE_EXAMPLE)
    copy.put(WRITTEN[1], "## `server.watch`", IN_THE_DOCS)
    code, _, err = copy.run("docs/keys.py")
    assert code == 0, err

    assert f"{DOCUMENTATION_TEST}::test_the_docs_tell_the_truth_about_a_key" in missed
    assert {name.partition("::")[0] for name in missed} == {DOCUMENTATION_TEST}
    # The other tests read no document, and have passed.
    assert copy.failures(DOCUMENTATION_TEST) == set()
    assert copy.touched() == sorted((MODULE, *WRITTEN, *MADE))
