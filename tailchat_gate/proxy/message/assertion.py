"""The signed identity: a short-lived JWT by which a tool can verify who sent a request.

Its purpose, its claims and key rotation: docs/adr/0010-signed-identity.md.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from tailchat_gate.identity.authenticator import Visitor
from tailchat_gate.identity.machine_tokens import Machine
from tailchat_gate.syntax import COMPACT, base64url

HEADER: Final = b"X-Tailchat-Assertion"
#: Seconds for which a verifier may cache the key set.
KEY_SET_MAX_AGE: Final = 300
#: A person chooses the nickname; the assertion should stay near 1 KiB, as servers limit heads.
_MAX_NICKNAME_BYTES: Final = 96
_HASH_BYTES: Final = 16
_JTI_BYTES: Final = 16
_COORDINATE_BYTES: Final = 32
#: An assertion is renewed this many seconds before it expires, or at half of its lifetime.
_RENEW_BEFORE: Final = 60.0
_ALGORITHM: Final = "ES256"


class SigningKey:
    """An EC P-256 key: `kid` is its thumbprint (RFC 7638), `jwk` its public half."""

    __slots__ = ("_headers", "_private", "jwk", "kid")

    def __init__(self, private: EllipticCurvePrivateKey) -> None:
        self._private = private
        point = private.public_key().public_numbers()
        x, y = (base64url(n.to_bytes(_COORDINATE_BYTES, "big")) for n in (point.x, point.y))
        members = {"crv": "P-256", "kty": "EC", "x": x, "y": y}
        self.kid: Final = base64url(hashlib.sha256(_json(members)).digest())
        self.jwk: Final = {**members, "use": "sig", "alg": _ALGORITHM, "kid": self.kid}
        self._headers = {"kid": self.kid}
        # PyJWT imports modules at its first signature, which must not happen during a request.
        self.sign({})

    def __repr__(self) -> str:
        """Show the key ID, never the key."""
        return f"<SigningKey {self.kid}>"

    def sign(self, claims: Mapping[str, object]) -> bytes:
        """Return the signed JWT of `claims`."""
        token = jwt.PyJWS().encode(_json(claims), self._private, _ALGORITHM, self._headers)
        return token.encode("ascii")


class PublishedKeys:
    """The time since which each key has been in the key set; it survives a reload."""

    def __init__(self) -> None:
        self.since: dict[str, float] = {}

    def publish(self, kids: Iterable[str], now: float) -> None:
        """Record that exactly these keys are in the key set from now on."""
        self.since = {kid: self.since.get(kid, now) for kid in kids}


def signer(ring: Sequence[str], published_since: Mapping[str, float], now: float) -> str:
    """Return the kid of the key that signs at `now`.

    `ring`: the kids in the order of the configuration, at least one. A key may sign once every
    verifier can know it, that is, when each cached key set without it has expired. The first such
    key signs. If there is none, as at a start, the key that was published first signs. A key that
    is not published, as after a reload without it, counts as the newest.
    """
    since = [published_since.get(kid, math.inf) for kid in ring]
    for kid, published in zip(ring, since, strict=True):
        if now >= published + KEY_SET_MAX_AGE:
            return kid
    return ring[since.index(min(since))]


class Minted(NamedTuple):
    """An assertion's header line, when it was made, and when to renew it.

    Times are Unix seconds.
    """

    line: bytes
    made_at: float
    renew_at: float


class Assertions:
    """Makes assertions for one configuration.

    `keys`: at least one, in the order of the configuration; they must be in `published` before one
    of them signs, which happens when the configuration comes into force. `issuer` is the gate's
    public origin, `lifetime` is in seconds. `clock` returns Unix seconds, `random_bytes(n)`
    returns n random bytes.
    """

    def __init__(
        self,
        keys: Sequence[SigningKey],
        published: PublishedKeys,
        *,
        issuer: str,
        lifetime: float,
        clock: Callable[[], float],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self.clock: Final = clock
        self._issuer = issuer
        self.key_set: Final = _json({"keys": [key.jwk for key in keys]})
        self._keys = {key.kid: key for key in keys}
        self.kids: Final = tuple(self._keys)
        self._published = published
        self._lifetime = lifetime
        self._random_bytes = random_bytes

    def mint(self, who: Visitor | Machine, groups: Sequence[str], audience: str) -> Minted:
        """Return a new assertion for `audience`; it ends no later than the session or token."""
        now = self.clock()
        ends_at = min(now + self._lifetime, who.ends_at)
        claims = {
            "iss": self._issuer,
            "aud": audience,
            **_about(who, groups),
            "jti": base64url(self._random_bytes(_JTI_BYTES)),
            "iat": int(now),
            "nbf": int(now),
            "exp": int(ends_at),
        }
        key = self._keys[signer(self.kids, self._published.since, now)]
        line = b"%b: %b\r\n" % (HEADER, key.sign(claims))
        # Near the end of the session a renewed assertion would have the same end.
        early = min(_RENEW_BEFORE, self._lifetime / 2) if ends_at < who.ends_at else 0.0
        return Minted(line, now, ends_at - early)


def _about(who: Visitor | Machine, groups: Sequence[str]) -> dict[str, object]:
    """Return the claims about the visitor."""
    if isinstance(who, Machine):
        return {"sub": f"token:{who.name}", "token": who.name, "groups": []}
    record = who.record
    # A hash, because the session's own ID must not get into a tool's logs.
    sid = hashlib.sha256(b"tailchat-gate sid " + record.sid.encode()).digest()[:_HASH_BYTES]
    return {
        "sub": record.sub,
        "nickname": _cut(record.nickname),
        "groups": list(groups),
        "sid": base64url(sid),
    }


def _cut(text: str) -> str:
    return text.encode("utf-8", "ignore")[:_MAX_NICKNAME_BYTES].decode("utf-8", "ignore")


def _json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=COMPACT).encode()
