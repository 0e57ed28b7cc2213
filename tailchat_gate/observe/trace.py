"""An error as text, without the lines of source that Python's own traceback reads from files."""

from collections.abc import Iterator
from traceback import format_exception_only, walk_tb

_CAUSED = "\nThe above was the direct cause of:\n\n"
_MEANWHILE = "\nWhile that was handled:\n\n"


def trace(error: BaseException) -> str:
    """Return where an error came from and what it says, those that led to it first.

    A traceback with source lines is written by `traceback`, which opens a file for each: a disk
    that hangs would stop the event loop that logs the error.
    """
    return "".join(_parts(error, set())).rstrip("\n")


def _parts(error: BaseException, seen: set[int]) -> Iterator[str]:
    seen.add(id(error))
    before, link = error.__cause__, _CAUSED
    if before is None and not error.__suppress_context__:
        before, link = error.__context__, _MEANWHILE
    if before is not None and id(before) not in seen:
        yield from _parts(before, seen)
        yield link
    yield "Traceback (most recent call last):\n"
    for frame, line in walk_tb(error.__traceback__):
        code = frame.f_code
        yield f'  File "{code.co_filename}", line {line}, in {code.co_qualname}\n'
    if isinstance(error, BaseExceptionGroup):
        yield f"{type(error).__name__}: {error}\n"
        for inner in error.exceptions:
            yield from _parts(inner, seen)
        return
    yield from format_exception_only(error)
