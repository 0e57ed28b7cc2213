"""The faults of a Tailchat that tests set most often."""

from typing import Final

from tailchat_gate.demo.faults import Close, Response

#: Tailchat: the page of its web client, which it serves on every path without a handler.
HTML: Final = Response(200, b"<!doctype html><title>Tailchat</title>", "text/html; charset=utf-8")
#: Tailchat: Redis is gone, or the user was deleted.
BROKEN: Final = Response(
    500, b'{"error":"server_error","error_description":"oops! something went wrong"}'
)
CLOSE: Final = Close()
