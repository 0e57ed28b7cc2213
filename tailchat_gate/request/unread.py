"""What a browser says of itself in bytes that cannot be read as a request; pure.

It chooses how the refusal is said, a page or JSON and in which language, and decides nothing else.
"""

import re
from collections.abc import Mapping
from typing import Final

#: More is not looked at: what is longest in a head that is too long need not be searched.
_MOST: Final = 65_536
_WANTED: Final = re.compile(rb"\n(accept|accept-language):[ \t]*([^\r\n]{1,1024})", re.IGNORECASE)


def glimpse(sent: bytes) -> Mapping[str, str]:
    """Return the Accept and Accept-Language fields of the first head in `sent`, as they stand."""
    head = sent[:_MOST].partition(b"\r\n\r\n")[0]
    found = _WANTED.findall(head)
    return {name.decode("ascii").title(): value.decode("latin-1") for name, value in found}
