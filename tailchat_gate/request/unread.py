"""What a browser says of itself in bytes that cannot be read as a request; pure.

It chooses how the refusal is said, a page or JSON and in which language, and whether a head that is
too large is a person's order to clear the cookies that make it so; it decides nothing else.
"""

import re
from collections.abc import Mapping
from typing import Final

from tailchat_gate.syntax import HOST_PREFIX, LANGUAGE_COOKIE

#: More is not looked at: what is longest in a head that is too long need not be searched.
_MOST: Final = 65_536
_WANTED: Final = re.compile(
    rb"\n(accept|accept-language|host|origin|sec-fetch-(?:dest|mode|site)):[ \t]*([^\r\n]{1,1024})",
    re.IGNORECASE,
)
#: What a visitor chose, wherever it stands among cookies that may be too many.
_CHOSEN: Final = re.compile(
    rf"[ ;:]((?:{HOST_PREFIX})?{LANGUAGE_COOKIE}=[A-Za-z-]{{2,16}})(?=[;\r])".encode("ascii")
)


def glimpse(sent: bytes) -> Mapping[str, str]:
    """Return some fields of the first head in `sent`, as they stand; one that is repeated, as one.

    Those that say how to answer, which host was asked for, and which page sent the request; of the
    cookies that of the language alone.
    """
    head = sent[:_MOST].partition(b"\r\n\r\n")[0]
    found: dict[str, str] = {}
    for raw, value in _WANTED.findall(head):
        name, text = raw.decode("ascii").title(), value.decode("latin-1")
        found[name] = f"{found[name]}, {text}" if name in found else text
    if (chosen := _CHOSEN.search(head)) is not None:
        found["Cookie"] = chosen[1].decode("ascii")
    return found
