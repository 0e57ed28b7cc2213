"""Errors, parameters and the signing key of the stand-in Tailchat's OAuth and OpenID Connect."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final
from urllib.parse import parse_qsl

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

#: The `kid` of oidc-provider's published development key, which a stock Tailchat uses.
KEY_ID: Final = "keystore-CHANGE-ME"

BAD_REQUEST: Final = 400
UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403
SERVER_ERROR: Final = 500

FORM: Final = "application/x-www-form-urlencoded"
#: The largest form, in bytes (oidc-provider: 56kb).
MAX_BODY: Final = 56 * 1024


class SigningKey:
    """The RSA key that signs id_tokens, made at start; that of a stock Tailchat is published."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = json.loads(RSAAlgorithm.to_jwk(self._key.public_key()))
        self.jwks: Mapping[str, object] = {
            "keys": [
                {
                    "kty": "RSA",
                    "use": "sig",
                    "kid": KEY_ID,
                    "alg": "RS256",
                    "e": public["e"],
                    "n": public["n"],
                }
            ]
        }

    def sign(self, claims: dict[str, object]) -> str:
        """Return the claims as a JWT, signed with RS256."""
        return jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": KEY_ID})


class OAuthError(Exception):
    """An error response (RFC 6749 section 5.2, RFC 6750 section 3.1).

    `error` is the code, `description` the text, None for none, `status` the HTTP status, and
    `scope` the scope that the response names, "" for none.
    """

    def __init__(
        self, error: str, description: str | None, status: int = BAD_REQUEST, scope: str = ""
    ) -> None:
        super().__init__(error, description)
        self.error = error
        self.description = description
        self.status = status
        self.scope = scope

    def members(self) -> dict[str, str]:
        """Return the response's members in the real Tailchat's order."""
        error = {"error": self.error}
        if self.description is not None:
            error["error_description"] = self.description
        if self.scope:
            error["scope"] = self.scope
        return error


def bad_request(description: str) -> OAuthError:
    """Return the error `invalid_request`."""
    return OAuthError("invalid_request", description)


def server_error() -> OAuthError:
    """Return the error for an internal failure (Tailchat: Redis is down, the user is deleted)."""
    return OAuthError("server_error", "oops! something went wrong", SERVER_ERROR)


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters of a query or a form: `values` by name, and the names that occur `twice`.

    An empty value counts as missing (RFC 6749 section 3.1).
    """

    values: Mapping[str, str]
    twice: Collection[str] = ()

    @classmethod
    def parse(cls, text: str) -> "Parameters":
        """Read a urlencoded text; invalid UTF-8 is replaced, never refused."""
        values: dict[str, str] = {}
        twice: dict[str, None] = {}
        for name, value in parse_qsl(text, keep_blank_values=True):
            if name in values:
                twice[name] = None
            values[name] = value
        return cls(MappingProxyType(values), tuple(twice))

    def get(self, name: str) -> str | None:
        """Return the value; None if it is missing, empty or given twice."""
        return None if name in self.twice else self.values.get(name) or None

    def must_be_single(self, names: Collection[str]) -> None:
        """Raise OAuthError if one of `names` is given twice."""
        repeated = [name for name in self.twice if name in names]
        if repeated:
            word = "parameter" if len(repeated) == 1 else "parameters"
            raise bad_request(f"{listed(repeated)} {word} must not be provided twice")

    def must_have(self, *names: str) -> None:
        """Raise OAuthError if one of `names` is missing."""
        missing = [name for name in names if self.get(name) is None]
        if missing:
            word = "parameter" if len(missing) == 1 else "parameters"
            raise bad_request(f"missing required {word} {listed(missing)}")


def listed(names: Sequence[str]) -> str:
    """Return names as an English list, each in quotes."""
    quoted = [f"'{name}'" for name in names]
    if len(quoted) <= 1:
        return "".join(quoted)
    if len(quoted) == 2:  # noqa: PLR2004 - two take no comma
        return " and ".join(quoted)
    return f"{', '.join(quoted[:-1])}, and {quoted[-1]}"


def check_callbacks(redirect_uris: Iterable[str]) -> None:
    """Raise OAuthError if one is blank: in Tailchat that breaks every call of the app."""
    if not all(redirect_uris):
        raise OAuthError("invalid_redirect_uri", "redirect_uris must only contain strings")


def check_proof_format(value: str, name: str) -> None:
    """Raise OAuthError unless `value` is a PKCE verifier or challenge by RFC 7636 section 4.1."""
    least, most = 43, 128
    if len(value) < least:
        raise bad_request(f"{name} must be a string with a minimum length of {least} characters")
    if len(value) > most:
        raise bad_request(f"{name} must be a string with a maximum length of {most} characters")
    if not all(char.isascii() and (char.isalnum() or char in "_.-~") for char in value):
        raise bad_request(f"{name} contains invalid characters")
