"""What a request for one of the gate's own paths says: its query and its Cookie fields."""

from collections.abc import Sequence
from typing import Final
from urllib.parse import parse_qsl

_MAX_PARAMETERS: Final = 32
_COOKIE: Final = len(b"cookie")


def query_pairs(query: str) -> list[tuple[str, str]]:
    """Return the decoded pairs of a query, in order.

    `query` begins with "?" or is "". One of more parameters than any of the gate's paths takes
    counts as none.
    """
    try:
        return parse_qsl(query[1:], keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
    except ValueError:
        return []


def cookie_fields(fields: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
    """Return the values of the Cookie fields among the raw fields of a request, in order."""
    # The length first, because it is free and most fields differ in it.
    return [value for name, value in fields if len(name) == _COOKIE and name.lower() == b"cookie"]
