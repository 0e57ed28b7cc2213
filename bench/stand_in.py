"""A stand-in Tailchat with the one app and the one user that the gate's sign-in needs."""

import os
import sys

from aiohttp import web

from tailchat_gate.demo.store import App
from tailchat_gate.demo.tailchat import StandInTailchat
from tailchat_gate.demo.users import User

# A name as people have it: it must be encoded before it can be a header.
_CLAIMS = {"nickname": "星野 Hoshino ☆", "discriminator": "0042"}


def main() -> None:
    """Serve on the loopback port of the first argument, for the gate whose origin is the second.

    The secrets of the run come from the environment, which other users of the machine cannot read.
    """
    port, gate = int(sys.argv[1]), sys.argv[2]
    app = App(
        client_id=os.environ["BENCH_CLIENT"],
        client_secret=os.environ["BENCH_CLIENT_SECRET"],
        redirect_uris=(f"{gate}/oauth2/callback",),
    )
    user = User(
        sub="660000000000000000000001",
        name="bench",
        email=os.environ["BENCH_EMAIL"],
        password=os.environ["BENCH_PASSWORD"],
        claims=_CLAIMS,
    )
    stand_in = StandInTailchat(apps=[app], users=[user])
    web.run_app(stand_in.app(), host="127.0.0.1", port=port, print=None)


if __name__ == "__main__":
    main()
