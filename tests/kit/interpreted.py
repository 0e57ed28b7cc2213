"""Marks tests that need the request path as Python, not compiled.

A number that tests set is not Final in its module, because compiled code has a copy of a Final one.
"""

import pytest

from tailchat_gate.request import readings

#: For tests that count the interpreter's steps, of which a compiled function reports none.
counts_pythons_steps = pytest.mark.skipif(
    not readings.__file__.endswith(".py"), reason="counts Python's instructions"
)
