"""Seals sessions with the gate's own code, as many sign-ins would have done.

Standard input: JSON with `secret` (the gate's), `origin` (its public URL) and `count`. Standard
output: one value of a Cookie header a line, each of another person.
"""

import json
import sys
import time

from tailchat_gate.identity.oauth.responses import Profile
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.identity.sessions.cookies import CookieNames
from tailchat_gate.identity.sessions.session import Lifetimes, SessionCookie, SessionRecord

_LIFETIME = 12 * 3600.0


def cookies(secret: str, origin: str, count: int) -> list[str]:
    """Return `count` values of a Cookie header that a gate with this secret lets in."""
    sealer = SessionCookie(
        KeyRing([secret.encode()], "session"),
        CookieNames.for_origin(origin),
        Lifetimes(_LIFETIME, 0),
        time.time,
    )
    return [sealer.set(_record(number)).partition(";")[0] for number in range(count)]


def _record(number: int) -> SessionRecord:
    avatar = f"https://chat.example.com/static/files/{number}/avatar.png"
    profile = Profile(f"66{number:022d}", f"星野 {number}", f"{number % 10_000:04d}", avatar)
    return SessionRecord.begin(profile, now=time.time(), login=f"bench{number}")


def main() -> None:
    """Read the order, write the cookies."""
    order = json.load(sys.stdin)
    print("\n".join(cookies(order["secret"], order["origin"], order["count"])))


if __name__ == "__main__":
    main()
