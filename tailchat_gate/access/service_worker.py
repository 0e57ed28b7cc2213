"""Which service workers could take the steps of a sign-in out of the browser's hands.

A worker answers every navigation whose path begins with its scope, and reads its address: a code
or a pass in it would be a script's. The scope is at most the directory of the worker's script, or
what Service-Worker-Allowed in the reply to that script says (Service Workers, "Path restriction").
"""

import re
from typing import Final

from tailchat_gate.syntax import PREFIX

#: An absolute path that every reader of URLs reads alike: no escape, no empty or dot segment, no
#: backslash, which browsers take for a slash. Any other value is not proven harmless.
_PLAIN_SCOPE: Final = re.compile(f"{PREFIX}/?".encode("ascii"))

#: Runs in place of a worker that is refused: it ends the one that the browser has from before,
#: which a status of 4xx would leave in force, and its registration fails with these words.
REFUSING_SCRIPT: Final = b"""\
// A service worker over this whole site would also take the steps of the sign-in, so Tailchat Gate
// refuses it and ends one that is there from before.
self.registration.unregister();
throw new Error("Tailchat Gate: no service worker may cover the paths of the gate; "
  + "put its script into a directory of the tool.");
"""


class WorkerScopes:
    """Judges scripts of service workers and scopes by the prefix of the gate's own paths."""

    def __init__(self, prefix: str) -> None:
        self._own = f"{prefix}/"

    def script_takes_in(self, path: str) -> bool:
        """Tell whether a worker whose script has this raw path may have a scope over the gate's."""
        return self._own.startswith(path[: path.rfind("/") + 1])

    def may_allow(self, scope: bytes) -> bool:
        """Tell whether a value of Service-Worker-Allowed surely lets no worker over the gate's."""
        own = self._own.encode("ascii")
        if _PLAIN_SCOPE.fullmatch(scope) is None:
            return False
        # Scopes are compared letter by letter, not by segments: "/oa" covers "/oauth2/callback".
        return not own.startswith(scope) and not scope.startswith(own)
