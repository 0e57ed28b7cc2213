"""Records what a browser and a tool say to each other while a page loads, for the work `page`.

    python bench/record.py URL FILE

Chromium opens the page with an empty cache, and loads it again. Kept are methods, paths, header
fields, statuses, sizes and the sizes of WebSocket messages; no body is. What differs from visit to
visit or could tell who recorded it is replaced by a mark, see recording.py.
"""

import argparse
import base64
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import CDPSession, Page, sync_playwright
from process import program

Event = dict[str, Any]
"""A JSON event of the protocol."""

_LIMIT = 60.0
_TEXT = 1

# What differs: identifiers, times in milliseconds, and the values of cookies and tokens.
_MARKS = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "{uuid}"),
    (re.compile(r"(?<![0-9a-z])1[0-9]{12}(?![0-9])"), "{time}"),
)
_COOKIE = re.compile(r"([^=; ]+)=([^;]*)")
# Fields that a replay writes itself, or that say only when and by whom this was recorded.
_OWN = frozenset(
    (
        *("host", "connection", "content-length", "transfer-encoding", "date", "server"),
        *("upgrade", "sec-websocket-key", "sec-websocket-accept", "keep-alive"),
        *("sec-websocket-version", "sec-websocket-extensions"),
    )
)
_DATES = frozenset(("last-modified", "if-modified-since", "expires"))


@dataclass(slots=True)
class Seen:
    """One request, as far as it has been seen."""

    visit: int
    url: str
    method: str
    kind: str
    body: int = 0
    fields: Mapping[str, str] = field(default_factory=dict)
    status: int = 0
    answer: Mapping[str, str] = field(default_factory=dict)
    head: int = 0
    size: int = 0
    messages: list[list[object]] = field(default_factory=list)


class Recorder:
    """Listens to Chromium's own account of the network (Chrome DevTools Protocol, Network)."""

    def __init__(self, session: CDPSession) -> None:
        self.visit = 0
        self.last = time.monotonic()
        self._seen: dict[str, Seen] = {}
        # Kept apart, because what went over the network may be told before the request itself.
        self._asked: dict[str, Mapping[str, str]] = {}
        self._answered: dict[str, tuple[int, Mapping[str, str]]] = {}
        handlers = {
            "requestWillBeSent": self._request,
            "requestWillBeSentExtraInfo": self._request_fields,
            "responseReceived": self._response,
            "responseReceivedExtraInfo": self._response_fields,
            "loadingFinished": self._finished,
            "webSocketCreated": self._socket,
            "webSocketWillSendHandshakeRequest": self._socket_request,
            "webSocketHandshakeResponseReceived": self._socket_response,
            "webSocketFrameSent": lambda event: self._message("out", event),
            "webSocketFrameReceived": lambda event: self._message("in", event),
        }
        for name, handler in handlers.items():
            session.on(f"Network.{name}", handler)
        session.send("Network.enable")

    def entries(self) -> list[Seen]:
        """What went over the network and was answered, in the order in which it was asked."""
        entries = []
        for key, one in self._seen.items():
            if key in self._asked and key in self._answered:
                one.fields = self._asked[key]
                one.status, one.answer = self._answered[key]
                entries.append(one)
        return entries

    def _request(self, event: Event) -> None:
        self.last = time.monotonic()
        request = event["request"]
        body = len(request.get("postData", "").encode())
        self._seen[event["requestId"]] = Seen(
            self.visit, request["url"], request["method"], event.get("type", ""), body
        )

    def _request_fields(self, event: Event) -> None:
        self._asked[event["requestId"]] = event["headers"]

    def _response(self, event: Event) -> None:
        if one := self._seen.get(event["requestId"]):
            one.head = int(event["response"]["encodedDataLength"])

    def _response_fields(self, event: Event) -> None:
        self._answered[event["requestId"]] = event["statusCode"], event["headers"]

    def _finished(self, event: Event) -> None:
        self.last = time.monotonic()
        if one := self._seen.get(event["requestId"]):
            one.size = max(0, int(event["encodedDataLength"]) - one.head)

    def _socket(self, event: Event) -> None:
        url = re.sub("^ws", "http", event["url"])
        self._seen[event["requestId"]] = Seen(self.visit, url, "GET", "WebSocket")

    def _socket_request(self, event: Event) -> None:
        self._asked.setdefault(event["requestId"], event["request"]["headers"])

    def _socket_response(self, event: Event) -> None:
        response = event["response"]
        self._answered.setdefault(event["requestId"], (response["status"], response["headers"]))

    def _message(self, way: str, event: Event) -> None:
        self.last = time.monotonic()
        frame = event["response"]
        text = frame["payloadData"]
        size = len(text.encode() if frame["opcode"] == _TEXT else base64.b64decode(text))
        self._seen[event["requestId"]].messages.append([way, size])


