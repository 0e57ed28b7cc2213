"""What the gate serves itself, on the wire: the files of a directory, and fixed statuses."""

import asyncio
import gc
import os
import socket
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from gatekit import START, RawClient, Response, RunningGate, ask, request_bytes, until
from wirekit import heard

from tailchat_gate.proxy.client import aiohttp_bridge
from tailchat_gate.proxy.static.response import THREADS

pytestmark = pytest.mark.both_loops

Start = Callable[..., Any]
PAGE = b"<p>a page"
DATA = bytes(range(256)) * 4
LARGE = 3 * 2**20


@dataclass
class Files:
    """A gate in front of a directory, at /docs."""

    gate: RunningGate
    folder: Path

    async def get(self, path: str, *, method: str = "GET", **fields: str) -> Response:
        """Ask for a path below /docs as somebody who is signed in."""
        data = request_bytes(f"/docs{path}", method=method, Cookie=self.gate.cookie(), **fields)
        return await ask(self.gate.port, data, to_head=method == "HEAD")

    async def statuses(self, *paths: str) -> dict[str, int]:
        """Return the status of each path."""
        return {path: (await self.get(path)).status for path in paths}


@contextmanager
def tracing() -> Iterator[Callable[[], int]]:
    """Give what returns how many bytes Python has allocated since."""

    def traced() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        yield traced
    finally:
        tracemalloc.stop()


def _fill(folder: Path, outside: Path) -> None:
    """Make a tree with all that may lie in one, links and a FIFO among it."""
    for name in ("sub/deep", "empty", ".git", ".well-known"):
        (folder / name).mkdir(parents=True)
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (outside / "index.html").write_bytes(b"secret")
    for name in ("index.html", "sub/index.html"):
        (folder / name).write_bytes(PAGE)
    for name in (
        "data.bin",
        "sub/deep/a b.txt",
        "sub/星.txt",
        "script.js",
        "a.tar.gz",
        "empty.txt",
    ):
        (folder / name).write_bytes(b"" if name == "empty.txt" else DATA)
    for name in (".hidden", ".git/config", ".well-known/security.txt"):
        (folder / name).write_bytes(b"dot")
    (folder / "large.bin").write_bytes(b"x" * LARGE)
    links = {
        "inside": "sub/deep/a b.txt",
        "inside-folder": "sub",
        "up-and-in": "sub/../data.bin",
        "outside": "../outside/secret",
        "outside-folder": "../outside",
        "absolute": str(folder / "data.bin"),
        "absolute-outside": "/etc/passwd",
        "loop": "loop",
        "to-outside": "outside",
        "sub/up": "../../outside/secret",
        "dangling": "nothing",
    }
    for name, target in links.items():
        (folder / name).symlink_to(target)
    os.mkfifo(folder / "fifo")
    old = START - 1000
    for one in folder.rglob("*"):
        os.utime(one, (old, old), follow_symlinks=False)


@pytest.fixture
async def files(start_gate: Start, tmp_path: Path) -> Files:
    """Return a gate with one route of files."""
    folder = tmp_path / "docs"
    await asyncio.to_thread(_fill, folder, tmp_path / "outside")
    gate = await start_gate(f"file:{folder}", route=[{"name": "docs", "path": "/docs"}])
    return Files(gate, folder)


