"""Nothing that reads a stranger's bytes takes time that grows with their square.

A new pattern or reader is one line in PATTERNS or READERS. Time is the process's own, the best of
several runs, and only its growth counts: eight times the bytes, a linear reader takes eight times
as long and a quadratic one sixty-four times.
"""

import gc
import importlib
import pkgutil
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from typing import Any, Final

import pytest
from gatekit import make_settings

import tailchat_gate
from tailchat_gate import syntax
from tailchat_gate.access.browser_origin import is_foreign
from tailchat_gate.access.routes import RouteTable
from tailchat_gate.identity.oauth.id_token import json_object
from tailchat_gate.identity.oauth.login import safe_return_to
from tailchat_gate.identity.oauth.responses import profile_from_userinfo
from tailchat_gate.identity.revocation.records import REVOCATION, read_record
from tailchat_gate.identity.sessions.cookie_fields import CookieNames, CookieReader
from tailchat_gate.pages.language import choose_language
from tailchat_gate.proxy.message.response_fields import ResponseRewriter
from tailchat_gate.proxy.message.websocket_frames import FrameTracker
from tailchat_gate.proxy.static.tree import read_path
from tailchat_gate.request.authorization import challenge_binds, credentials_bind, read_token
from tailchat_gate.request.body import ChunkedBody
from tailchat_gate.request.claims import claimed_methods, claimed_paths
from tailchat_gate.request.client import ClientResolver
from tailchat_gate.request.fields import FieldSection, HeadLimits, split_fields
from tailchat_gate.request.head import RequestReader
from tailchat_gate.request.intent import wants_html
from tailchat_gate.request.readings import readings, shortened
from tailchat_gate.request.sections import PlainSections, read_carefully
from tailchat_gate.request.target import query_pairs, read_host, read_target
from tailchat_gate.state.store import Record

