"""The users of the stand-in Tailchat, and their pictures."""

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

_SIDE: Final = 64
_RADIUS: Final = 20


def picture(sub: str) -> bytes:
    """Return a PNG of 64 x 64 pixels: a disc on a background, in two shades set by the sub."""
    mark = zlib.crc32(sub.encode()).to_bytes(4, "big")[:3]
    ground, disc = bytes(128 + value // 2 for value in mark), bytes(value // 2 for value in mark)
    rows = bytearray()
    for y in range(_SIDE):
        rows.append(0)  # this row is not filtered (PNG section 9.2)
        for x in range(_SIDE):
            inside = (x - _SIDE // 2) ** 2 + (y - _SIDE // 2) ** 2 < _RADIUS**2
            rows += disc if inside else ground
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(rows))),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


@dataclass(frozen=True, slots=True)
class User:
    """One account.

    `sub` has 24 hexadecimal digits (Tailchat: a MongoDB ObjectId). `name` is the plain ASCII name
    on the demo's own pages. `claims` are the members of `/open/me` besides `sub`. `kind` is
    normalUser, openapiBot or pluginBot. `temporary`: a guest.
    """

    sub: str
    name: str
    email: str
    password: str = field(repr=False)
    claims: Mapping[str, str | None]
    email_verified: bool = False
    banned: bool = False
    temporary: bool = False
    kind: str = "normalUser"


def _user(number: int, name: str, **claims: str | None) -> User:
    return User(
        sub=f"66{number:022x}",
        name=name,
        email=f"{name}@demo.example",
        password=f"{name}-demo",
        claims=MappingProxyType(claims),
    )


def _picture(number: int) -> str:
    # Tailchat sends this placeholder unchanged; the app has to replace it.
    return f"{{BACKEND}}/static/files/66{number:022x}/avatar.png"


#: Accounts for the demo and the tests.
USERS: Final[tuple[User, ...]] = (
    _user(1, "hoshino", nickname="星野 Hoshino ☆", discriminator="0042", avatar=_picture(1)),
    _user(2, "bob", nickname="Plain Bob", discriminator="7"),
    _user(
        3,
        "family",
        nickname='👩\u200d👩\u200d👧\u200d👦 "O\'Neil", 50%<b>',
        discriminator="0003",
        avatar=None,
    ),
    _user(
        4,
        "eve",
        nickname="Eve\r\nX-Evil: 1",
        discriminator="0004",
        avatar="{BACKEND}/static/files/eve.png\r\nX-Evil: 1",
    ),
    _user(
        5,
        "controls",
        nickname="a\x00b\x1b[31mred\x7f\u202etxt.exe\u2066\u200b",
        discriminator="0005",
        avatar="",
    ),
    _user(
        6,
        "long",
        # 5000 characters: Tailchat does not check the length in a rename.
        nickname="Long name " * 495 + "长" * 50,
        discriminator="0006",
        avatar=_picture(6),
    ),
    _user(
        7,
        "empty",
        nickname="",
        discriminator="0007",
        avatar="https://pictures.example.net/empty.png?a=1&b=2",
    ),
    _user(8, "missing", discriminator="0008", avatar="javascript:alert(document.domain)"),
)
