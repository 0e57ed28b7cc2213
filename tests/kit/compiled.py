"""The modules that a build may compile, and which of them are."""

import importlib
import tomllib
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

ROOT = Path(__file__).parents[2]


def compilable() -> Sequence[str]:
    """Return the paths of the modules that a build may compile, as pyproject.toml has them."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found: list[str] = told["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["mypyc"][
        "include"
    ]
    return found


def interpreted() -> Sequence[str]:
    """Return the paths of those that are not compiled in this process."""
    return [path for path in compilable() if not _is_compiled(path)]


def _is_compiled(path: str) -> bool:
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    return str(module.__file__).endswith(tuple(EXTENSION_SUFFIXES))
