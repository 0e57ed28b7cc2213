"""The fields of a line of the access log."""

from typing import Final, Literal, get_args

LogField = Literal[
    "time", "id", "client", "method", "host", "path", "query", "status", "reason", "limit", "route",
    "sub", "token", "bytes", "received", "ms", "upstream", "connect_ms", "first_byte_ms",
    "upstream_ms", "trace_id", "agent", "asked",
]  # fmt: skip
#: Those of a line unless the configuration chooses others: query strings carry secrets of tools.
DEFAULT_LOG_FIELDS: Final[tuple[LogField, ...]] = tuple(
    field for field in get_args(LogField) if field not in {"query", "received", "upstream_ms"}
)
