"""id_tokens: none is believed but one that the provider signed, for this login, in one reading."""

import base64
import json
from collections.abc import Callable, Mapping

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fuzz.cutting import lines_of, steered
from fuzz.target import Target
from tailchat_gate.identity.oauth.id_token import (
    ExpectedClaims,
    JsonObject,
    check_id_token,
    json_object,
)
from tailchat_gate.identity.oauth.login import LoginRefused
from tailchat_gate.reasons import Reason
from tailchat_gate.syntax import CLOCK_SKEW as SKEW

_NOW = 1_800_000_000.0
_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
_EXPECTED = ExpectedClaims("https://tailchat.test", "tc_1", "n-0", "access")
#: Of "access", as OpenID Connect Core 3.1.3.6 has it for Ed25519.
_AT_HASH = "kyd4-h3ZoV2sH212kLKbcOnCBajStKQ38Ae_bfT-PFI"
_PARTS = frozenset(
    (
        *("form", "alg", "kid", "crit", "typ", "signature", "iss", "aud", "azp", "exp", "iat"),
        *("nbf", "nonce", "at_hash", "sub", "auth_time"),
    )
)


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


_JWK: JsonObject = {
    "kty": "OKP",
    "crv": "Ed25519",
    "kid": "k",
    "x": _base64url(_KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)),
}


def check(data: bytes) -> None:
    """Judge a token: one byte says whether header and claims, a line each, are signed first."""
    steer, rest = steered(data, 1)
    header, claims = (line.encode("latin-1") for line in lines_of(rest, 2))
    if steer[0] & 1:
        _check_unsigned(rest.decode("latin-1"))
        _check_unsigned(f"{_base64url(header)}.{_base64url(claims)}.{_base64url(bytes(64))}")
    else:
        _check_signed(header, claims)
    _check_json(claims)


def _judge(token: str) -> tuple[str, str]:
    """Return the `sub` of a token that is believed, or the part that is refused."""
    try:
        return check_id_token(token, [_JWK], _EXPECTED, now=_NOW).sub, ""
    except LoginRefused as error:
        refused = error
    assert refused.reason == Reason.LOGIN_ID_TOKEN
    assert refused.detail.keys() == {"claim"}
    assert refused.detail["claim"] in _PARTS
    return "", refused.detail["claim"]


def _check_unsigned(token: str) -> None:
    assert _judge(token)[1], "a token is believed that nobody signed"


def _check_signed(header: bytes, claims: bytes) -> None:
    signed = f"{_base64url(header)}.{_base64url(claims)}"
    token = f"{signed}.{_base64url(_KEY.sign(signed.encode('ascii')))}"
    sub, fault = _judge(token)
    assert bool(sub) != bool(fault)
    head, body = _plain(header), _plain(claims)
    good = head is not None and body is not None and _is_good_header(head) and _is_good(body)
    if body is not None and sub:
        assert sub == body["sub"]
    assert good == bool(sub), (sub, fault)
    place = len(header) % len(token)
    other = "A" if token[place] != "A" else "B"
    assert _judge(token[:place] + other + token[place + 1 :])[1], "a changed token is believed"


def _plain(data: bytes) -> Mapping[str, object] | None:
    """Return the JSON object in UTF-8 text, None where it is none, or has a name twice."""
    twice: list[bool] = []

    def hook(pairs: list[tuple[str, object]]) -> dict[str, object]:
        names = [name for name, _ in pairs]
        twice.append(len(names) != len(set(names)))
        return dict(pairs)

    try:
        found = json.loads(data.decode("utf-8"), object_pairs_hook=hook, parse_constant=_fail)
    except (ValueError, RecursionError):
        return None
    return None if any(twice) or not isinstance(found, dict) else found


def _fail(_: str) -> object:
    raise ValueError


def _is_good_header(head: Mapping[str, object]) -> bool:
    return (
        head.get("alg") == "EdDSA"
        and head.get("kid", "k") == "k"
        and not {"crit", "b64"} & head.keys()
        and str(head.get("typ", "JWT")).upper() == "JWT"
    )


def _is_good(claims: Mapping[str, object]) -> bool:
    """OpenID Connect Core 3.1.3.7, one claim after another."""
    aud = claims.get("aud")
    audiences = aud if isinstance(aud, list) else [aud]
    checks: tuple[Callable[[], bool], ...] = (
        lambda: claims.get("iss") == "https://tailchat.test",
        lambda: all(isinstance(one, str) for one in audiences) and "tc_1" in audiences,
        lambda: claims.get("azp", "tc_1") == "tc_1",
        lambda: "azp" in claims or len(audiences) == 1,
        lambda: _is_time(claims.get("exp")) and _number(claims["exp"]) + SKEW > _NOW,
        lambda: _is_time(claims.get("iat")) and _number(claims["iat"]) - SKEW <= _NOW,
        lambda: _is_time(claims.get("nbf", 0)) and _number(claims.get("nbf", 0)) - SKEW <= _NOW,
        lambda: claims.get("nonce") == "n-0",
        lambda: claims.get("at_hash", _AT_HASH) == _AT_HASH,
        lambda: isinstance(claims.get("sub"), str) and claims["sub"] != "",
        lambda: _is_time(claims.get("auth_time", 0)),
        lambda: _number(claims.get("auth_time", 0)) - SKEW <= _NOW,
    )
    return all(one() for one in checks)


def _is_time(value: object) -> bool:
    return type(value) in {int, float} and abs(_number(value)) < 1e15


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return value


def _check_json(data: bytes) -> None:
    """An object is what any reader of JSON makes of the text; what readers differ on is none."""
    plain = _plain(data)
    try:
        found = json_object(data)
    except ValueError:
        assert plain is None
        return
    assert found == plain


_GOOD = (
    b'{"iss":"https://tailchat.test","aud":"tc_1","sub":"s","nonce":"n-0","exp":1800003600,'
    b'"iat":1800000000'
)
TARGET = Target(
    check,
    parsers=("identity.oauth.id_token",),
    seeds=(
        b'\0{"alg":"EdDSA","kid":"k"}\n' + _GOOD + b"}",
        b'\0{"alg":"EdDSA"}\n' + _GOOD + b',"at_hash":"' + _AT_HASH.encode() + b'"}',
        b'\0{"alg":"EdDSA","typ":"jwt"}\n' + _GOOD + b',"azp":"tc_1","nbf":1800000060}',
        b'\0{"alg":"EdDSA","crit":["b64"],"b64":false}\n' + _GOOD + b"}",
        b'\0{"alg":"EdDSA"}\n' + _GOOD + b',"sub":"t"}',
        b'\1{"alg":"none"}\n' + _GOOD + b"}",
        b"\1a.b.c",
        b'\1{"alg":"EdDSA"}\n{"exp":1e999,"a":NaN}',
    ),
    words=(
        *(
            b'"alg":"EdDSA"',
            b'"alg":"none"',
            b'"alg":["EdDSA"]',
            b'"kid":"k"',
            b'"kid":1',
            b"{",
            b"}",
        ),
        *(b'"typ":"JWT"', b'"crit":[]', b'"aud":["tc_1","x"]', b'"azp":"tc_1"', b'"exp":', b"null"),
        *(b'"nbf":', b"true", b"1e3", b"-1", b"NaN", b"Infinity", b'"\\ud800"', b'"\\u0000"', b","),
        *(b'"at_hash":""', b'"sub":"t"', b'"iss":"https://tailchat.test"', b'"nonce":"n-0"', b"."),
    ),
)
