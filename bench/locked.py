"""Writes the locks and ended sessions that years of use leave behind, with the gate's own code.

Standard input: JSON with `count` and `sub`. Standard output: the lines of a gate's file of locks:
`count` people who are locked out, as many sessions that are over, and one of the person `sub`.
"""

import json
import sys
import time

from tailchat_gate.identity.lock_lines import to_line
from tailchat_gate.identity.locks import EndedSession, Entry, Lock

_LIFETIME = 12 * 3600


def lines(count: int, sub: str, now: int) -> list[bytes]:
    """Return the lines; `now` is in Unix seconds."""
    until = now + _LIFETIME
    entries: list[Entry] = [EndedSession("another", sub, now, until)]
    for number in range(count):
        entries.append(Lock(f"sub:44{number:022d}", now, None, "gone"))
        entries.append(EndedSession(f"ended{number}", f"55{number:022d}", now, until))
    return [to_line(entry) for entry in entries]


def main() -> None:
    """Read the order, write the lines."""
    order = json.load(sys.stdin)
    sys.stdout.buffer.writelines(lines(order["count"], order["sub"], int(time.time())))


if __name__ == "__main__":
    main()