async def test_a_file_and_what_is_said_of_it(files: Files) -> None:
    """A file comes whole with its type, length, tag and date, kept by nobody but the visitor."""
    response = await files.get("/data.bin")

    assert (response.status, response.body) == (200, DATA)
    assert response.value("Content-Length") == str(len(DATA))
    assert response.value("Content-Type") == "application/octet-stream"
    assert response.value("Accept-Ranges") == "bytes"
    assert response.value("ETag").strip("W/").startswith('"')
    assert response.value("Last-Modified") == "Fri, 15 Jan 2027 07:43:20 GMT"
    assert response.value("Cache-Control") == "private, no-cache"
    assert response.value("X-Content-Type-Options") == "nosniff"
    types = {"/script.js": "text/javascript; charset=utf-8", "/a.tar.gz": "application/gzip"}
    types["/sub/deep/a%20b.txt"] = types["/sub/%E6%98%9F.txt"] = "text/plain; charset=utf-8"
    types["/"] = "text/html; charset=utf-8"
    for path, media_type in types.items():
        found = await files.get(path)
        assert (path, found.status, found.value("Content-Type")) == (path, 200, media_type)
        assert found.value("Content-Encoding") == ""


async def test_a_head_is_the_same_without_the_file(files: Files) -> None:
    """HEAD tells what GET would, and sends nothing (RFC 9110 section 9.3.2)."""
    for path in ("/data.bin", "/large.bin", "/", "/nothing", "/sub"):
        got, told = await files.get(path), await files.get(path, method="HEAD")
        names = ("Content-Length", "Content-Type", "ETag", "Last-Modified", "Location")
        assert told.status == got.status
        assert [told.value(name) for name in names] == [got.value(name) for name in names]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_only_get_and_head(files: Files, method: str) -> None:
    """Another method is refused, and says which there are."""
    response = await files.get("/data.bin", method=method, Content_Length="0")

    assert response.status == 405
    assert response.value("Allow") == "GET, HEAD"
    assert await asyncio.to_thread((files.folder / "data.bin").read_bytes) == DATA


async def test_a_directory_is_its_index(files: Files) -> None:
    """A directory with a slash is its index.html; without, a redirect; without index, nothing."""
    assert (await files.get("/")).body == PAGE
    assert (await files.get("/sub/")).body == PAGE
    moved = {path: await files.get(path) for path in ("", "/sub", "/sub?a=/b", "/inside-folder")}
    assert {path: (one.status, one.value("Location")) for path, one in moved.items()} == {
        "": (308, "/docs/"),
        "/sub": (308, "/docs/sub/"),
        "/sub?a=/b": (308, "/docs/sub/?a=/b"),
        "/inside-folder": (308, "/docs/inside-folder/"),
    }
    assert await files.statuses("/empty/", "/empty", "/data.bin/", "/sub/deep/") == dict.fromkeys(
        ("/empty/", "/empty", "/data.bin/", "/sub/deep/"), 404
    )


@pytest.mark.parametrize(
    ("asked", "content", "span"),
    [
        ("bytes=0-0", DATA[:1], "bytes 0-0/1024"),
        ("bytes=1000-", DATA[1000:], "bytes 1000-1023/1024"),
        ("bytes=1000-9999", DATA[1000:], "bytes 1000-1023/1024"),
        ("bytes=-24", DATA[1000:], "bytes 1000-1023/1024"),
        ("bytes=-9999", DATA, "bytes 0-1023/1024"),
        ("BYTES=0-1", DATA[:2], "bytes 0-1/1024"),
        ("bytes= 0-1 ,", DATA[:2], "bytes 0-1/1024"),
    ],
)
async def test_a_range(files: Files, asked: str, content: bytes, span: str) -> None:
    """One range of bytes is sent as 206 with its place (RFC 9110 sections 14.2 and 15.3.7)."""
    response = await files.get("/data.bin", Range=asked)

    assert (response.status, response.body) == (206, content)
    assert response.value("Content-Range") == span
    assert response.value("Content-Length") == str(len(content))


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ("bytes=1024-", 416),
        ("bytes=-0", 416),
        ("bytes=0-1,5-6", 200),
        ("bytes=5-1", 200),
        ("bytes=a-b", 200),
        ("bytes=-", 200),
        ("lines=0-1", 200),
        ("bytes 0-1", 200),
        ("bytes=" + "9" * 200 + "-", 200),
        ("bytes=" + "0-," * 2000, 200),
    ],
)
async def test_a_range_that_is_none(files: Files, asked: str, status: int) -> None:
    """What lies behind the end is 416; what is no single range is left aside (14.2)."""
    response = await files.get("/data.bin", Range=asked)

    assert response.status == status
    if status == 416:
        assert response.value("Content-Range") == "bytes */1024"
    else:
        assert response.body == DATA