#: How each pattern is used, by its module and name.
PATTERNS: Final = {
    "access.browser_origin:_WITH_PORT": "fullmatch",
    "access.browser_origin:_PLAIN_SCOPE": "fullmatch",
    "diagnosis.running:_MAX_FDS": "search",
    "serving.explain_request:_ESCAPED": "findall",
    "serving.explain_request:_FIELD": "fullmatch",
    "serving.explain_request:_URL": "fullmatch",
    "request.intent:_WANTED": "findall",
    "request.intent:_CHOSEN": "search",
    "request.field_names:_ODD": "findall",
    "request.field_names:_PLAIN": "fullmatch",
    "identity.sessions.cookie_fields:_GATES": "fullmatch",
    "identity.sites:_ORIGIN": "fullmatch",
    "identity.sites:_PORT": "search",
    "identity.oauth.login:_ASTRAY": "search",
    "identity.oauth.login:_ORIGIN": "match",
    "identity.oauth.login:_UNFIT": "search",
    "identity.oauth.login_state:_NAME": "fullmatch",
    "identity.oauth.return_targets:_NAME": "fullmatch",
    "identity.oauth.responses:_ABSOLUTE": "fullmatch",
    "identity.oauth.responses:_NOT_IN_URL": "search",
    "identity.oauth.responses:_STRAY_ZWJ": "findall",
    "identity.oauth.responses:_SUB": "fullmatch",
    "identity.oauth.responses:_BASE32": "findall",
    "identity.oauth.responses:_BASE64": "findall",
    "identity.oauth.responses:_ESCAPE": "findall",
    "identity.oauth.responses:_HEX": "findall",
    "identity.oauth.responses:_LEGIBLE": "search",
    "identity.oauth.responses:_TOKEN": "fullmatch",
    "pages.catalogues:_PLACEHOLDER": "findall",
    "pages.language:_RANGE": "fullmatch",
    "people.groups.answer:_CHARACTERS": "match",
    "people.panel:_ADDRESS": "findall",
    "people.panel:_MARKUP": "findall",
    "proxy.static.conditional:_BYTES": "fullmatch",
    "proxy.static.conditional:_ENTITY_TAG": "findall",
    "proxy.static.conditional:_HTTP_DATE": "fullmatch",
    "proxy.static.conditional:_RANGE": "fullmatch",
    "proxy.message.request_headers:_MAX_FORWARDS": "findall",
    "proxy.static.tree:_REFUSED": "search",
    "proxy.static.tree:_SENT": "fullmatch",
    "proxy.static.tree:_HIDDEN": "match",
    "proxy.message.response_reader:_BARE": "search",
    "proxy.message.response_lines:_LINE": "fullmatch",
    "proxy.message.response_lines:_STATUS_LINE": "fullmatch",
    "proxy.message.response_lines:_FOLD": "findall",
    "proxy.message.response_lines:_FRAMING": "findall",
    "proxy.message.response_lines:_SPACE_BEFORE_COLON": "findall",
    "proxy.message.response_fields:_REFRESH": "fullmatch",
    "proxy.message.response_fields:_ABSOLUTE": "fullmatch",
    "proxy.message.response_fields:_DEFAULT_PORT": "findall",
    "request.authorization:_AS_USER": "fullmatch",
    "request.authorization:_BASIC": "findall",
    "request.authorization:_MEANT": "search",
    "request.authorization:_PRESENTED": "fullmatch",
    "request.authorization:_PRESENTED_BASIC": "fullmatch",
    "request.authorization:_TOKEN_ALONE": "fullmatch",
    "request.intent:_QUALITY": "fullmatch",
    "request.body:_SIZE": "fullmatch",
    "request.claims:_FINAL": "match",
    "request.claims:_IF_PART": "match",
    "request.claims:_SCHEME": "match",
    "request.claims:_WORD": "findall",
    "request.fields:_LINES": "fullmatch",
    "request.fields:_TOKEN": "fullmatch",
    "request.head:_BARE": "search",
    "request.head:_FIRST": "match",
    "request.head:_LINE": "fullmatch",
    "request.head:_PLAIN_LINE": "fullmatch",
    "request.intent:_BROWSER": "search",
    "request.claims:_PARAMETER": "findall",
    "request.readings:_AUTHORITY": "match",
    "request.readings:_CUT": "findall",
    "request.readings:_ENCODED_SLASH": "findall",
    "request.readings:_ONE_READING": "fullmatch",
    "request.readings:_OVERLONG": "findall",
    "request.readings:_PARAMETERS": "findall",
    "request.readings:_SCRIPT": "findall",
    "request.readings:_SLASHES": "findall",
    "request.readings:_STREAM": "findall",
    "request.readings:_UNCHECKED": "findall",
    "request.readings:_UNDECODED": "search",
    "request.readings:_UNRESERVED": "findall",
    "request.readings:_UNSEEN": "findall",
    "request.readings:_WIDE_ESCAPE": "findall",
    "request.authorization:_CHALLENGED": "findall",
    "request.authorization:_QUOTED": "findall",
    "request.authorization:_SCHEME": "match",
    "request.target:_HOST": "fullmatch",
    "request.target:_ORIGIN_FORM": "fullmatch",
    "request.trace_context:_MEMBER": "fullmatch",
    "request.trace_context:_PARENT": "fullmatch",
    "request.trace_context:_REQUEST_ID": "fullmatch",
    "request.trace_context:_USUAL": "fullmatch",
    "syntax:BARE_KEY": "fullmatch",
    "syntax:CONTENT_LENGTH": "fullmatch",
    "syntax:DOTS": "search",
    "syntax:EMAIL": "fullmatch",
    "syntax:HTTP_URL": "fullmatch",
    "syntax:HTTP_URL_OCTETS": "fullmatch",
    "syntax:METHOD": "fullmatch",
    "syntax:SESSION_ID": "fullmatch",
    "syntax:TAILCHAT_ID": "fullmatch",
    "syntax:UNFIT_FOR_A_LINE": "findall",
}
#: Patterns that read only what another has taken; the reader of both is in READERS.
BEHIND: Final = {"request.fields:_FIELD": "request.fields:_LINES takes whole lines alone"}
#: Modules that compile a pattern out of settings, with the reader that runs it.
COMPILED_LATER: Final = {
    "identity.sessions.cookie_fields": "cookies",
    "request.shapes": "plain section",
}
#: Where no stranger's bytes are read, and why.
EXEMPT: Final = {
    "config": "the admin's own file",
    "commands": "the admin's own words",
    "cli": "the admin's own words",
    "demo": "a stand-in, which no visitor meets",
    "commands.demo": "a stand-in, which no visitor meets",
}

