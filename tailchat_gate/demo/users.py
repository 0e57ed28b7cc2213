"""The people of the stand-in Tailchat: each name or picture is one that a real server lets pass."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class User:
    """One account.

    `sub`: 24 hexadecimal digits (Tailchat: a MongoDB ObjectId). `name`: how the demo's own pages
    call the account, plain ASCII. `claims`: what `/open/me` says beside `sub`; a key that is not
    there is missing in the answer, too.
    """

    sub: str
    name: str
    email: str
    password: str = field(repr=False)
    claims: Mapping[str, str | None]


def _user(number: int, name: str, **claims: str | None) -> User:
    return User(
        sub=f"66{number:022x}",
        name=name,
        email=f"{name}@demo.example",
        password=f"{name}-demo",
        claims=MappingProxyType(claims),
    )


def _picture(number: int) -> str:
    # Tailchat sends the placeholder as it is; who shows the picture has to fill it in.
    return f"{{BACKEND}}/static/files/66{number:022x}/avatar.png"


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
        # 5000 characters: a rename in Tailchat checks no length.
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
"""Accounts for the demo and the tests."""


def user_named(name: str) -> User:
    """Return the account of USERS with that `name`; KeyError without one."""
    for user in USERS:
        if user.name == name:
            return user
    raise KeyError(name)


def as_json(users: Iterable[User] = USERS) -> list[dict[str, object]]:
    """Return the accounts as values that JSON can carry: sub, email, password, claims."""
    return [
        {
            "sub": user.sub,
            "email": user.email,
            "password": user.password,
            "claims": dict(user.claims),
        }
        for user in users
    ]
