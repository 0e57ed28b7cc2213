"""Where a running gate's admin listener is, as far as a file tells that may be wrong elsewhere."""

from collections.abc import Mapping
from pathlib import Path

from tailchat_gate.config.address import TcpAddress, UnixAddress, listen_address
from tailchat_gate.config.document import parse
from tailchat_gate.config.keys import env_name
from tailchat_gate.config.model import Server

_KEY = ("server", "admin_listen")


def admin_address(path: Path, environ: Mapping[str, str]) -> TcpAddress | UnixAddress | None:
    """Return where to ask a gate that was started with this file, None where it listens nowhere.

    Nothing else of the file has to be right: a gate is asked what is wrong with it. Where the
    file cannot be read at all it is the default. Raises ValueError for an address that is none.
    """
    text = environ.get(env_name(_KEY), _written(path))
    return listen_address(text) if text else None


def _written(path: Path) -> str:
    default = str(Server.model_fields[_KEY[1]].default)
    try:
        server = parse(path.read_bytes()).get(_KEY[0])
    except (OSError, ValueError):
        return default
    written = server.get(_KEY[1], default) if isinstance(server, dict) else default
    return written if isinstance(written, str) else default
