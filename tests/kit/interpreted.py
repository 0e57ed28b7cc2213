"""Marks the tests of what the request path has only as Python, not where a build compiled it.

A number that tests set is not Final in its module: compiled code would have it written into it.
"""

import pytest

from tailchat_gate.request import readings

#: For what is proven by the steps that the interpreter tells of: a compiled function tells of none.
counts_pythons_steps = pytest.mark.skipif(
    not readings.__file__.endswith(".py"), reason="counts Python's instructions"
)
