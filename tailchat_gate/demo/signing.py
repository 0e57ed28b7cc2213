"""Signs the stand-in Tailchat's id_tokens."""

import json
from collections.abc import Mapping
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

KEY_ID: Final = "keystore-CHANGE-ME"
"""The `kid` of oidc-provider's published development key, which every stock Tailchat names."""


class SigningKey:
    """The RSA key that signs id_tokens, made at start; a real Tailchat's is published."""

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