async def test_a_file_that_is_unchanged(files: Files) -> None:
    """Tags and dates decide whether it is sent, in the order of RFC 9110 section 13.2.2."""
    found = await files.get("/data.bin")
    tag, date = found.value("ETag"), found.value("Last-Modified")
    early, late = "Fri, 15 Jan 2027 07:00:00 GMT", "Fri, 15 Jan 2027 07:50:00 GMT"
    cases: list[tuple[dict[str, str], int]] = [
        ({"If_None_Match": tag}, 304),
        ({"If_None_Match": f'"a", {tag}'}, 304),
        ({"If_None_Match": "*"}, 304),
        ({"If_None_Match": '"another"'}, 200),
        ({"If_None_Match": '"another"', "If_Modified_Since": late}, 200),
        ({"If_Modified_Since": date}, 304),
        ({"If_Modified_Since": early}, 200),
        ({"If_Modified_Since": "yesterday"}, 200),
        ({"If_Match": '"another"'}, 412),
        ({"If_Match": "*"}, 200),
        ({"If_Unmodified_Since": early}, 412),
        ({"If_Unmodified_Since": late}, 200),
        ({"If_None_Match": tag, "Range": "bytes=0-1"}, 304),
        ({"If_Range": '"another"', "Range": "bytes=0-1"}, 200),
        ({"If_Range": date, "Range": "bytes=0-1"}, 200),
    ]
    for fields, status in cases:
        response = await files.get("/data.bin", **fields)
        assert (fields, response.status) == (fields, status)
        if status == 304:
            assert (response.body, response.value("ETag")) == (b"", tag)

    await asyncio.to_thread((files.folder / "data.bin").write_bytes, b"changed")
    changed = await files.get("/data.bin", If_None_Match=tag)
    assert (changed.status, changed.body) == (200, b"changed")
    assert changed.value("ETag") != tag


async def test_a_download_goes_on_with_the_same_version_only(files: Files) -> None:
    """If-Range with the tag of a settled file gives the rest, of a changed one the whole."""
    files.gate.clock.now = (await asyncio.to_thread(os.stat, files.folder)).st_ctime + 60
    found = await files.get("/data.bin", Range="bytes=0-1")
    tag = found.value("ETag")
    assert not tag.startswith("W/")
    rest = await files.get("/data.bin", Range="bytes=2-", If_Range=tag)
    assert (rest.status, rest.body) == (206, DATA[2:])

    await asyncio.to_thread((files.folder / "data.bin").write_bytes, DATA[::-1])
    whole = await files.get("/data.bin", Range="bytes=2-", If_Range=tag)
    assert (whole.status, whole.body) == (200, DATA[::-1])


async def test_no_way_leads_out(files: Files) -> None:
    """No spelling of a path and no link reaches what lies outside of the directory."""
    ways = (
        *("/../outside/secret", "/sub/../../outside/secret", "/%2e%2e/outside/secret"),
        *("/..%2foutside/secret", "/..%5coutside/secret", "/.%2e/outside/secret"),
        *("/sub/%2e%2e/%2e%2e/outside/secret", "//outside/secret", "/%2foutside/secret"),
        *("/%252e%252e/outside/secret", "/..;/outside/secret", "/data.bin%00.txt"),
        *("/....//outside/secret", "/..%c0%afoutside/secret", "/..%ef%bc%8foutside/secret"),
        *("/outside", "/outside-folder/secret", "/outside-folder/", "/to-outside", "/sub/up"),
        *("/absolute", "/absolute-outside", "/loop", "/dangling", "/nothing", "/fifo"),
        *("/.hidden", "/.git/config", "/.git/", "/sub/..", "/./data.bin", "/sub/./index.html"),
        f"/{files.folder}/data.bin",
    )
    found = {path: await files.get(path) for path in ways}

    assert {path: one.status for path, one in found.items() if one.status not in {400, 404}} == {}
    assert [path for path, one in found.items() if b"secret" in one.body.split(b"/")] == []