#: What texts that take long are made of: what repeats, and what may stand before it and behind.
UNITS: Final = (
    *("a", "/", ".", "..", "%", "%2", "%25", "%u002", ";", "=", "&", ",", ",;", " ", "\t", "+"),
    *("\\", '"', '"\\', '\\"', ":", ":a", "::$", "<", "<a>", ">", "()", "(", "[", "[a", "-", "_"),
    *("1", "0", ";_method%00", "&_method", "%20", "a.", "/a.php", "/index", ";a", "\r", "\r\n"),
    *("\n", "a:b\r\n", "a: b\r\n ", "\xc0", "\xff", "\xe0\x80", "tg_", "bearer ", "Bearer\t"),
    *("x;q=0.1,", 'W/"a",', "1-2,", "http://", "//", "@", "#", "?", "a=b; ", ", NTLM", "a b"),
    *("\x00", "\x1f", "\u200d", "max-forwards: "),
)
STARTS: Final = ("", "/", "a", '"', "?", "http://", "%", "final;")
ENDS: Final = ("", "\x01")
_SIZE: Final = 8192
#: Below it a text of that size was not read in time that grows with its square.
_QUICK: Final = 0.002
#: A pattern meets a quarter of it first, for which what is quadratic takes a sixteenth of the time.
_SHORT: Final = _SIZE // 4
_QUICK_SHORT: Final = _QUICK / 16
#: 8 for what is linear, 64 for what is quadratic: over three doublings 3 each.
_MOST: Final = 27.0


@pytest.fixture(autouse=True, scope="module")
def _uncollected() -> Iterator[None]:
    """Keep the collector from looking through what other tests left."""
    gc.disable()
    yield
    gc.enable()


def _seconds(work: Callable[[], object], times: int = 1) -> float:
    best = float("inf")
    # Not those of other tests' threads.
    for _ in range(times):
        start = time.thread_time()
        work()
        best = min(best, time.thread_time() - start)
    return best


