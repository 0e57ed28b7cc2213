"""Asks the admin listener of the running gate."""

import urllib.error
import urllib.request
from pathlib import Path
from typing import Final

from tailchat_gate.commands.common import EXIT_FAILED, EXIT_USAGE, asked_at, fail, loaded_from
from tailchat_gate.config.address import TcpAddress, listen_address

_SECONDS: Final = 3.0


def asked(config: Path, path: str) -> bytes:
    """Return the body of a page of the admin listener; end the command where it does not answer."""
    address = loaded_from(config).settings.server.admin_listen
    where = listen_address(address) if address else None
    if not isinstance(where, TcpAddress):
        fail("this needs server.admin_listen with a host and port", EXIT_USAGE)
    url = f"http://{asked_at(where)}{path}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_SECONDS) as answer:
            body: bytes = answer.read()
    except (OSError, urllib.error.HTTPError) as error:
        fail(f"{url} does not answer: {error}", EXIT_FAILED)
    return body
