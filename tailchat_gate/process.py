"""How the process is set up for a life of many small requests and some large bodies."""

import ctypes
import gc
from typing import Final

#: Parameters of glibc's mallopt(3).
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
#: Freed memory that is kept, in bytes: a large body comes in pieces of up to 250 kB, and to give
#: each back to the kernel and fetch it anew took a quarter of the CPU time of a download.
_KEPT_MEMORY: Final = 16 << 20
_LARGEST_PIECE: Final = 1 << 20


def prepare() -> None:
    """Tune the collector and the allocator of this process; call it once, before serving."""
    # What the start has made stays for ever: without this the collector looks through all of it
    # again and again, 50 ms at a time.
    gc.collect()
    gc.freeze()
    # Requests leave no cycles behind; looking for some after every 700 objects costs for nothing.
    gc.set_threshold(20_000, 20, 20)
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none, and does not need it
        mallopt(_M_TRIM_THRESHOLD, _KEPT_MEMORY)
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_PIECE)