def marked(text: str, origin: str) -> str:
    """`text` with marks in place of what differs from visit to visit."""
    text = text.replace(origin, "{origin}").replace(origin.replace("http", "ws", 1), "{origin}")
    for pattern, mark in _MARKS:
        text = pattern.sub(mark, text)
    return text


def replayable(fields: Mapping[str, str], origin: str) -> list[tuple[str, str]]:
    """The field lines that a replay sends as they are, the secrets in them replaced."""
    lines = []
    for name, joined in fields.items():
        low = name.lower()
        # Chromium gives lines of one name as one value.
        for value in joined.split("\n"):
            if low in _OWN or low.startswith(":"):
                continue
            lines.append((name, _safe(low, value, origin)))
    return lines


def _safe(name: str, value: str, origin: str) -> str:
    if name == "cookie":
        return _COOKIE.sub(_secret, value)
    if name == "set-cookie":
        first, end, rest = value.partition(";")
        return _COOKIE.sub(_secret, first) + re.sub("(?i); *expires=[^;]*", "", end + rest)
    if name == "x-xsrftoken":
        return _token(value)
    if name in _DATES:
        return "Sat, 01 Jan 2000 00:00:00 GMT"
    if name == "user-agent":
        return value.replace("Headless", "")
    return marked(value, origin)


def _secret(pair: re.Match[str]) -> str:
    return f"{pair[1]}={_token(pair[2])}"


def _token(value: str) -> str:
    return f"{{token:{len(value)}}}"


def recording(seen: Sequence[Seen], origin: str, what: str) -> dict[str, object]:
    """The recording as JSON; a set of fields stands once, and entries name its place."""
    sets: list[object] = []

    def place(fields: Mapping[str, str]) -> int:
        lines = replayable(fields, origin)
        if lines not in sets:
            sets.append(lines)
        return sets.index(lines)

    entries = [
        {
            "visit": one.visit,
            "kind": one.kind,
            "method": one.method,
            "target": marked(one.url[len(origin) :], origin),
            "fields": place(one.fields),
            "body": one.body,
            "status": one.status,
            "answer": place(one.answer),
            "size": one.size,
            "messages": one.messages,
        }
        for one in seen
        if one.url.startswith(origin)
    ]
    return {"what": what, "fields": sets, "entries": entries}


def written(recorded: Mapping[str, object]) -> str:
    """The file: a set of fields and an entry a line, so that a change can be read."""
    parts = []
    for name, value in recorded.items():
        if isinstance(value, list):
            lines = ",\n".join(json.dumps(one, separators=(",", ":")) for one in value)
            parts.append(f'"{name}": [\n{lines}\n]')
        else:
            parts.append(f'"{name}": {json.dumps(value)}')
    return "{" + ",\n".join(parts) + "}\n"


def _wait(page: Page, recorder: Recorder, quiet: float) -> None:
    limit = time.monotonic() + _LIMIT
    while time.monotonic() < min(limit, recorder.last + quiet):
        page.wait_for_timeout(100)


def main() -> None:
    """Open the page, load it again, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("file", type=Path)
    parser.add_argument("--what", default="", help="the tool and its version")
    parser.add_argument("--quiet", type=float, default=5.0, help="seconds after which it is loaded")
    given = parser.parse_args()
    parts = urlsplit(given.url)
    origin = f"{parts.scheme}://{parts.netloc}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        recorder = Recorder(page.context.new_cdp_session(page))
        page.goto(given.url)
        _wait(page, recorder, given.quiet)
        recorder.visit = 1
        page.reload()
        _wait(page, recorder, given.quiet)
        version = browser.version
        browser.close()
    what = f"{given.what}, Chromium {version.partition('.')[0]}"
    given.file.write_text(written(recording(recorder.entries(), origin, what)))
    print(f"{len(recorder.entries())} requests")


if __name__ == "__main__":
    main()
