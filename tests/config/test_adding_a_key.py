"""A key is added by one module and its documentation; all else takes it from there."""

import filecmp
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
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
DOCUMENTS: Final = ("config.example.toml", "docs/config.schema.json", "docs/configuration.md")
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
IN_THE_DOCS: Final = f"""### `server.motto`

- Type: text
- Default: `""`
- Environment: `{VARIABLE}`

What the gate says of itself.

### `server.watch`"""

#: Reads two files, and says what it found of them.
LOOK: Final = """
import json, sys
from pathlib import Path
from tailchat_gate.config.model import changes
from tailchat_gate.config.keys import all_keys
from tailchat_gate.config.load import load

old, new = (load(Path(name), json.loads(sys.argv[3])).settings for name in sys.argv[1:3])
keys = {".".join(key.path): key.env for key in all_keys()}
print(json.dumps([changes(old, new), new.server.motto, repr(new), keys["server.motto"]]))
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
        shutil.copy(ROOT / DOCUMENTATION_TEST, root / DOCUMENTATION_TEST)

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

    def gate(self, *words: str, **environ: str) -> tuple[int, str, str]:
        """Run a command of the copy's gate."""
        return self.run("-m", "tailchat_gate", *words, environ={**SECRETS, **environ})

    def failures(self) -> set[str]:
        """Return the names of the tests of the configuration that fail in the copy."""
        code, out, err = self.run("-m", "pytest", "-q", "-n0", *TESTS, environ={})
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


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Return what writes a configuration with further lines in [server]."""

    def written(line: str = "", name: str = "gate.toml") -> str:
        file = write_smallest(tmp_path)
        text = file.read_text(encoding="utf-8").replace("[server]\n", f"[server]\n{line}\n")
        target = tmp_path / name
        target.write_text(text, encoding="utf-8")
        return str(target)

    return written


def test_the_schema_has_the_key(copy: Copy) -> None:
    """Editors are told of it with its type, its default and its words."""
    _, out, _ = copy.gate("schema")

    assert json.loads(out)["$defs"]["Server"]["properties"]["motto"] == {
        "type": "string",
        "default": "",
        "description": "What the gate says of itself; empty says nothing.",
    }


def look(copy: Copy, old: str, new: str, **environ: str) -> Any:  # noqa: ANN401 - as JSON has it
    """Return what changed, the value, the whole in words, and the variable of the key."""
    code, out, err = copy.run("-c", LOOK, old, new, json.dumps({**SECRETS, **environ}))
    assert code == 0, err
    return json.loads(out)


def test_a_reload_names_the_key(copy: Copy, write: Callable[..., str]) -> None:
    """What differs is told by its name, and its value is in no words about the settings."""
    old, new = write(), write(f'motto = "{VALUE}"', "new.toml")
    changed, value, words, _ = look(copy, old, new)

    assert (changed, value) == (["server.motto"], VALUE)
    assert VALUE not in words


def test_the_environment_sets_the_key(copy: Copy, write: Callable[..., str]) -> None:
    """Its variable has the usual name, and goes over the file."""
    file = write('motto = "of-the-file"')
    _, value, _, variable = look(copy, file, file, **{VARIABLE: VALUE})

    assert (value, variable) == (VALUE, VARIABLE)


def test_check_and_explain_take_the_key(copy: Copy, write: Callable[..., str]) -> None:
    """Both commands read a file that has it."""
    file = write(f'motto = "{VALUE}"')
    checked = copy.gate("check", "--config", file)
    explained = copy.gate("explain", "https://gate.example.com/", "--config", file)

    assert f"{file}: good, 1 route" in checked[1]
    assert "wiki" in explained[1]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (f'motto = "{VALUE} more"', "server.motto\n  found:    text\n  expected: a motto without"),
        ("motto = 71077345", "server.motto\n  found:    a number\n  expected: text in quotes"),
        (f'moto = "{VALUE}"', 'a key that [server] has; did you mean "motto"?'),
    ],
)
def test_check_refuses_the_key_in_its_words(
    copy: Copy, write: Callable[..., str], line: str, told: str
) -> None:
    """A wrong value is told by place and rule without being shown, a misspelt key by its own."""
    code, out, err = copy.gate("check", "--config", write(line))

    assert code == 2
    assert told in err
    assert VALUE not in out + err
    assert "71077345" not in out + err


def test_only_its_documentation_is_missed(copy: Copy) -> None:
    """Without documentation its test fails and no other; four changed files are all it takes."""
    missed = copy.failures()
    copy.put(DOCUMENTS[0], "#watch = true\n", IN_THE_EXAMPLE)
    copy.put(DOCUMENTS[2], "### `server.watch`", IN_THE_DOCS)
    (copy.root / DOCUMENTS[1]).write_text(copy.gate("schema")[1], encoding="utf-8")

    assert f"{DOCUMENTATION_TEST}::test_the_docs_tell_the_truth_about_a_key[server.motto]" in missed
    assert {name.partition("::")[0] for name in missed} == {DOCUMENTATION_TEST}
    assert copy.failures() == set()
    assert copy.touched() == sorted((MODULE, *DOCUMENTS))
