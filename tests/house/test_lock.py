import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = ROOT / "requirements.lock"
BACKEND = ROOT / "requirements-build.lock"
LOCKS = pytest.mark.parametrize("lock", [RUNTIME, BACKEND], ids=lambda path: path.name)


def entries(lock: Path) -> dict[str, str]:
    """Each logical line of a lock file that is not a comment, by canonical package name."""
    text = re.sub(r"^\s*#.*\n", "", lock.read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return {canonicalize_name(line.split("==")[0]): line for line in lines if line.strip()}


def pinned(line: str) -> Version:
    """The one version that an entry allows."""
    specifiers = list(Requirement(line.split(" --hash=", maxsplit=1)[0]).specifier)

    assert [one.operator for one in specifiers] == ["=="]

    return Version(specifiers[0].version)


def project() -> dict[str, list[str]]:
    """Dependencies as pyproject.toml states them, by the lock file that has to satisfy them."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())
    runtime = told["project"]["dependencies"] + told["project"]["optional-dependencies"]["speed"]
    hook = told["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["mypyc"]
    backend = told["build-system"]["requires"] + hook["dependencies"]
    return {RUNTIME.name: runtime, BACKEND.name: backend}


@pytest.mark.parametrize(
    ("lock", "dependency"), [(lock, one) for lock, several in project().items() for one in several]
)
def test_a_dependency_is_locked_within_its_bound(lock: str, dependency: str) -> None:
    """Every dependency of pyproject.toml has an entry whose version satisfies its bound."""
    wanted = Requirement(dependency)
    line = entries(ROOT / lock)[canonicalize_name(wanted.name)]

    assert wanted.specifier.contains(pinned(line))


@LOCKS
def test_every_entry_is_one_version_with_hashes(lock: Path) -> None:
    """An entry names exactly one version and nothing but SHA-256 hashes of its files."""
    for line in entries(lock).values():
        pinned(line)

        assert re.fullmatch(r"[^#]*?( --hash=sha256:[0-9a-f]{64})+", re.sub(" +", " ", line))


@LOCKS
def test_an_entry_installs_on_both_architectures(lock: Path) -> None:
    """No marker narrows an entry to one kind of processor."""
    for name, line in entries(lock).items():
        marker = Requirement(line.split(" --hash=", maxsplit=1)[0]).marker

        assert "machine" not in str(marker), name


@LOCKS
def test_a_lock_names_no_place(lock: Path) -> None:
    """A lock file holds no address of an index and no path of the machine that made it."""
    text = lock.read_text()

    assert "://" not in text
    assert not re.search(r"(^|\s)/\w", text)
    assert not re.search(r"^-", text, flags=re.MULTILINE)


@LOCKS
def test_a_lock_says_how_it_is_made(lock: Path) -> None:
    """The first lines of a lock file have the command that makes the file."""
    head = lock.read_text().split("\n\n")[0].split("==")[0]

    assert "uv pip compile --universal" in head
    assert "--generate-hashes" in head
