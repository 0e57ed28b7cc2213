"""An application that reads a body as PEP 3333 tells it to: as many bytes as its length says."""

from collections.abc import Callable, Iterable
from typing import Any


def wsgi(environ: dict[str, Any], start: Callable[..., object]) -> Iterable[bytes]:
    """Answer with the body of the request."""
    body: bytes = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
