"""Keeps byte code, where Python is told not to: to compile takes longer than to run.

Images of Python are told so, and the processes that share the tests, and the programs that tests
start, would compile every module each time. It has to be imported before the other modules.
"""

import os
import sys
from pathlib import Path

if sys.dont_write_bytecode:
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(Path(__file__).parents[2] / "build" / "bytecode")
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
