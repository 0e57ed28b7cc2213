"""Conditional and range requests (RFC 9110 sections 13 and 14), without a file."""

from collections.abc import Sequence
from http import HTTPStatus

import pytest

from tailchat_gate.proxy.static.conditional import Validators, judge_preconditions

#: Sun, 06 Nov 1994 08:49:37 GMT.
MODIFIED = 784_111_777
FILE = Validators('"abc"', MODIFIED)


class Fields:
    """The fields of a request by their names."""

    def __init__(self, *pairs: tuple[str, str]) -> None:
        self._pairs = pairs

    def getall(self, key: str, default: tuple[()], /) -> Sequence[str] | tuple[()]:
        """Return all values of a field in order."""
        return [value for name, value in self._pairs if name == key] or default


@pytest.mark.parametrize(
    ("date", "status"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", 304),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 304),
        ("Sun Nov  6 08:49:37 1994", 304),
        ("Sun, 06 Nov 1994 08:49:36 GMT", 200),
        ("Sun, 99 Nov 1994 08:49:37 GMT", 200),
        ("Wed, 31 Nov 1994 08:49:37 GMT", 200),
        ("Thu, 29 Feb 1995 08:49:37 GMT", 200),
        ("Sun, 06 Nov 1994 24:49:37 GMT", 200),
        ("Sun, 06 Nov 1994 08:60:37 GMT", 200),
        ("Sun, 06 Nov 1994 08:49:61 GMT", 200),
        ("Sun, 06 Nov 1994 8:49:370 GMT", 200),
        ("Sun, 06 Nov 0094 08:49:37 GMT", 200),
        ("Sin, 06 Nov 1994 08:49:37 GMT", 200),
        ("Sunsday, 06-Nov-94 08:49:37 GMT", 200),
        ("Sun, 06 Foo 1994 08:49:37 GMT", 200),
        ("Sun, 06 Nov 1994 08:49:37 CET", 200),
    ],
)
def test_only_a_time_that_there_is_is_a_condition(date: str, status: int) -> None:
    """What is no HTTP date is no precondition (RFC 9110 sections 5.6.7 and 13.1.3)."""
    assert judge_preconditions(Fields(("If-Modified-Since", date)), FILE) == status


def test_a_date_that_is_none_refuses_nothing() -> None:
    """If-Unmodified-Since with a time that there is not is left aside (RFC 9110 13.1.4)."""
    early = Fields(("If-Unmodified-Since", "Sun, 06 Nov 1994 08:49:36 GMT"))
    none = Fields(("If-Unmodified-Since", "Sun, 00 Nov 1994 08:49:36 GMT"))

    assert judge_preconditions(early, FILE) == HTTPStatus.PRECONDITION_FAILED
    assert judge_preconditions(none, FILE) == HTTPStatus.OK
