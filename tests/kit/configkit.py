"""What the tests of the configuration share: the corpus, good secrets, loading and refusing."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from tailchat_gate.config.load import ConfigError, Loaded, Problem, load

CORPUS = Path(__file__).parents[1] / "data" / "config"
BAD = sorted((CORPUS / "bad").glob("*.toml"))
SESSION_SECRET = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822c"
OTHER_SECRET = "60303ae22b998861bce3b28f33eec1be758a213c86c93c07"
SECRETS = MappingProxyType(
    {
        "TAILCHAT_GATE_TAILCHAT__CLIENT_SECRET": "app-secret",
        "TAILCHAT_GATE_SESSION__SECRET": SESSION_SECRET,
    }
)
SMALLEST = (CORPUS / "good" / "smallest.toml").read_text(encoding="utf-8")


def good(file: Path, **environ: str) -> Loaded:
    """Load a file with the secrets from the environment."""
    named = {f"TAILCHAT_GATE_{name}": value for name, value in environ.items()}
    return load(file, {**SECRETS, **named})


def problems(file: Path, environ: Mapping[str, str] | None = None) -> tuple[Problem, ...]:
    """Return why a configuration is refused."""
    with pytest.raises(ConfigError) as refused:
        load(file, SECRETS if environ is None else environ)
    return refused.value.problems


def refused(file: Path, **environ: str) -> tuple[Problem, ...]:
    """Return why a configuration is refused, with the secrets from the environment."""
    return problems(
        file, {**SECRETS, **{f"TAILCHAT_GATE_{name}": value for name, value in environ.items()}}
    )


def saying(found: tuple[Problem, ...]) -> list[tuple[str, str]]:
    """Return the places and findings of problems."""
    return [(problem.key_path, problem.found) for problem in found]


def write_smallest(folder: Path) -> Path:
    """Write the shortest file, which its owner alone can read, and return its path."""
    file = folder / "gate.toml"
    file.write_text(SMALLEST, encoding="utf-8")
    file.chmod(0o600)
    return file
