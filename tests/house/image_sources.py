"""What the image is made of: a base that mmdebstrap makes, and the wheels of the lock files.

Both are kept for a week outside the checkout, as Docker keeps a base. No registry of images is
asked, and the index of packages once: of each package pip reads every version that it ever had.
"""

import ast
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from edgekit import program
from parts import LEAN_GO, missing

ROOT: Final = Path(__file__).parents[2]
#: The release of Debian whose Python is that of the base.
_RELEASES: Final = MappingProxyType({"python:3.13-slim": "trixie"})
_PACKAGES: Final = "python3,python3-pip,python-is-python3,ca-certificates"
#: What Debian's slim images are without; every file is copied three times.
_LEFT_OUT: Final = ("/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*")
#: What pip may have to know to reach the package index from here.
_PIP_KEYS: Final = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")
_CERTIFICATES: Final = "/etc/pip-certificates.pem"
_LOCKS: Final = ("requirements-build.lock", "requirements.lock")
#: Where the steps of the build find them.
_WHEELS: Final = "/etc/pip-wheels"
#: Seconds for which a base and wheels are kept.
_WEEK: Final = 7 * 86_400


def run(*command: str | Path, **more: Any) -> str:  # noqa: ANN401 - as in subprocess.run
    """Run a command; return what it prints, fail with all it says."""
    words = list(map(str, command))
    done: subprocess.CompletedProcess[str] = subprocess.run(
        words, capture_output=True, text=True, check=False, **more
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def _mirror() -> str:
    """Return the address of the mirror of Debian that apt uses here."""
    told = run(program("apt-get"), "indextargets", "--format", "$(LABEL) $(REPO_URI)")
    found = re.search(r"^Debian (http\S+)$", told, re.MULTILINE)
    if found is None:
        missing("a mirror of Debian among apt's sources")
    return found[1]


def _pip_settings() -> dict[str, str]:
    """Return how pip is configured here, its variables of the environment included."""
    for python in (sys.executable, shutil.which("python3") or sys.executable):
        done = subprocess.run(
            [python, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            break
    lines = (line.partition("=") for line in done.stdout.splitlines())
    # Variables come first; they win over files.
    pairs = [(name.rpartition(".")[2], ast.literal_eval(text)) for name, _, text in lines]
    return {name.removeprefix("default-"): str(text) for name, text in reversed(pairs)}


class Buildah:
    """Buildah with a store of its own."""

    def __init__(self, place: Path) -> None:
        store = ("--root", place / "store", "--runroot", place / "run")
        self._command = (program("buildah"), *store, "--storage-driver", "vfs")

    def __call__(self, *arguments: str | Path, **more: Any) -> str:  # noqa: ANN401 - as in run
        """Run one of its commands; return what it prints."""
        environ = {**os.environ, **LEAN_GO}
        return run(*self._command, *arguments, env=environ, **more).strip()


def _kept(name: str, what: str, make: Callable[[Path], object], place: Path) -> Path:
    """Return an archive that is made in the place unless it was made in the last seven days."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tailchat-gate"
    kept = cache / f"{name}-{hashlib.sha256(what.encode()).hexdigest()[:16]}.tar"
    made = place / f"{name}.tar"
    if kept.is_file() and time.time() - kept.stat().st_mtime < _WEEK:
        return kept
    make(made)
    with suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as beside:
            # Another run must not find half of it.
            shutil.copy(made, beside)
            (Path(beside) / made.name).replace(kept)
    return made


def _make_debian(release: str, made: Path) -> None:
    """Make an archive of a small Debian with its Python."""
    # What it mounts is gone when it ends, whatever the end.
    run(
        *(program("unshare"), "--mount", program("mmdebstrap"), "--variant=essential"),
        *(f"--dpkgopt=path-exclude={path}" for path in _LEFT_OUT),
        *("--quiet", f"--include={_PACKAGES}", release, made, _mirror()),
        env={**os.environ, "TMPDIR": str(made.parent)},
    )


def make_base(buildah: Buildah, name: str, place: Path) -> None:
    """Make an image of a small Debian with its Python, under a name."""
    container = buildah("from", "scratch")
    root = Path(buildah("mount", container))
    release = _RELEASES[name]
    what = " ".join((release, _PACKAGES, *_LEFT_OUT))
    archive = _kept("base", what, partial(_make_debian, release), place)
    run("tar", "--extract", "--numeric-owner", "--file", archive, "--directory", root)
    for part in ("var/cache/apt/archives", "var/lib/apt/lists"):
        shutil.rmtree(root / part)
    (root / "etc/resolv.conf").write_text("")
    buildah("config", "--env", "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", container)
    buildah("commit", "--quiet", "--format", "docker", "--rm", container, name)


def _index_mounts(place: Path) -> list[str]:
    """Return options by which a step in a container, and nothing else, sees pip's settings."""
    found = _pip_settings()
    lines = [f"{key} = {found[key]}" for key in _PIP_KEYS if key in found]
    lines = [line.replace("\n", "\n    ") for line in lines]
    mounts = []
    if "cert" in found:
        lines.append(f"cert = {_CERTIFICATES}")
        mounts.append(f"--volume={Path(found['cert']).resolve()}:{_CERTIFICATES}:ro")
    return [*mounts, _pip_mount(place / "index.conf", lines)]


def _pip_mount(file: Path, lines: Iterable[str]) -> str:
    file.write_text("[global]\n" + "".join(f"{line}\n" for line in lines))
    return f"--volume={file}:/etc/pip.conf:ro"


def _download(buildah: Buildah, base: str, made: Path) -> None:
    """Make an archive of the wheels in the lock files, as the pip of the base chooses them."""
    wheels = made.parent / "downloaded"
    wheels.mkdir()
    container = buildah("from", "--pull-never", base)
    mounts = (*_index_mounts(made.parent), f"--volume={ROOT}:/project:ro")
    for lock in _LOCKS:
        buildah(
            *("run", "--isolation", "chroot", *mounts, f"--volume={wheels}:{_WHEELS}", container),
            *("pip", "download", "--dest", _WHEELS, "--no-deps", "--only-binary", ":all:"),
            *("--no-cache-dir", "--require-hashes", "--requirement", f"/project/{lock}"),
        )
    buildah("rm", container)
    run("tar", "--create", "--file", made, "--directory", wheels, ".")


def wheel_mounts(buildah: Buildah, base: str, place: Path) -> list[str]:
    """Return options by which the steps of the build have the wheels, and no index."""
    what = base + "".join((ROOT / lock).read_text() for lock in _LOCKS)
    archive = _kept("wheels", what, partial(_download, buildah, base), place)
    wheels = place / "wheels"
    wheels.mkdir()
    run("tar", "--extract", "--file", archive, "--directory", wheels)
    conf = _pip_mount(place / "pip.conf", ("no-index = true", f"find-links = {_WHEELS}"))
    return [conf, f"--volume={wheels}:{_WHEELS}:ro"]
