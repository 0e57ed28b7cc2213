"""The provider that every peer signs in at: the stand-in Tailchat, over HTTP and over TLS.

It speaks OpenID Connect as a Tailchat does: pages of login and consent, codes, signed id_tokens.
"""

import asyncio
import json
import secrets
import ssl
import sys
from collections.abc import Iterator

from aiohttp import web
from sealed import PEOPLE, claims, sub

from tailchat_gate.demo.store import App
from tailchat_gate.demo.tailchat import StandInTailchat
from tailchat_gate.demo.users import User

# A name as people have it: it must be encoded before it can be a header.
_CLAIMS = {"nickname": "星野 Hoshino ☆", "discriminator": "0042"}


async def serve(about: dict[str, str]) -> None:
    """Serve one app, the user who signs in and those of sealed sessions, until it is ended."""
    app = App(
        client_id=about["client_id"],
        client_secret=about["client_secret"],
        redirect_uris=tuple(about["redirect_uris"].split()),
    )
    user = User(
        sub=about["sub"],
        name="bench",
        email=about["email"],
        password=about["password"],
        claims=_CLAIMS,
    )
    users = [*_people(), user]
    runner = web.AppRunner(StandInTailchat(apps=[app], users=users).app())
    await runner.setup()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(about["chain"], about["key"])
    await web.TCPSite(runner, "127.0.0.1", int(about["tls_port"]), ssl_context=context).start()
    await web.TCPSite(runner, "127.0.0.1", int(about["port"])).start()
    await asyncio.Event().wait()


def _people() -> Iterator[User]:
    """The accounts of sealed sessions: the gate asks whether they are still there."""
    for number in range(PEOPLE):
        name = f"person-{number}"
        email, password = f"{name}@example.com", secrets.token_hex(16)
        yield User(sub(number), name, email, password, claims(number))


def main() -> None:
    """Serve what the JSON file of the only argument says, which only this user may read."""
    with open(sys.argv[1], encoding="utf-8") as file:  # noqa: PTH123 - its path is an argument
        about = json.load(file)
    asyncio.run(serve(about))


if __name__ == "__main__":
    main()