async def test_links_and_names_that_stay_inside(files: Files) -> None:
    """A relative link is followed as far as every step of it stays below the directory."""
    ways = ("/inside", "/up-and-in", "/inside-folder/", "/.well-known/security.txt", "/empty.txt")
    assert await files.statuses(*ways) == dict.fromkeys(ways, 200)
    assert (await files.get("/inside")).body == DATA


async def test_no_link_leads_to_what_a_path_cannot_name(files: Files) -> None:
    """A link through a name with a dot in front leads nowhere; a ConfigMap's links do."""

    def lay() -> None:
        moment = files.folder / "..2026_11_29_03_00_00.123456789"
        moment.mkdir()
        (moment / "mounted").write_bytes(DATA)
        (files.folder / ".env").write_bytes(b"secret")
        for name, target in {
            "..data": moment.name,
            "mounted": "..data/mounted",
            "to-env": ".env",
            "to-git": ".git",
            "to-config": "sub/../.git/config",
            "through": "to-git",
            "odd": "..env",
            "near": "..2026",
            "known": ".well-known/security.txt",
        }.items():
            (files.folder / name).symlink_to(target)
        (files.folder / "..env").write_bytes(b"secret")
        (files.folder / "..2026").write_bytes(b"secret")

    await asyncio.to_thread(lay)
    hidden = ("/to-env", "/to-git/config", "/to-config", "/through/config", "/odd", "/near")

    assert await files.statuses(*hidden) == dict.fromkeys(hidden, 404)
    assert await files.statuses("/mounted", "/known") == {"/mounted": 200, "/known": 200}


async def test_a_file_that_may_not_be_read(files: Files) -> None:
    """Where the system refuses, nothing is there."""
    await asyncio.to_thread((files.folder / "data.bin").chmod, 0)
    if os.access(files.folder / "data.bin", os.R_OK):
        pytest.skip("root may read everything")

    assert await files.statuses("/data.bin") == {"/data.bin": 404}


async def test_a_large_file_for_a_slow_reader(files: Files) -> None:
    """A file is read as the client takes it, and comes whole."""
    async with RawClient.connect(files.gate.port) as client, asyncio.timeout(20):
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(request_bytes("/docs/large.bin", Cookie=files.gate.cookie()))
        client.send(request_bytes("/docs/data.bin", Cookie=files.gate.cookie()))
        await asyncio.sleep(0.1)
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert (await client.response()).body == b"x" * LARGE
        assert (await client.response()).body == DATA


