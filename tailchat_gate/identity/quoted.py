"""Tells whether a text quotes a secret, as it is or in an encoding that is usual; pure."""

import base64
import html
import re
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import unquote_plus

from tailchat_gate.syntax import VCHAR

MAX_TEXT: Final = 4096
"""Characters of a text that are looked at; none behind them may be shown."""

# Encodings inside of each other, and the readings that are looked at in all.
_DEPTH: Final = 4
_MAX_READINGS: Final = 256
#: A part of a secret that is as long as this tells the secret, too.
_WINDOW: Final = 16
_BASE64: Final = re.compile("[A-Za-z0-9+/_-]{6,}")
_BASE32: Final = re.compile("[A-Z2-7]{10,}|[a-z2-7]{10,}")
_HEX: Final = re.compile("[0-9A-Fa-f]{12,}")
_ESCAPE: Final = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|x([0-9A-Fa-f]{2})|u\{([0-9A-Fa-f]{1,5})\})")
_LEGIBLE: Final = re.compile(f"[{VCHAR}]{{4}}".encode("ascii"))


def quotes_any(text: str, secrets: Iterable[str]) -> bool:
    """Tell whether a text quotes one of `secrets`, or a long part of one.

    Percent-encoding, base64 and base64url, base32, hexadecimal digits, escapes of JSON and of HTML
    are undone, also inside of one another, and what cannot be shown is dropped. A text of more
    readings than are looked at counts as one that does.
    """
    wanted = {part for secret in secrets for part in _parts(secret)}
    readings = {text[:MAX_TEXT]}
    latest = readings
    for _ in range(_DEPTH):
        latest = {found for reading in latest for found in _decoded(reading)} - readings
        readings = readings | latest
        if len(readings) > _MAX_READINGS:
            return True
    return any(part in reading for reading in readings for part in wanted)


def _parts(secret: str) -> Iterator[str]:
    """Yield what tells a secret: the whole of a short one, each longer stretch of others."""
    for start in range(max(1, len(secret) - _WINDOW + 1)):
        if part := secret[start : start + _WINDOW]:
            yield part


def _decoded(text: str) -> Iterator[str]:
    yield "".join(char for char in text if char.isprintable())
    yield "".join(char for char in text if char.isprintable() and not char.isspace())
    if "%" in text or "+" in text:
        yield unquote_plus(text, "latin-1")
    if "\\" in text:
        yield _ESCAPE.sub(lambda found: chr(int(found[1] or found[2] or found[3], 16)), text)
        yield text.replace("\\", "")
    if "&" in text:
        yield html.unescape(text)
    for raw in _unpacked(text):
        if _LEGIBLE.search(raw):
            yield raw.decode("latin-1")


def _unpacked(text: str) -> Iterator[bytes]:
    """Yield what stretches of a text are when they are taken for packed bytes."""
    for stretch in _BASE64.findall(text):
        plain = stretch.replace("-", "+").replace("_", "/")
        for start in range(4):
            part = plain[start:]
            whole = part[: len(part) - (len(part) % 4 == 1)]
            yield base64.b64decode(whole + "=" * (-len(whole) % 4))
    for stretch in _HEX.findall(text):
        for start in range(2):
            part = stretch[start:]
            yield bytes.fromhex(part[: len(part) // 2 * 2])
    for stretch in _BASE32.findall(text):
        for start in range(8):
            part = stretch.upper()[start:]
            # Five bits a character: no number of bytes ends after one, three or six of eight.
            whole = part[: len(part) - (len(part) % 8 in (1, 3, 6))]
            yield base64.b32decode(whole + "=" * (-len(whole) % 8))
