"""Lets Python write byte code although PYTHONDONTWRITEBYTECODE is set.

Images of Python set it. The processes that share the tests, and the programs that tests start,
would then compile every module each time, which takes longer than to run it. Import this module
before the others.
"""

import os
import sys
from pathlib import Path

if sys.dont_write_bytecode:
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(Path(__file__).parents[2] / "build" / "bytecode")
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
