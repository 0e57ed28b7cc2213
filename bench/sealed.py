"""Seals sessions with the gate's own code, as many sign-ins would have done.

Standard input: JSON with `secret` (the gate's), `origin` (its public URL), `count`, and `people`:
how many have them. Standard output: one value of a Cookie header a line, each of another person
until all have one.
"""

import json
import sys
import time

from tailchat_gate.identity.oauth.responses import Profile
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.identity.sessions.cookie_fields import CookieNames
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.identity.sessions.session_cookie import Lifetimes, SessionCookie

PEOPLE = 20_000
"""How many people the stand-in Tailchat has."""

_LIFETIME = 12 * 3600.0


def cookies(secret: str, origin: str, count: int, people: int = PEOPLE) -> list[str]:
    """Return `count` values of a Cookie header that a gate with this secret lets in."""
    sealer = SessionCookie(
        KeyRing([secret.encode()], "session"),
        CookieNames.for_origin(origin),
        Lifetimes(_LIFETIME, 0),
        time.time,
    )
    return [sealer.set(_record(number, people)).partition(";")[0] for number in range(count)]


def claims(number: int) -> dict[str, str]:
    """What Tailchat says of a person besides `sub`."""
    return {
        "nickname": f"星野 {number}",
        "discriminator": f"{number % 10_000:04d}",
        "avatar": f"https://chat.example.com/static/files/{number}/avatar.png",
    }


def sub(number: int) -> str:
    """The person's ID."""
    return f"66{number:022d}"


def _record(number: int, people: int) -> SessionRecord:
    person = number % people
    profile = Profile(sub(person), **claims(person))
    return SessionRecord.begin(profile, now=time.time(), login=f"bench{number}")


def main() -> None:
    """Read the order, write the cookies."""
    order = json.load(sys.stdin)
    print("\n".join(cookies(**order)))


if __name__ == "__main__":
    main()
