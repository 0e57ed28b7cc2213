"""A process that ends sessions in the locks' file, and says of each when it is written.

    lock_writer.py FILE NAME COUNT ROOM

ROOM is how many bytes the file may have before it is made shorter; with every entry come some
whose time is over, so that there is always something to leave out.
"""

import sys
import time
from pathlib import Path

from tailchat_gate.identity.lock_file import LockFile
from tailchat_gate.identity.locks import EndedSession


def main() -> None:
    """Write COUNT entries of NAME's, each under a sub of its own."""
    path, name, count, room = sys.argv[1:]
    file = LockFile(Path(path), time.time, room=int(room))
    now = int(time.time())
    for number in range(int(count)):
        over = [EndedSession(str(n), "over", now - 9, now - 1) for n in range(8)]
        file.append((EndedSession(name, f"{name}-{number}", now, now + 3600), *over))
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
