"""The end of an upload: reads a body as fast as it comes, pauses once, answers its length."""

import asyncio
import sys

from aiohttp import web

# A proxy that reads ahead of its upstream would fill its memory in this pause.
PAUSE_AFTER = 8 << 20
PAUSE = 1.0


async def receive(request: web.Request) -> web.Response:
    """Throw the body away; 200 with `{"received": <bytes>}`."""
    received = 0
    paused = False
    async for chunk in request.content.iter_any():
        received += len(chunk)
        if received >= PAUSE_AFTER and not paused:
            paused = True
            await asyncio.sleep(PAUSE)
    return web.json_response({"received": received})


def main() -> None:
    """Serve on the loopback port given as the only argument."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receive)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)


if __name__ == "__main__":
    main()
