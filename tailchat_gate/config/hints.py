"""Commands to run where a setting cannot be used."""

import re
from types import MappingProxyType
from typing import Final

from tailchat_gate.config.keys import ENV_PREFIX
from tailchat_gate.config.problems import Problem
from tailchat_gate.config.values.identifier import SUB

_IDS: Final = (
    "an ID is on the page /oauth2/userinfo of its person, and in the list of "
    "`tailchat-gate refusals`; `tailchat-gate tailchat-groups` lists groups"
)
#: By the key, as `key_path` or as its variable.
_COMMANDS: Final = MappingProxyType(
    {
        re.compile(r"session\.secrets?(?:\[[0-9]+\])?"): "`tailchat-gate secret` prints a new one",
        re.compile(r"token\[[0-9]+\]\.hash"): "`tailchat-gate token NAME` prints a token's",
        re.compile(r"groups\..*"): _IDS,
    }
)
#: Words of a problem that says itself what to do.
_SAID: Final = ("`tailchat-gate", "did you mean", "is set too")
_NO_FILE: Final = "`tailchat-gate init` writes a first one; --config names another"


def hint_for(problem: Problem) -> str:
    """Return what to run for a problem, "" for nothing or where the problem says it itself."""
    if not problem.expected or any(said in str(problem) for said in _SAID):
        return ""
    if problem.found.startswith(f'"{SUB}'):
        return _IDS
    if problem.found == "No such file or directory" and "configuration" in problem.expected:
        return _NO_FILE
    key = problem.key_path
    if key.startswith(ENV_PREFIX):
        key = key.removeprefix(ENV_PREFIX).lower().replace("__", ".")
    return next((said for known, said in _COMMANDS.items() if known.fullmatch(key)), "")
