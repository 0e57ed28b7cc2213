"""Conditions and ranges: a well-formed field says what RFC 9110 says, a malformed one nothing."""

import re
from calendar import day_abbr, day_name, timegm
from collections.abc import Sequence
from datetime import datetime
from http import HTTPStatus

from fuzz.cutting import steered
from fuzz.target import Target
from tailchat_gate.proxy.static.conditional import (
    ByteSpan,
    UnsatisfiableRangeError,
    Validators,
    judge_preconditions,
    requested_span,
)

_MODIFIED = 784_111_777
_ETAGS = ('"abc"', 'W/"abc"', '"a,b"', '""')
_SIZES = (0, 1, 10, 1000)
_DATES = ("%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y")
_NAMES = ("If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "Range",
          "If-Range")  # fmt: skip


class _Fields:
    """Field lines, of which only their first letters count: "H: x" is an If-Match."""

    def __init__(self, data: bytes) -> None:
        self._pairs = []
        for line in data.decode("latin-1").split("\n"):
            mark, _, value = line.partition(":")
            self._pairs.append((_NAMES[ord(mark[:1] or "\0") % len(_NAMES)], value))

    def getall(self, key: str, default: tuple[()], /) -> Sequence[str] | tuple[()]:
        return [value for name, value in self._pairs if name == key] or default