async def test_a_reader_that_takes_nothing_of_a_file_is_cut_off(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who takes no byte of a page or file for as long as may be is reset."""
    monkeypatch.setattr(aiohttp_bridge, "STALL_SECONDS", 0.1)
    await asyncio.to_thread(os.truncate, files.folder / "large.bin", 64 * 2**20)
    async with RawClient.connect(files.gate.port) as client, asyncio.timeout(20):
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(request_bytes("/docs/large.bin", Cookie=files.gate.cookie()))
        server = files.gate.server._server
        assert server is not None
        await until(lambda: any(one.full for one in server.connections))
        await until(lambda: not server.connections)
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert (await heard(client)).reset


async def test_readers_that_take_nothing_of_a_file_cost_little(files: Files) -> None:
    """A client that reads nothing of a file costs the gate at most 60 kB, as with a tool."""
    await asyncio.to_thread(os.truncate, files.folder / "large.bin", 64 * 2**20)
    server = files.gate.server._server
    assert server is not None
    loop, count = asyncio.get_running_loop(), 40
    data = request_bytes("/docs/large.bin", Cookie=files.gate.cookie())
    await files.get("/large.bin", Range="bytes=0-200000")
    with ExitStack() as opened, tracing() as traced:
        before = traced()
        for _ in range(count):
            client = opened.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            await loop.sock_connect(client, ("127.0.0.1", files.gate.port))
            await loop.sock_sendall(client, data)
        await until(lambda: sum(one.full for one in server.connections) == count)
        unsent = [one.transport.get_write_buffer_size() for one in server.connections]  # type: ignore[union-attr]
        assert max(unsent) <= 20_000
        assert (traced() - before) / count <= 60_000


async def test_readers_that_take_nothing_keep_no_file_from_others(files: Files) -> None:
    """As many stalled downloads as there are threads leave the route to everybody else."""
    await asyncio.to_thread(os.truncate, files.folder / "large.bin", 64 * 2**20)
    server = files.gate.server._server
    assert server is not None
    data = request_bytes("/docs/large.bin", Cookie=files.gate.cookie())
    async with AsyncExitStack() as opened, asyncio.timeout(20):
        for _ in range(THREADS + 1):
            client = await opened.enter_async_context(RawClient.connect(files.gate.port))
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            client.send(data)
        await until(lambda: sum(one.full for one in server.connections) == THREADS + 1)
        assert (await files.get("/data.bin")).body == DATA
        assert len((await files.get("/large.bin", Range="bytes=0-999999")).body) == 1_000_000


async def test_a_file_that_becomes_shorter_never_looks_whole(files: Files) -> None:
    """What cannot be sent to its announced end is cut off (RFC 9112 section 8)."""
    large = files.folder / "large.bin"
    await asyncio.to_thread(os.truncate, large, 64 * 2**20)
    async with RawClient.connect(files.gate.port) as client, asyncio.timeout(20):
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(request_bytes("/docs/large.bin", Cookie=files.gate.cookie()))
        server = files.gate.server._server
        assert server is not None
        await until(lambda: any(one.full for one in server.connections))
        await asyncio.to_thread(os.truncate, large, 100)
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        found = await heard(client)

    assert found.statuses == [200]
    assert len(found.data) < 64 * 2**20


async def test_files_are_for_those_who_may_enter(files: Files) -> None:
    """Without a session neither a file nor the want of one is shown."""
    for path in ("/docs/data.bin", "/docs/nothing", "/docs/", "/docs"):
        response = await ask(files.gate.port, request_bytes(path))
        assert (response.status, response.json["error"]) == (401, "not-signed-in")


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (200, {"Content-Length": "0"}),
        (204, {}),
        (401, {"WWW-Authenticate": 'TailchatGate realm="tailchat"', "Content-Length": "0"}),
        (404, {"Content-Length": "0"}),
        (405, {"Allow": "", "Content-Length": "0"}),
        (503, {"Content-Length": "0"}),
        (599, {"Content-Length": "0"}),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
async def test_a_fixed_status(
    start_gate: Start, status: int, fields: dict[str, str], method: str
) -> None:
    """static: answers every method with its status, what that status owes, and no body."""
    gate = await start_gate(f"static:{status}")
    async with RawClient.connect(gate.port) as client, asyncio.timeout(15):
        for _ in range(2):
            client.send(
                request_bytes("/any?thing", method=method, Cookie=gate.cookie(), Content_Length="2")
                + b"ab"
                if method == "POST"
                else request_bytes("/any?thing", method=method, Cookie=gate.cookie())
            )
            response = await client.response(to_head=method == "HEAD")
            assert (response.status, response.body) == (status, b"")
            assert {name: response.value(name) for name in fields} == fields
            assert response.value("Cache-Control") == "no-store"
            if method == "POST":
                break
