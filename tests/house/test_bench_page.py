import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import record
import recording
from benchkit import needs, serving

#: Fields whose values are secrets of the visitor or of the tool.
SECRET = {"cookie", "set-cookie", "x-xsrftoken"}
MARK = re.compile(r"\{(?:time|uuid|origin|token:[0-9]+)\}")


def test_the_recording_has_all_that_a_page_load_has() -> None:
    """A document, scripts, validators, calls with and without a body, and WebSockets that talk."""
    entries = recording.recording()
    found = {name.lower() for one in entries for name, _ in one.fields}

    assert {one.status for one in entries} >= {101, 200, 201, 204, 304}
    assert {one.method for one in entries} >= {"GET", "POST", "PUT"}
    assert {"if-none-match", "if-modified-since", "referer", "cookie", "x-xsrftoken"} <= found
    assert {one.visit for one in entries} == {0, 1}
    assert sum(one.size for one in entries) > 1_000_000
    assert all(one.messages for one in entries if one.upgrade)
    assert any(way == "out" for one in entries for way, _ in one.messages)


def test_the_recording_tells_nothing_of_who_made_it() -> None:
    """Secrets, identifiers and times are marks, and no address is in it."""
    entries = recording.recording()
    text = recording.RECORDED.read_text(encoding="utf-8")
    secrets = [
        value
        for one in entries
        for name, value in (*one.fields, *one.answer)
        if name.lower() in SECRET
    ]

    assert secrets
    assert all(re.search(r"\{token:[0-9]+\}", value) for value in secrets)
    assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-|(?<![0-9])1[0-9]{12}(?![0-9])", text)
    assert not re.search(r"https?://|Headless|/home/|/root", text)


def test_every_request_of_the_recording_has_its_answer() -> None:
    """A request that is filled in has the key of its entry, and another one in the next visit."""
    entries = recording.recording()
    told = recording.answers(entries)
    numbers = itertools.count()

    def value(mark: bytes) -> bytes:
        if mark == b"uuid":
            return b"%08x-1111-2222-3333-444444444444" % next(numbers)
        return b"%d" % next(numbers)

    for one in entries:
        sent = recording.filled(one.request("session=1"), value)
        assert told[recording.key(sent)].status == one.status
        assert sent.count(b"\r\nCookie: session=1") == 1
        assert sent.split(b" ")[1].startswith(recording.PREFIX)
        assert not MARK.search(sent.decode())
    assert sum(one.size for one in told.values()) > 1_000_000


@pytest.mark.parametrize("size", [0, 125, 126, 60_000])
def test_messages_are_counted_as_they_come(size: int) -> None:
    """Whole masked messages are counted, a part of one waits, and a close is the last."""
    one = recording.frame(size, b"mask")
    close = bytes((0x88, 0x80)) + bytes(4)

    assert recording.frames(one * 2 + one[:5]) == (2, 2 * len(one), False)
    assert recording.frames(one + close + one) == (1, len(one + close), True)
    with pytest.raises(ValueError, match="no visit"):
        recording.frames(recording.frame(size))


def test_messages_are_answered_by_those_that_followed() -> None:
    """What the tool said first comes with the upgrade, the rest after the visitor's message."""
    said = [("in", 1), ("out", 2), ("in", 3), ("in", 4), ("out", 5)]

    assert list(recording.turns(said)) == [(-1, [1]), (2, [3, 4]), (5, [])]


def test_a_page_is_recorded_by_a_browser(tmp_path: Path) -> None:
    """Chromium loads a page twice, and the file has its requests without its secrets."""
    needs("chromium")
    written = tmp_path / "page.json"
    cookie = "token=s3cret-0123456789; Path=/; expires=Wed, 21 Oct 2099 07:28:00 GMT"
    with serving(answer=b"<p>hello</p>", set_cookie=cookie) as heard:
        target = f"{heard.origin}/page?now=1795949568123"
        args = [sys.executable, record.__file__, target, str(written), "--quiet", "0.3"]
        subprocess.run(args, check=True, capture_output=True, timeout=50)
    entries = recording.recording(written)
    document = next(one for one in entries if one.visit == 1)

    assert {one.visit for one in entries} == {0, 1}
    assert document.target == "/page?now={time}"
    assert (document.status, document.size) == (200, len(b"<p>hello</p>"))
    assert ("Cookie", "token={token:17}") in document.fields
    assert dict(document.answer)["Set-Cookie"] == "token={token:17}; Path=/"
    assert "s3cret" not in written.read_text()
    assert json.loads(written.read_text())["what"].startswith(", Chromium ")
