"""Starts writers one after another, and kills each in the middle of a write.

    killed_writers.py DIRECTORY COUNT

It forks, so it has one thread, and no database open while it does. What every writer said to be
written has to be there at the end; the last line says how much that is.
"""

import os
import signal
import sys
import time
from pathlib import Path

from tailchat_gate.state.sqlite.database import Database
from tailchat_gate.state.sqlite.files import Files
from tailchat_gate.state.store import Record


def _write(files: Files, first: int, out: int) -> None:
    """Write records until killed, and say of each when it is written."""
    database = Database(files, time.time, {})
    database.open()
    for number in range(first, first + 100_000):
        database.write([Record("note", str(number), "x" * (number % 50 * 40))])
        os.write(out, b"%d\n" % number)


def _killed(files: Files, turn: int) -> set[str]:
    """Return what one writer wrote before it was killed."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _write(files, turn * 100_000, writing)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as lines:
        written = [lines.readline() for _ in range(turn % 5)]
        time.sleep(turn % 11 / 2000)
        os.kill(pid, signal.SIGKILL)
        written.extend(lines)
    os.waitpid(pid, 0)
    return {line.strip() for line in written if line.endswith("\n")}


def main() -> None:
    """Kill writers, and compare what they said with what is there."""
    files, count = Files(Path(sys.argv[1])), int(sys.argv[2])
    files.prepare()
    written: set[str] = set()
    for turn in range(count):
        written |= _killed(files, turn)
    database = Database(files, time.time, {})
    database.open()
    there = {record.key for _, record in database.read_all().rows if record.intact}
    check = database.connection.execute("PRAGMA integrity_check").fetchone()[0]
    database.close()
    sys.stdout.write(f"{len(written)} {len(written - there)} {check}\n")


if __name__ == "__main__":
    main()
