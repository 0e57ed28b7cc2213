"""What programs write to a terminal."""

import os
import select
from contextlib import suppress
from typing import Final

#: Seconds without a byte after which a terminal is read no further.
TIMEOUT: Final = 60.0


def all_of(terminal: int) -> bytes:
    """Return what is written to a terminal until nobody has it open; `terminal` is our end.

    The kernel may pass on one write in several parts, and later than the writer ends.
    """
    shown = b""
    with suppress(OSError):  # the end of the terminal
        while select.select([terminal], [], [], TIMEOUT)[0]:
            shown += os.read(terminal, 65_536)
    return shown
