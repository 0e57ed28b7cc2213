"""Completes the commands that the gate's texts suggest, so that they work as they are printed."""

import re
import shlex
from pathlib import Path
from typing import Final

from tailchat_gate.config.overlay import DEFAULT_CONFIG

PROGRAM: Final = "tailchat-gate"
#: The commands that read the configuration.
READERS: Final = frozenset(
    (
        *("serve", "reload", "upgrade", "health", "check", "routes", "lock", "unlock", "locks"),
        *("sign-out", "sessions", "grant", "revoke", "grants", "requests", "forget"),
        *("tailchat-groups", "doctor", "explain", "refusals"),
    )
)
#: A command without the option already.
_SUGGESTED: Final = re.compile(
    rf"(?<![\w./-]){PROGRAM} ([a-z][a-z0-9-]*)(?![^\n`]* (?:--config|-c)\b)"
)


def completed(text: str, config: Path | None, program: str = PROGRAM) -> str:
    """Return `text` with its commands as the reader has to type them.

    `config` is the file they must read, None for the usual one; `program` is what to type for the
    gate.
    """
    option = "" if config in {None, DEFAULT_CONFIG} else f" --config {shlex.quote(str(config))}"

    def typed(command: re.Match[str]) -> str:
        return f"{program} {command[1]}{option if command[1] in READERS else ''}"

    return _SUGGESTED.sub(typed, text)
