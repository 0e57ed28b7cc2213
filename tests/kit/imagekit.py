"""The image, built from the Dockerfile as it is, and containers of it by the runtime of Docker.

No registry of images is asked: the base is a Debian that mmdebstrap makes, under the name that the
Dockerfile has for its base. It is kept for a week outside the checkout, as Docker keeps a base.
"""

import ast
import asyncio
import hashlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from parts import missing

ROOT: Final = Path(__file__).parents[2]
#: The release of Debian whose Python is that of the base.
_RELEASES: Final = MappingProxyType({"python:3.13-slim": "trixie"})
_PACKAGES: Final = "python3,python3-venv,python-is-python3,ca-certificates"
_PLACES: Final = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin"))
#: What pip may have to know to reach the package index from here.
_PIP_KEYS: Final = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")
_CERTIFICATES: Final = "/etc/pip-certificates.pem"
#: Bytes: twice what a build takes.
_ROOM: Final = 4 * 2**30
#: Seconds for which a base is kept.
_WEEK: Final = 7 * 86_400
_numbers = itertools.count()


def _program(name: str) -> str:
    found = shutil.which(name, path=_PLACES)
    if found is None:
        missing(name)
    return found


def _run(*command: str | Path, **more: Any) -> str:  # noqa: ANN401 - as in subprocess.run
    """Run a command; return what it prints, fail with all it says."""
    words = list(map(str, command))
    done: subprocess.CompletedProcess[str] = subprocess.run(
        words, capture_output=True, text=True, check=False, **more
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def _mirror() -> str:
    """Return the address of the mirror of Debian that apt uses here."""
    told = _run(_program("apt-get"), "indextargets", "--format", "$(LABEL) $(REPO_URI)")
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


@dataclass(frozen=True)
class Image:
    """The image as a file system, and what is written in it about how it is run."""

    place: Path
    root: Path
    #: As Docker has it: User, Env, Entrypoint, Cmd, Healthcheck and so on.
    config: Mapping[str, Any]
    #: All that is known of it, with its history.
    text: str

    @property
    def command(self) -> list[str]:
        """What it runs where nothing else is asked for."""
        return [*self.config["Entrypoint"], *self.config["Cmd"]]

    @property
    def user(self) -> tuple[int, int]:
        """Its user and group."""
        user, _, group = self.config["User"].partition(":")
        return int(user), int(group)


class _Buildah:
    """Buildah with a store of its own."""

    def __init__(self, place: Path) -> None:
        program = _program("buildah")
        store = ("--root", place / "store", "--runroot", place / "run")
        self._command = (program, *store, "--storage-driver", "vfs")

    def __call__(self, *arguments: str | Path, **more: Any) -> str:  # noqa: ANN401 - as in _run
        return _run(*self._command, *arguments, **more).strip()


def _debian(release: str, place: Path) -> Path:
    """Return an archive of a small Debian with its Python."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tailchat-gate"
    what = hashlib.sha256(f"{release} {_PACKAGES}".encode()).hexdigest()[:16]
    kept, made = cache / f"base-{what}.tar", place / "base.tar"
    if kept.is_file() and time.time() - kept.stat().st_mtime < _WEEK:
        return kept
    # What it mounts is gone when it ends, whatever the end.
    _run(
        *(_program("unshare"), "--mount", _program("mmdebstrap"), "--variant=essential"),
        *("--quiet", f"--include={_PACKAGES}", release, made, _mirror()),
        env={**os.environ, "TMPDIR": str(place)},
    )
    with suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as beside:
            # Whole or not at all, whoever else makes one.
            shutil.copy(made, beside)
            (Path(beside) / made.name).replace(kept)
    return made


def _make_base(buildah: _Buildah, name: str, place: Path) -> None:
    """Make an image of a small Debian with its Python, under a name."""
    container = buildah("from", "scratch")
    root = Path(buildah("mount", container))
    archive = _debian(_RELEASES[name], place)
    _run("tar", "--extract", "--numeric-owner", "--file", archive, "--directory", root)
    for part in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc"):
        shutil.rmtree(root / part)
    (root / "etc/resolv.conf").write_text("")
    buildah("config", "--env", "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", container)
    buildah("commit", "--quiet", "--format", "docker", "--rm", container, name)


def _pip_mounts(place: Path) -> list[str]:
    """Return options by which the steps of the build, and nothing else, see pip's settings."""
    found = _pip_settings()
    lines = [f"{key} = {found[key]}" for key in _PIP_KEYS if key in found]
    lines = [line.replace("\n", "\n    ") for line in lines]
    mounts = []
    if "cert" in found:
        lines.append(f"cert = {_CERTIFICATES}")
        mounts.append(f"--volume={Path(found['cert']).resolve()}:{_CERTIFICATES}:ro")
    file = place / "pip.conf"
    file.write_text("[global]\n" + "".join(f"{line}\n" for line in lines))
    return [*mounts, f"--volume={file}:/etc/pip.conf:ro"]


def _roomy(place: Path) -> Path:
    """Return a place in memory where there is much of it, else the given one.

    Three copies of a Debian are written and deleted, each file of them waited for on a disk.
    """
    memory = Path("/dev/shm")  # noqa: S108 - what is made there has a name that nobody knows
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if memory.is_dir():
        found = os.statvfs(memory)
        usable = not found.f_flag & (os.ST_NOEXEC | os.ST_NODEV | os.ST_NOSUID)
        if usable and min(free, found.f_bavail * found.f_frsize) > _ROOM:
            return memory
    return place


@contextmanager
def built_image(directory: Path) -> Iterator[Image]:
    """Build the image, and keep it until the block ends."""
    if os.geteuid() != 0:
        missing("root, which the build of an image needs,")
    for name in ("runc", "mmdebstrap"):
        _program(name)
    place = Path(tempfile.mkdtemp(prefix="tailchat-gate-image-", dir=_roomy(directory)))
    buildah = _Buildah(place)
    # What the image runs on; the stage before it starts from the same, if nothing else is asked.
    base = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[-1]
    try:
        _make_base(buildah, base, place)
        buildah(
            *("build-using-dockerfile", "--isolation", "chroot", "--format", "docker"),
            *("--pull-never", "--network", "host", *_pip_mounts(place), "--tag", "gate", "."),
            cwd=ROOT,
        )
        told = buildah("inspect", "--type", "image", "gate")
        root = Path(buildah("mount", buildah("from", "--pull-never", "gate")))
        yield Image(place, root, json.loads(told)["Docker"]["config"], told)
    finally:
        # pytest would keep it with its other directories.
        shutil.rmtree(place)


@dataclass(frozen=True)
class Container:
    """A running container."""

    name: str
    process: asyncio.subprocess.Process
    runc: tuple[str, ...]
    log_file: Path

    async def log(self) -> str:
        """Return what it has written to its standard streams."""
        return await asyncio.to_thread(self.log_file.read_text)

    async def execute(self, *command: str) -> tuple[int, str]:
        """Run a command in it, as `docker exec` and a health check do."""
        process = await asyncio.create_subprocess_exec(
            *(*self.runc, "exec", self.name, *command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        told, _ = await process.communicate()
        return process.returncode or 0, told.decode()

    async def first_process(self) -> int:
        """Return the id of its process 1, as it is outside."""
        process = await asyncio.create_subprocess_exec(
            *(*self.runc, "state", self.name), stdout=subprocess.PIPE
        )
        told, _ = await process.communicate()
        return int(json.loads(told)["pid"])

    def stop(self) -> None:
        """Send it what the image says stops it; `runc run` passes it on."""
        self.process.send_signal(signal.SIGTERM)


def _mount(target: str, source: Path, *, writable: bool = False) -> dict[str, Any]:
    options = ["rbind", "rw" if writable else "ro", "nosuid", "nodev"]
    return {"destination": target, "type": "bind", "source": str(source), "options": options}


def _bundle(
    image: Image,
    variables: Mapping[str, str],
    mounts: Sequence[dict[str, Any]],
    command: Sequence[str],
) -> dict[str, Any]:
    """Return what runc is told: the rights that compose.yaml gives, and the machine's network."""
    user, group = image.user
    system = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
        _mount("/etc/hosts", Path("/etc/hosts")),
    ]
    spaces = ("pid", "mount", "ipc", "uts")
    return {
        "ociVersion": "1.0.2",
        "root": {"path": str(image.root), "readonly": True},
        "process": {
            "user": {"uid": user, "gid": group},
            "args": list(command),
            "env": [*image.config["Env"], *(f"{key}={text}" for key, text in variables.items())],
            "cwd": image.config["WorkingDir"],
            "noNewPrivileges": True,
        },
        "mounts": [*system, *mounts],
        "linux": {"namespaces": [{"type": space} for space in spaces]},
    }


def volume_of(image: Image, target: str, directory: Path) -> dict[str, Any]:
    """Return the mount of a new volume, which has its owner and mode from the image."""
    directory.mkdir()
    there = (image.root / target.removeprefix("/")).stat()
    os.chown(directory, there.st_uid, there.st_gid)
    directory.chmod(there.st_mode & 0o7777)
    return _mount(target, directory, writable=True)


@asynccontextmanager
async def container(
    image: Image,
    directory: Path,
    variables: Mapping[str, str] = MappingProxyType({}),
    *,
    files: Mapping[str, Path] = MappingProxyType({}),
    command: Sequence[str] = (),
) -> AsyncIterator[Container]:
    """Run a container until the block ends. `files` are mounted singly, where their names say."""

    def prepare() -> None:
        volumes = [
            volume_of(image, target, directory / f"volume{number}")
            for number, target in enumerate(image.config["Volumes"])
        ]
        mounts = [*volumes, *(_mount(target, source) for target, source in files.items())]
        bundle = _bundle(image, variables, mounts, command or image.command)
        (directory / "config.json").write_text(json.dumps(bundle))

    await asyncio.to_thread(prepare)
    name = f"tailchat-gate-{os.getpid()}-{next(_numbers)}"
    runc = (_program("runc"), "--root", str(image.place / "runc"))
    log = directory / "container.log"
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *(*runc, "run", "--bundle", str(directory), name),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        yield Container(name, process, runc, log)
    finally:
        gone = await asyncio.create_subprocess_exec(
            *(*runc, "delete", "--force", name), stderr=subprocess.DEVNULL
        )
        await gone.wait()
        if process.returncode is None:
            process.kill()
        await process.wait()
