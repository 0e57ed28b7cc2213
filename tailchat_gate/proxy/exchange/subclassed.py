"""Lets classes that stay Python inherit from classes that a build may compile."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr as mypyc_attr  # noqa: PLC0414 - others import it here
else:

    def mypyc_attr(**_: bool):  # noqa: ANN201 - the type checker reads the other one
        """Return a decorator that changes nothing: only the compiler reads it, from the source."""
        return lambda decorated: decorated
