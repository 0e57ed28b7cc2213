"""Validates the id_token that may come with an access token.

A valid id_token proves nothing with a stock Tailchat: it signs with the development key that
oidc-provider publishes, so anyone can forge a token that passes here. Only `/open/me` says who the
user is. An invalid id_token still shows that something is wrong, and ends the login.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import jwt

from tailchat_gate.identity.oauth.login import LoginRefused
from tailchat_gate.reasons import Reason
from tailchat_gate.syntax import CLOCK_SKEW, base64url, from_base64url

JsonObject = dict[str, object]


_MAX_TOKEN: Final = 16_384

# alg -> key type, members of the public key (RFC 7518 6.2.1, 6.3.1; RFC 8037 2), curve if it has
# one, and the hash for at_hash (OIDC Core 3.1.3.6; for Ed25519 the hash that Ed25519 uses).
_ALGORITHMS: Final[Mapping[str, tuple[str, tuple[str, ...], str | None, str]]] = {
    "RS256": ("RSA", ("n", "e"), None, "sha256"),
    "PS256": ("RSA", ("n", "e"), None, "sha256"),
    "ES256": ("EC", ("x", "y"), "P-256", "sha256"),
    "EdDSA": ("OKP", ("x",), "Ed25519", "sha512"),
}


@dataclass(frozen=True, slots=True)
class ExpectedClaims:
    """The required claims of one login's id_token.

    `access_token`: the one that came with it, for at_hash.
    """

    issuer: str
    client_id: str
    nonce: str
    access_token: str

    def __repr__(self) -> str:
        """No token, no nonce."""
        return f"<ExpectedClaims {self.issuer!r} for {self.client_id!r}>"


def json_object(data: bytes) -> JsonObject:
    """Return the JSON object in `data`. Raises ValueError for anything else.

    UTF-8 only, and no member twice: two parsers must not read one text differently
    (RFC 8259 4; RFC 7519 4). No NaN or infinity.
    """
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004 - one error for any bad text
    return value


def _unique(pairs: list[tuple[str, object]]) -> JsonObject:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a member came twice")
    return value


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


class UnknownKey(LoginRefused):
    """No key of the set can have signed the token; a newer set might have the key."""

    def __init__(self) -> None:
        super().__init__(Reason.LOGIN_ID_TOKEN, {"claim": "kid"})


class SignedClaims(NamedTuple):
    """The claims of a valid id_token.

    `auth_time`: the Unix second at which the person gave the password, 0 if the token does not say
    (Tailchat says it if the request had prompt=login or max_age).
    """

    sub: str
    auth_time: int


def check_id_token(
    token: str, keys: Sequence[JsonObject], expected: ExpectedClaims, *, now: float
) -> SignedClaims:
    """Validate an id_token and return its claims (OIDC Core 3.1.3.7, 3.1.3.8).

    `keys`: the members of the provider's JWK Set. `now`: Unix seconds.
    Raises LoginRefused("login-id-token") for any fault, `detail["claim"]` naming the part;
    UnknownKey if the set has no key for it.
    """
    header = _header(token)
    claims = _verified(token, header, _matching(keys, header))
    _check_claims(claims, str(header["alg"]), expected, now)
    sub = claims.get("sub")
    if not isinstance(sub, str) or not sub:
        raise _refused("sub")
    auth_time = _seconds(claims.get("auth_time", 0))
    if auth_time is None or auth_time > now + CLOCK_SKEW:
        raise _refused("auth_time")
    return SignedClaims(sub, int(auth_time))


def _refused(claim: str) -> LoginRefused:
    return LoginRefused(Reason.LOGIN_ID_TOKEN, {"claim": claim})


def _header(token: str) -> JsonObject:
    """Return the protected header of a token that is well-formed enough to look up its key."""
    if len(token) > _MAX_TOKEN or not token.isascii() or token.count(".") != 2:  # noqa: PLR2004 - RFC 7515 3.1
        raise _refused("form")
    try:
        header = json_object(from_base64url(token.split(".", maxsplit=1)[0]))
    except ValueError:
        raise _refused("form") from None
    if str(header.get("alg")) not in _ALGORITHMS:
        raise _refused("alg")
    if not isinstance(header.get("kid", ""), str):
        raise _refused("kid")
    if "crit" in header or "b64" in header:
        raise _refused("crit")
    if str(header.get("typ", "JWT")).upper() != "JWT":
        raise _refused("typ")
    return header


def _matching(keys: Sequence[JsonObject], header: Mapping[str, object]) -> list[jwt.PyJWK]:
    """Return the public keys of the right kind and id (RFC 7517 4)."""
    alg, kid = str(header["alg"]), header.get("kid")
    kty, members, curve, _ = _ALGORITHMS[alg]
    matching = []
    for key in keys:
        # Only the public members: a set that holds private ones by mistake still works.
        public = {name: key.get(name) for name in ("kty", "crv", *members)}
        if (
            key.get("kty") == kty
            and key.get("crv") == curve
            and key.get("use", "sig") == "sig"
            and key.get("alg", alg) == alg
            and (kid is None or kid == key.get("kid"))
            and all(isinstance(public[name], str) for name in members)
        ):
            try:
                matching.append(jwt.PyJWK(public, alg))
            except (jwt.PyJWTError, ValueError):
                continue
    # Without a kid there must be only one key (OIDC Core 10.1).
    return matching if kid is not None or len(matching) == 1 else []


def _verified(token: str, header: JsonObject, keys: list[jwt.PyJWK]) -> JsonObject:
    """Return the claims of a token that one of `keys` signed."""
    if not keys:
        raise UnknownKey
    jws = jwt.PyJWS(options={"enforce_minimum_key_length": True})
    for key in keys:
        try:
            return json_object(jws.decode(token, key, algorithms=[str(header["alg"])]))
        except jwt.PyJWTError:
            continue
        except ValueError:
            raise _refused("form") from None
    raise _refused("signature")


def _check_claims(claims: JsonObject, alg: str, expected: ExpectedClaims, now: float) -> None:
    """Raise LoginRefused at the first claim that is wrong."""
    if claims.get("iss") != expected.issuer:
        raise _refused("iss")
    _check_audience(claims, expected.client_id)
    exp, iat, nbf = (_seconds(claims.get(name)) for name in ("exp", "iat", "nbf"))
    if exp is None or now >= exp + CLOCK_SKEW:
        raise _refused("exp")
    if iat is None or now < iat - CLOCK_SKEW:
        raise _refused("iat")
    if "nbf" in claims and (nbf is None or now < nbf - CLOCK_SKEW):
        raise _refused("nbf")
    if not _equal(claims.get("nonce"), expected.nonce):
        raise _refused("nonce")
    if "at_hash" in claims:
        digest = hashlib.new(_ALGORITHMS[alg][3], expected.access_token.encode()).digest()
        half = base64url(digest[: len(digest) // 2])
        if not _equal(claims["at_hash"], half):
            raise _refused("at_hash")


def _check_audience(claims: JsonObject, client_id: str) -> None:
    """Check that `aud` has this client and `azp`, if there or needed, is it (OIDC Core 3.1.3.7)."""
    aud, azp = claims.get("aud"), claims.get("azp")
    audiences = aud if isinstance(aud, list) else [aud]
    if not all(isinstance(audience, str) for audience in audiences) or client_id not in audiences:
        raise _refused("aud")
    if azp != client_id and ("azp" in claims or len(audiences) > 1):
        raise _refused("azp")


def _seconds(value: object) -> float | None:
    """Return a NumericDate (RFC 7519 2), None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # An integer of a thousand digits is neither a date nor a float.
    return float(value) if abs(value) < 1e15 else None  # noqa: PLR2004 - year 31 million


def _equal(claim: object, wanted: str) -> bool:
    """Compare in constant time; a text may hold lone surrogates from JSON escapes."""
    if not isinstance(claim, str):
        return False
    return hmac.compare_digest(claim.encode("utf-8", "surrogatepass"), wanted.encode())
