"""The image, built from the Dockerfile as it is, and containers of it by the runtime of Docker."""

import asyncio
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from edgekit import program
from image_sources import ROOT, Buildah, make_base, wheel_mounts
from parts import missing

#: Bytes: twice what a build takes.
_ROOM: Final = 4 * 2**30
_numbers = itertools.count()


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
        program(name)
    place = Path(tempfile.mkdtemp(prefix="tailchat-gate-image-", dir=_roomy(directory)))
    buildah = Buildah(place)
    # What the image runs on; the stage before it starts from the same, if nothing else is asked.
    base = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[-1]
    try:
        make_base(buildah, base, place)
        buildah(
            *("build-using-dockerfile", "--isolation", "chroot", "--format", "docker"),
            *(
                "--pull-never",
                "--network",
                "host",
                *wheel_mounts(buildah, base, place),
                "--tag",
                "gate",
                ".",
            ),
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
    runc = (program("runc"), "--root", str(image.place / "runc"))
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
