"""Makes the collection of tests cheaper, by making the garbage collector run less."""

import gc
from typing import Final

#: The garbage collector runs after this many new objects.
_OBJECTS: Final = 10_000


def begin() -> None:
    """Stop the garbage collector while pytest collects tests, which all stay until the end."""
    gc.disable()


def end() -> None:
    """Let the garbage collector examine only objects that are made from now on."""
    gc.collect()
    gc.freeze()
    gc.enable()
    # The tests make many short-lived objects and few that stay: running after each 700 new objects,
    # as usual, takes a twelfth of the time.
    gc.set_threshold(_OBJECTS)
