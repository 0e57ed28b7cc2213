"""Writes the locks and ended sessions that years of use leave behind, with the gate's own code.

Standard input: JSON with `count`, `sub` and `directory`. The gate's store in that directory gets
`count` people who are locked out, as many sessions that are over, and one of the person `sub`.
"""

import json
import sys
import time
from pathlib import Path

from tailchat_gate.identity.revocation.records import to_record
from tailchat_gate.identity.revocation.state import EndedSession, Entry, Lock
from tailchat_gate.state.sqlite.database import Database
from tailchat_gate.state.sqlite.files import Files
from tailchat_gate.state.store import Record

_LIFETIME = 12 * 3600


def records(count: int, sub: str, now: int) -> list[Record]:
    """Return the records; `now` is in Unix seconds."""
    until = now + _LIFETIME
    entries: list[Entry] = [EndedSession("another", sub, now, until)]
    for number in range(count):
        entries.append(Lock(f"sub:44{number:022d}", now, None, "gone"))
        entries.append(EndedSession(f"ended{number}", f"55{number:022d}", now, until))
    return [to_record(entry) for entry in entries]


def main() -> None:
    """Read the order, write the store."""
    order = json.load(sys.stdin)
    files = Files(Path(order["directory"]))
    files.prepare()
    database = Database(files, time.time, {})
    database.open()
    database.write(records(order["count"], order["sub"], int(time.time())))
    database.close()


if __name__ == "__main__":
    main()
