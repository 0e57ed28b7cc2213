"""The signed identity: a short-lived JWT by which a tool can check who the gate says is asking.

Whom it is for, what it holds and how keys are changed: docs/adr/0010-signed-identity.md.
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
#: Seconds for which whoever checks assertions may keep the key set.
KEY_SET_MAX_AGE: Final = 300
#: A person chooses this one; the whole should stay near 1 KiB, as servers bound their heads.
_MAX_NICKNAME_BYTES: Final = 96
_HASH_BYTES: Final = 16
_JTI_BYTES: Final = 16
_COORDINATE_BYTES: Final = 32
#: An assertion is made anew while this many seconds of it are left, or half of it.
_RENEW_BEFORE: Final = 60.0
_ALGORITHM: Final = "ES256"


class SigningKey:
    """An EC P-256 key: `kid` names it by its own value (RFC 7638), `jwk` is its public half."""

    __slots__ = ("_headers", "_private", "jwk", "kid")

    def __init__(self, private: EllipticCurvePrivateKey) -> None:
        self._private = private
        point = private.public_key().public_numbers()
        x, y = (base64url(n.to_bytes(_COORDINATE_BYTES, "big")) for n in (point.x, point.y))
        members = {"crv": "P-256", "kty": "EC", "x": x, "y": y}
        self.kid: Final = base64url(hashlib.sha256(_json(members)).digest())
        self.jwk: Final = {**members, "use": "sig", "alg": _ALGORITHM, "kid": self.kid}
        self._headers = {"kid": self.kid}
        # PyJWT imports what it needs with its first signature, which must not be in a request.
        self.sign({})

    def __repr__(self) -> str:
        """The public name, never the key."""
        return f"<SigningKey {self.kid}>"

    def sign(self, claims: Mapping[str, object]) -> bytes:
        """Return the JWT of some claims."""
        token = jwt.PyJWS().encode(_json(claims), self._private, _ALGORITHM, self._headers)
        return token.encode("ascii")


class PublishedKeys:
    """Since when each key has been in the key set; it outlives a reload of the configuration."""

    def __init__(self) -> None:
        self.since: dict[str, float] = {}

    def publish(self, kids: Iterable[str], now: float) -> None:
        """Note that these keys, and no others, are in the key set from now on."""
        self.since = {kid: self.since.get(kid, now) for kid in kids}


def signer(ring: Sequence[str], published_since: Mapping[str, float], now: float) -> str:
    """Return the kid of the key that signs at `now`.

    `ring`: the kids in the order of the configuration, at least one. A key signs when everybody
    who checks can know it: when the key set without it is out of every cache. The first such
    signs; where there is none, as at a start, the one that has been published longest. A key that
    is not published, as those of a configuration that was replaced may be, counts as the newest.
    """
    since = [published_since.get(kid, math.inf) for kid in ring]
    for kid, published in zip(ring, since, strict=True):
        if now >= published + KEY_SET_MAX_AGE:
            return kid
    return ring[since.index(min(since))]


class Minted(NamedTuple):
    """An assertion's header line, when it was made, and from when on a new one is to be made.

    Times are Unix seconds.
    """

    line: bytes
    made_at: float
    renew_at: float


class Assertions:
    """Makes assertions for one configuration.

    `keys`: at least one, in the order of the configuration; they have to be `published` before
    one of them signs, which is when the configuration comes into force. `issuer` is the gate's
    public origin, `lifetime` in seconds. `clock` gives Unix seconds, `random_bytes` so many
    random bytes.
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
        # One that ends with its session could only be followed by the same again.
        early = min(_RENEW_BEFORE, self._lifetime / 2) if ends_at < who.ends_at else 0.0
        return Minted(line, now, ends_at - early)


def _about(who: Visitor | Machine, groups: Sequence[str]) -> dict[str, object]:
    """Return the claims that say who it is."""
    if isinstance(who, Machine):
        return {"sub": f"token:{who.name}", "token": who.name, "groups": []}
    record = who.record
    # The session's own name would let a tool that logs it tell sessions apart for somebody else.
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