def grows(make: Callable[[int], Callable[[], object]], size: int = _SIZE) -> float:
    """Return by what factor work grows with eight times the bytes; 0.0 for what takes no time."""
    # What was quick once is quick: what else runs can only add to the time.
    if _seconds(make(size)) < _QUICK:
        return 0.0
    few = min(_seconds(make(size // 4), 5), _seconds(make(size // 4), 5))
    # Once is enough to clear a reader: what else ran meanwhile can only have added to it.
    many = _seconds(make(size * 2))
    if many / max(few, 1e-5) >= _MOST:
        many = min(many, _seconds(make(size * 2), 3), _seconds(make(size * 2), 3))
    return many / max(few, 1e-5)


@cache
def found_patterns() -> Mapping[str, re.Pattern[Any]]:
    """Return every compiled pattern of the package outside of the exempt rooms, by its name."""
    return dict(_found())


def _found() -> Iterator[tuple[str, re.Pattern[Any]]]:
    shared = {id(value) for value in vars(syntax).values()}
    for module in pkgutil.walk_packages(tailchat_gate.__path__, "tailchat_gate."):
        name = module.name.removeprefix("tailchat_gate.")
        if name.partition(".")[0] in EXEMPT or name == "__main__":
            continue
        for key, value in vars(importlib.import_module(module.name)).items():
            imported = name != "syntax" and id(value) in shared
            if isinstance(value, re.Pattern) and not imported:
                yield f"{name}:{key}", value


def compiled_in_source() -> Iterator[str]:
    """Yield the modules that compile a pattern, once for each time."""
    for module in pkgutil.walk_packages(tailchat_gate.__path__, "tailchat_gate."):
        name = module.name.removeprefix("tailchat_gate.")
        if name.partition(".")[0] not in EXEMPT and name != "__main__":
            spec = importlib.util.find_spec(module.name)
            assert spec is not None
            assert spec.origin is not None
            with open(spec.origin, encoding="utf-8") as file:  # noqa: PTH123 - a path as text
                yield from (name for _ in re.findall(r"\bre\.compile\(", file.read()))


def test_every_pattern_is_in_the_registry() -> None:
    """A pattern that is not named here, or compiled where none is found, fails."""
    found = found_patterns()

    assert found.keys() == PATTERNS.keys() | BEHIND.keys()
    modules = [name.partition(":")[0] for name in found]
    assert sorted([*modules, *COMPILED_LATER]) == sorted(compiled_in_source())
    assert set(COMPILED_LATER.values()) <= READERS.keys()


def _text(start: str, unit: str, end: str, size: int) -> str:
    return start + unit * (size // len(unit)) + end


#: What each pattern is given, and a short text of it.
_PARTS: Final = tuple(product(STARTS, UNITS, ENDS))
_SHORT_TEXTS: Final = tuple(_text(*parts, _SHORT) for parts in _PARTS)
_SHORT_OCTETS: Final = tuple(text.encode() for text in _SHORT_TEXTS)


def is_quick(use: Callable[[Any], object], short: Sequence[object]) -> bool:
    """Tell whether a short text is read too fast for time that grows with its square."""
    start = time.thread_time()
    use(short)
    return time.thread_time() - start < _QUICK_SHORT


@pytest.mark.parametrize("name", PATTERNS)
def test_no_pattern_takes_superlinear_time(name: str) -> None:
    """Whatever repeats in a text, a pattern reads it in time that grows with its length."""
    pattern = found_patterns()[name]
    use, octets = getattr(pattern, PATTERNS[name]), isinstance(pattern.pattern, bytes)
    for parts, short in zip(_PARTS, _SHORT_OCTETS if octets else _SHORT_TEXTS, strict=True):
        if is_quick(use, short):
            continue

        def make(size: int) -> Callable[[], object]:
            text = _text(*parts, size)  # noqa: B023 - used at once
            data = text.encode() if octets else text
            return lambda: use(data)

        assert grows(make) < _MOST, parts


def _quietly(read: Callable[[str], object]) -> Callable[[str], object]:
    def work(text: str) -> object:
        try:
            return read(text)
        except ValueError:
            return None

    return work


def _section(*pairs: tuple[str, str]) -> FieldSection:
    return FieldSection([(b"Host", b"h"), *((n.encode(), v.encode()) for n, v in pairs)])


_LIMITS: Final = HeadLimits(1 << 20, 1 << 20, 1 << 16, 1 << 20)
_NAMES: Final = CookieNames.for_origin("https://gate.test")
_ROUTES: Final = make_settings(
    route=[
        {"name": "all", "allow": ["public"], "upstream_path": "/in", "rewrite_location": True},
        {"name": "in", "path": "/admin.html", "methods": ["GET", "PUT"]},
    ]
).route
_REWRITER: Final = ResponseRewriter(_ROUTES[0])


def _chunks(text: str) -> object:
    """Feed a body byte by byte, as a slow client sends it."""
    body = ChunkedBody()
    for octet in text.encode():
        body.feed(bytes((octet,)))
    return body


def _head(text: str) -> object:
    reader = RequestReader(_LIMITS)
    return reader.read(f"GET / HTTP/1.1\r\nHost: h\r\n{text}\r\n\r\n".encode())


def _plain_section(text: str) -> object:
    """Read a section by the pattern of its names."""
    sections = PlainSections(_LIMITS, often=1)
    start = b"Host: h\r\nX-A: b\r\nX-B: "
    for _ in range(2):
        sections.learn(read_carefully(start + b"x\r\n", _LIMITS, sections.shape))
    return sections.read(start + text.encode() + b"\r\n")


def _frames(text: str) -> object:
    tracker = FrameTracker()
    for octet in text.encode():
        tracker.feed(bytes((octet,)))
    return tracker


def _clients(text: str) -> object:
    return ClientResolver((), default_scheme="http").forwarded("127.0.0.1", text, text)


def _return_to(text: str) -> object:
    return safe_return_to(text, public_origin="https://gate.test", allowed_origins=())


def _userinfo(text: str) -> object:
    return profile_from_userinfo(
        {"sub": "a" * 24, "nickname": text, "discriminator": text, "avatar": text},
        api_url="https://chat.test",
    )


#: Functions that read what a stranger sends, and what they are given.
READERS: Final[dict[str, Callable[[str], object]]] = {
    "access.routes": lambda text: RouteTable(_ROUTES, {}).match("h", f"/{text}", "GET"),
    "claimed methods, query": lambda text: claimed_methods(_section(), f"?{text}"),
    "claimed methods, field": lambda text: claimed_methods(_section(("X-HTTP-Method", text)), ""),
    "claimed paths, If": lambda text: claimed_paths(_section(("If", text))),
    "claimed paths, Destination": lambda text: claimed_paths(_section(("Destination", text))),
    "claimed paths, Upload-Concat": lambda text: claimed_paths(
        _section(("Upload-Concat", f"final;{text}"))
    ),
    "challenges": lambda text: challenge_binds(text.encode()),
    "credentials": lambda text: credentials_bind([text.encode()]),
    "credentials, tokens": lambda text: read_token([f"Basic {text}".encode()], [text.encode()]),
    "chunks, byte by byte": _chunks,
    "connection options": lambda text: _section(("Connection", text)),
    "cookies": lambda text: CookieReader(_NAMES).for_upstream(text.encode()),
    "cookies, sessions": lambda text: CookieReader(_NAMES).session_values(text.encode()),
    "cookies, of a reply": lambda text: CookieReader(_NAMES).is_reserved(text.encode()),
    "cookies, rewritten": lambda text: _REWRITER.set_cookie(text.encode()),
    "fields": lambda text: split_fields(text.encode()),
    "forwarded chain": _clients,
    "frames, byte by byte": _frames,
    "head": _head,
    "html wanted": lambda text: wants_html({"Accept": text}),
    "JSON": lambda text: json_object(text.encode()),
    "language": choose_language,
    "local path": lambda text: read_path(f"/{text}"),
    "location": lambda text: _REWRITER.location(text.encode()),
    "lock": lambda text: read_record(Record(REVOCATION, "k", text)),
    "origin": lambda text: is_foreign((), [text], "http://h", ()),
    "plain section": _plain_section,
    "profile": _userinfo,
    "query": lambda text: query_pairs(f"?{text}"),
    "readings": lambda text: readings(f"/{text}"),
    "readings, shortened": lambda text: shortened(readings(f"/{text}")),
    "return target": _return_to,
    "target": lambda text: read_target(f"/{text}", None),
    "host": lambda text: read_host([text]),
}


@pytest.mark.parametrize("name", READERS)
def test_no_reader_takes_superlinear_time(name: str) -> None:
    """Whatever repeats in what a stranger sends, it is read in time that grows with its length."""
    read = _quietly(READERS[name])
    for unit in UNITS:

        def make(size: int) -> Callable[[], object]:
            text = unit * (size // len(unit))  # noqa: B023 - used at once
            return lambda: read(text)

        assert grows(make) < _MOST, unit


@pytest.mark.parametrize(
    "unit", ["%EF%B7%BA", "%CC%80%CC%96", "%EF%B7%BA/", "%ff%EF%B7%BA", "%E1%BA%AD"]
)
@pytest.mark.parametrize("tail", ["", "%2f;%41//x", "%5c%2e.;"])
def test_readings_of_a_long_path_are_bounded(unit: str, tail: str) -> None:
    """What normalising makes of a path is bounded: a longer one costs no more than its length."""
    read = _quietly(readings)

    def make(size: int) -> Callable[[], object]:
        text = "/" + unit * (size // len(unit)) + tail
        return lambda: read(text)

    assert grows(make, 4096) < _MOST


def test_what_is_quadratic_is_noticed() -> None:
    """A pattern and a loop as they were once are found by the measure that is used here."""
    old = re.compile("(?i)[?&;]_method(?:%00[^=&]*)?=([^&;]*)")

    def pattern(size: int) -> Callable[[], object]:
        text = _text("?", ";_method%00", "", size)
        return lambda: old.findall(text)

    def loop(size: int) -> Callable[[], object]:
        def work() -> bytes:
            found = b""
            for _ in range(size):
                found = found + b"x" * 16
                found.find(b"\n")
            return found

        return work

    assert not is_quick(old.findall, _text("?", ";_method%00", "", _SHORT))
    assert grows(pattern, 4096) > _MOST
    assert grows(loop, 4096) > _MOST
