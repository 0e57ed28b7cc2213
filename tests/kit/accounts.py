"""The accounts of the stand-in Tailchat, as tests find, copy and revoke them."""

from typing import Final

from tailchat_gate.demo.store import Store
from tailchat_gate.demo.users import USERS, User

_BY_NAME: Final = {user.name: user for user in USERS}


def user_named(name: str) -> User:
    """Return the account of this name; raises KeyError without one."""
    return _BY_NAME[name]


def accounts_as_json() -> list[dict[str, object]]:
    """Return the accounts as JSON values: sub, email, password, claims."""
    return [
        {
            "sub": user.sub,
            "email": user.email,
            "password": user.password,
            "claims": dict(user.claims),
        }
        for user in USERS
    ]


def revoke_user(store: Store, sub: str) -> None:
    """End every grant of a user, as happens after 14 days or when Redis is emptied."""
    store.grants.drop(lambda grant: grant.sub == sub)
    for shelf in (store.codes, store.access_tokens, store.refresh_tokens):
        shelf.drop(lambda token: token.sub == sub)