def check(data: bytes) -> None:
    """Judge a request for a file; one byte chooses its tag and size."""
    steer, rest = steered(data, 1)
    etag, size = _ETAGS[steer[0] % 4], _SIZES[steer[0] // 4 % 4]
    fields = _Fields(rest)
    found = judge_preconditions(fields, Validators(etag, _MODIFIED))
    wanted = _judged(fields, etag)
    assert found in {HTTPStatus.OK, HTTPStatus.NOT_MODIFIED, HTTPStatus.PRECONDITION_FAILED}
    assert wanted is None or found == wanted
    _check_range(fields, etag, size)


def _judged(fields: _Fields, etag: str) -> HTTPStatus | None:
    """Return the outcome of RFC 9110 section 13.2.2, None where a list of tags is malformed."""
    if match := fields.getall("If-Match", ()):
        tags = _tags(match)
        if tags is None:
            return None
        if "*" not in tags and (etag not in tags or etag.startswith("W/")):
            return HTTPStatus.PRECONDITION_FAILED
    else:
        limit = _time(fields.getall("If-Unmodified-Since", ()))
        if limit is not None and limit < _MODIFIED:
            return HTTPStatus.PRECONDITION_FAILED
    if none_match := fields.getall("If-None-Match", ()):
        tags = _tags(none_match)
        if tags is None:
            return None
        weak = {tag.removeprefix("W/") for tag in tags}
        known = "*" in tags or etag.removeprefix("W/") in weak
        return HTTPStatus.NOT_MODIFIED if known else HTTPStatus.OK
    since = _time(fields.getall("If-Modified-Since", ()))
    if since is not None and since >= _MODIFIED:
        return HTTPStatus.NOT_MODIFIED
    return HTTPStatus.OK


def _tags(values: Sequence[str]) -> list[str] | None:
    """Return the tags of a list, or "*" alone; None where it is malformed."""
    text = ",".join(values)
    if text.strip(" \t") == "*":
        return ["*"]
    tags, place = [], 0
    while place < len(text):
        if text[place] in ", \t":
            place += 1
            continue
        start = place
        place += 2 if text.startswith("W/", place) else 0
        end = text.find('"', place + 1)
        inside = text[place + 1 : end]
        if text[place : place + 1] != '"' or end < 0 or any(not _is_tag(sign) for sign in inside):
            return None
        place = end + 1
        if text[place:].lstrip(" \t")[:1] not in {"", ","}:
            return None
        tags.append(text[start:place])
    return tags


def _is_tag(sign: str) -> bool:
    return sign == "!" or "#" <= sign <= "~" or sign >= "\x80"


def _time(values: Sequence[str]) -> int | None:
    """Return the Unix time of one HTTP date in any of its three forms."""
    if len(values) != 1:
        return None
    # A leap second is a time (RFC 9110 section 5.6.7), though datetime knows none.
    text, leap = re.subn(r"(:[0-9]{2}):60\b", r"\1:59", values[0].strip(" \t"))
    day = re.split("[, ]", text)[0]
    for form in _DATES:
        try:
            found = datetime.strptime(text, form)  # noqa: DTZ007 - all are GMT
        except ValueError:
            continue
        # It forgives more than the grammar does: other case, one digit where two belong. Which
        # day of the week it was is not asked.
        written = found.strftime(form.replace("%A" if "%A" in form else "%a", day))
        forms = {written}
        if form == _DATES[2]:
            forms.add(found.strftime(form.replace("%a", day).replace("%d", f"{found.day:2d}")))
        is_day = day in (day_name if "%A" in form else day_abbr)
        return timegm(found.timetuple()) + leap if text in forms and is_day else None
    return None


def _check_range(fields: _Fields, etag: str, size: int) -> None:
    wanted = _range(fields, etag, size)
    try:
        found = requested_span(fields, etag, size)
    except UnsatisfiableRangeError:
        assert wanted == "none of it"
        return
    assert wanted == found
    if found is not None:
        assert found.start >= 0
        assert found.length > 0
        assert found.start + found.length <= size


def _range(fields: _Fields, etag: str, size: int) -> ByteSpan | str | None:
    """Return the one range of bytes that is asked for; RFC 9110 section 14.1.2."""
    asked, condition = fields.getall("Range", ()), fields.getall("If-Range", ())
    if len(asked) != 1 or asked[0].strip(" \t")[:6].lower() != "bytes=":
        return None
    if condition and ([c.strip(" \t") for c in condition] != [etag] or etag.startswith("W/")):
        return None
    parts = [part.strip(" \t") for part in asked[0].strip(" \t")[6:].split(",")]
    parts = [part for part in parts if part]
    if len(parts) != 1 or parts[0].count("-") != 1:
        return None
    first, last = parts[0].split("-")
    if set(first + last) - set("0123456789") or max(len(first), len(last)) > 100:
        return None
    if not first:
        return _last(last, size)
    start, end = int(first), int(last) if last else size
    if last and end < start:
        return None
    if start >= size:
        return "none of it"
    return ByteSpan(start, min(end + 1, size) - start)


def _last(count: str, size: int) -> ByteSpan | str | None:
    if not count:
        return None
    if int(count) == 0:
        return "none of it"
    return ByteSpan(max(0, size - int(count)), min(int(count), size)) if size else None


TARGET = Target(
    check,
    parsers=("proxy.static.conditional",),
    seeds=(
        b'\0N: "abc"',
        b'\2M: W/"abc", "a,b" ,*\nH: "x"',
        b"\1J: Sun, 06 Nov 1994 08:49:37 GMT",
        b"\0K: Sunday, 06-Nov-94 08:49:37 GMT",
        b"\0J: Sun Nov  6 08:49:37 1994",
        b"\0J: Sun, 99 Nov 1994 08:49:37 GMT",
        b"\x0cL: bytes=0-9",
        b'\x0cL: bytes=-5\nM: "abc"',
        b"\x08L: bytes=9-8, 1-2",
        b"\x04L: bytes=5-",
        b"\0H: *",
        b"\0J: Sun Nov  6 23:59:60 1994",
    ),
    words=(
        *(
            b"N: ",
            b"O: ",
            b"J: ",
            b"K: ",
            b"L: bytes=",
            b"M: ",
            b"H: ",
            b"I: ",
            b"\n",
            b'"abc"',
            b"W/",
        ),
        *(b'"a,b"', b'""', b"*", b", ", b"0-", b"-1", b"-0", b"999", b"bytes=", b"BYTES=", b"-"),
        *(b"Sun, 06 Nov 1994 08:49:37 GMT", b"Feb", b"30 ", b"24:00:00", b"23:59:60", b" GMT"),
    ),
)
