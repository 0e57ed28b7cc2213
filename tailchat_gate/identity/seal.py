"""Seals small byte strings so that only this gate can read or make them."""

import secrets as randomness
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tailchat_gate.config.values.secret import MIN_SECRET
from tailchat_gate.syntax import base64url, from_base64url

#: Longest token in characters, made or read: more than any cookie or state needs.
MAX_TOKEN: Final = 8192

_VERSION: Final = b"\x01"
_ID_BYTES: Final = 4
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_HEAD_BYTES: Final = len(_VERSION) + _ID_BYTES + _NONCE_BYTES


def new_secret() -> str:
    """Return a fresh secret: 32 random bytes as 43 characters of base64url."""
    return randomness.token_urlsafe(32)


class KeyRing:
    """Authenticated encryption for one purpose, with keys that can be rotated.

    `secrets`: at least one, each of at least 32 bytes; the first seals, all open.
    `purpose`: separates keys, so that a session is never taken for a login state.

    Token: base64url without padding of version (1 byte), key id (4), random nonce (12),
    AES-256-GCM ciphertext with its 16-byte tag; version and purpose are authenticated too.
    HKDF-SHA256 (RFC 5869) derives key and key id from the secret.

    One secret may seal at most 2^32 tokens per purpose: nonces are random, and beyond that
    number the chance that two of them are equal, which would break GCM, rises above 2^-32
    (NIST SP 800-38D, 8.3). That is 136 years of one token per second.

    Raises ValueError if there is no secret or one is too short.
    """

    __slots__ = ("_aad", "_keys", "_purpose", "_sealing", "_sealing_id")

    def __init__(self, secrets: Sequence[bytes], purpose: str) -> None:
        if not secrets:
            raise ValueError("a key ring needs at least one secret")
        if any(len(secret) < MIN_SECRET for secret in secrets):
            raise ValueError(f"a secret needs at least {MIN_SECRET} bytes")
        derived = [_derive(secret, purpose) for secret in secrets]
        self._purpose = purpose
        self._aad = _VERSION + purpose.encode()
        self._sealing_id, self._sealing = derived[0]
        # Two secrets share a key id once in 2^32, so all keys of an id are tried.
        self._keys: dict[bytes, tuple[AESGCM, ...]] = {}
        for key_id, key in derived:
            self._keys[key_id] = (*self._keys.get(key_id, ()), key)

    def __repr__(self) -> str:
        """Purpose and number of key ids, never a key."""
        return f"<KeyRing {self._purpose!r}, {len(self._keys)} keys>"

    def seal(self, data: bytes) -> str:
        """Return `data` as a token. Raises ValueError if the token is longer than MAX_TOKEN."""
        # The nonce is not an argument, unlike other randomness: a repeated one breaks GCM.
        nonce = randomness.token_bytes(_NONCE_BYTES)
        sealed = self._sealing.encrypt(nonce, data, self._aad)
        token = base64url(_VERSION + self._sealing_id + nonce + sealed)
        if len(token) > MAX_TOKEN:
            raise ValueError(f"{len(data)} bytes make a token of more than {MAX_TOKEN} characters")
        return token

    def open(self, token: str) -> bytes | None:
        """Return the data in a token, None if it is not authentic; never raises."""
        raw = _decode(token)
        if raw is None or len(raw) < _HEAD_BYTES + _TAG_BYTES or raw[:1] != _VERSION:
            return None
        nonce, sealed = raw[1 + _ID_BYTES : _HEAD_BYTES], raw[_HEAD_BYTES:]
        for key in self._keys.get(raw[1 : 1 + _ID_BYTES], ()):
            try:
                return key.decrypt(nonce, sealed, self._aad)
            except InvalidTag:
                continue
        return None


def _derive(secret: bytes, purpose: str) -> tuple[bytes, AESGCM]:
    """Return (key id, key) of one secret for one purpose."""
    info = b"tailchat-gate seal 1 " + purpose.encode()
    # The id comes from the same output stream: HKDF is a PRF, so it reveals nothing of the key.
    stream = HKDF(SHA256(), length=32 + _ID_BYTES, salt=None, info=info).derive(secret)
    return stream[32:], AESGCM(stream[:32])


def _decode(token: str) -> bytes | None:
    """Decode the spelling that `base64url` makes; None for any other spelling of the bytes."""
    if len(token) > MAX_TOKEN or not token.isascii():
        return None
    try:
        return from_base64url(token)
    except ValueError:
        return None
