"""One application for servers of Python: it tells all that it learned of a request."""

import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from werkzeug.middleware.proxy_fix import ProxyFix

Scope = dict[str, Any]


def _told(found: object) -> bytes:
    return json.dumps(found, sort_keys=True, default=lambda _: "").encode()


def wsgi(environ: Scope, start: Callable[..., object]) -> Iterable[bytes]:
    """Answer with the environment (PEP 3333)."""
    if environ["REQUEST_METHOD"] == "POST":
        environ["wsgi.input"].read()
    body = _told({name: value for name, value in environ.items() if isinstance(value, str)})
    start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


#: Believes every field of a proxy, which a tool behind one is told to.
fixed = ProxyFix(wsgi, x_for=1, x_proto=1, x_host=1, x_port=1, x_prefix=1)


async def asgi(
    scope: Scope,
    receive: Callable[[], Awaitable[Scope]],
    send: Callable[[Scope], Awaitable[None]],
) -> None:
    """Answer with the scope of the request (ASGI, HTTP connection scope)."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    fields = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]]
    told = {name: scope[name] for name in ("path", "root_path", "method", "scheme")}
    body = _told({**told, "headers": fields, "from": scope["client"][0]})
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})
