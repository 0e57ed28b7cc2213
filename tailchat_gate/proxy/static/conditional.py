"""Conditional and range requests for an existing file (RFC 9110 sections 13 and 14)."""

import calendar
import re
from collections.abc import Sequence
from email.utils import parsedate
from http import HTTPStatus
from typing import Final, NamedTuple, Protocol

#: RFC 9110 section 8.8.3; a tag may contain a comma, so lists cannot be split at commas.
_ENTITY_TAG: Final = re.compile(r'(?:W/)?"[!#-~\x80-\xff]*"')
_DAY: Final = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_LONG_DAY: Final = "(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_TIME: Final = "[0-9]{2}:[0-9]{2}:[0-9]{2}"
#: The three forms of RFC 9110 section 5.6.7.
_HTTP_DATE: Final = re.compile(
    f"{_DAY}, [0-9]{{2}} [A-Z][a-z]{{2}} [1-9][0-9]{{3}} {_TIME} GMT"
    f"|{_LONG_DAY}, [0-9]{{2}}-[A-Z][a-z]{{2}}-[0-9]{{2}} {_TIME} GMT"
    f"|{_DAY} [A-Z][a-z]{{2}} [ 0-9][0-9] {_TIME} [1-9][0-9]{{3}}"
)
_BYTES: Final = re.compile(r"bytes=(.*)", re.IGNORECASE)
#: No honest request has longer numbers, and parsing digits takes quadratic time.
_RANGE: Final = re.compile(r"([0-9]{0,100})-([0-9]{0,100})")


class Fields(Protocol):
    """The header fields of a request; names are looked up ignoring case."""

    def getall(self, key: str, default: tuple[()], /) -> Sequence[str] | tuple[()]:
        """Return all values of a field in order."""


class Validators(NamedTuple):
    """Identify a version of a file: `etag` as it is sent, `modified` in Unix seconds."""

    etag: str
    modified: int


class ByteSpan(NamedTuple):
    """Bytes of a file, from `start` on."""

    start: int
    length: int


class UnsatisfiableRangeError(ValueError):
    """A valid range that contains no byte of the file."""


def judge_preconditions(fields: Fields, current: Validators) -> HTTPStatus:
    """Evaluate the preconditions of a GET or HEAD; return 200, 304 or 412.

    The order is that of RFC 9110 section 13.2.2. An invalid or repeated date is ignored.
    """
    if if_match := fields.getall("If-Match", ()):
        if not _names(if_match, current.etag, strong=True):
            return HTTPStatus.PRECONDITION_FAILED
    else:
        unmodified = _date(fields.getall("If-Unmodified-Since", ()))
        if unmodified is not None and current.modified > unmodified:
            return HTTPStatus.PRECONDITION_FAILED
    if if_none_match := fields.getall("If-None-Match", ()):
        known = _names(if_none_match, current.etag, strong=False)
        return HTTPStatus.NOT_MODIFIED if known else HTTPStatus.OK
    since = _date(fields.getall("If-Modified-Since", ()))
    if since is not None and current.modified <= since:
        return HTTPStatus.NOT_MODIFIED
    return HTTPStatus.OK


def requested_span(fields: Fields, etag: str, size: int) -> ByteSpan | None:
    """Return the one range that a GET asks for, None to send the whole file.

    A Range that is malformed, in another unit or with several ranges is ignored, as RFC 9110
    section 14.2 allows: several ranges can overload a server (CVE-2011-3192). `size` is in bytes.
    Raises UnsatisfiableRangeError.
    """
    values = fields.getall("Range", ())
    match = _BYTES.fullmatch(values[0].strip(" \t")) if len(values) == 1 else None
    if match is None or not _may_resume(fields, etag):
        return None
    ranges = [span for part in match[1].split(",") if (span := part.strip(" \t"))]
    only = _RANGE.fullmatch(ranges[0]) if len(ranges) == 1 else None
    return None if only is None else _span(only[1], only[2], size)


def _span(first: str, last: str, size: int) -> ByteSpan | None:
    if not first:
        return _last_bytes(last, size)
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size:
        raise UnsatisfiableRangeError
    return ByteSpan(start, (min(int(last), size - 1) if last else size - 1) - start + 1)


def _last_bytes(count: str, size: int) -> ByteSpan | None:
    if not count:
        return None
    length = min(int(count), size)
    if int(count) == 0:
        raise UnsatisfiableRangeError
    # For an empty file this is the whole file, which Content-Range cannot express.
    return ByteSpan(size - length, length) if size else None


def _may_resume(fields: Fields, etag: str) -> bool:
    """Whether If-Range allows a partial response.

    Only a strong tag does. A date never does: a client that has a tag must not send a date (RFC
    9110 section 13.1.5), every file here has a tag, and copying tools keep files' dates.
    """
    values = fields.getall("If-Range", ())
    if not values:
        return True
    return len(values) == 1 and values[0].strip(" \t") == etag and not etag.startswith("W/")


def _names(values: Sequence[str], etag: str, *, strong: bool) -> bool:
    """Whether a list of tags contains `etag`, by strong or weak comparison."""
    text = ",".join(values)
    if text.strip(" \t") == "*":
        return True
    tags = _ENTITY_TAG.findall(text)
    if strong:
        return etag in tags and not etag.startswith("W/")
    return etag.removeprefix("W/") in {tag.removeprefix("W/") for tag in tags}


def _date(values: Sequence[str]) -> int | None:
    """Return the Unix time of a field with one valid HTTP date, None for any other."""
    text = values[0].strip(" \t") if len(values) == 1 else ""
    parts = parsedate(text) if _HTTP_DATE.fullmatch(text) else None
    return calendar.timegm(parts) if parts is not None and _is_time(parts) else None


def _is_time(parts: tuple[int, ...]) -> bool:
    """Whether the date and time exist: parsedate and timegm do not check the day."""
    year, month, day, hour, minute, second = parts[:6]
    try:
        days = calendar.monthrange(year, month)[1]
    except ValueError:
        # parsedate accepts an invalid month; IllegalMonthError is a ValueError.
        return False
    return 0 < day <= days and hour < 24 and minute < 60 and second <= 60  # noqa: PLR2004 - of a clock
