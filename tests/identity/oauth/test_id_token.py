import base64
import functools
import hashlib
import json
from collections.abc import Callable

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from tailchat_gate.identity.oauth.id_token import (
    ExpectedClaims,
    JsonObject,
    UnknownKey,
    check_id_token,
    json_object,
)
from tailchat_gate.identity.oauth.login import LoginRefused

NOW = 1_800_000_000.0
SUB = "660000000000000000000001"
ACCESS = "LUPWgMFJF8zZ_OFII13ZbNtgP5igTuF4B5bXZzDyCdV"
EXPECTED = ExpectedClaims(
    issuer="https://tailchat.example.com", client_id="tc_1", nonce="n-0S6_Wz", access_token=ACCESS
)
CLAIMS: JsonObject = {
    "iss": "https://tailchat.example.com",
    "aud": "tc_1",
    "sub": SUB,
    "nonce": "n-0S6_Wz",
    "exp": int(NOW) + 3600,
    "iat": int(NOW),
}
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@functools.cache
def private_key(kind: str) -> PrivateKey:
    """Return a key pair of a kind, the same each time."""
    if kind == "EC":
        return ec.generate_private_key(ec.SECP256R1())
    if kind == "P-384":
        return ec.generate_private_key(ec.SECP384R1())
    if kind == "OKP":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, 1024 if kind == "weak" else 2048)


def jwk(kind: str = "RSA", **members: object) -> JsonObject:
    """Return the public key of a pair as a member of a JWK Set."""
    key = private_key(kind)
    public: JsonObject
    if isinstance(key, rsa.RSAPrivateKey):
        public = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        public = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    else:
        public = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    public.pop("key_ops", None)
    return public | {"kid": kind} | members


def sign(
    claims: JsonObject | bytes, kind: str = "RSA", alg: str = "RS256", **header: object
) -> str:
    """Return a token signed with the pair of a kind."""
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    fields = {"kid": kind, **header}
    kept = {name: value for name, value in fields.items() if value is not None}
    return jwt.PyJWS().encode(payload, private_key(kind), algorithm=alg, headers=kept)


def fault(
    token: str, *keys: JsonObject, expected: ExpectedClaims = EXPECTED, now: float = NOW
) -> str:
    """Return which part of a token is refused."""
    with pytest.raises(LoginRefused) as caught:
        check_id_token(token, keys or (jwk(),), expected, now=now)
    assert caught.value.reason == "login-id-token"
    return caught.value.detail["claim"]


def unsigned(header: object, claims: object = CLAIMS, signature: bytes = b"x") -> str:
    """Return a token with any header and no true signature."""
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


@pytest.mark.parametrize(
    ("kind", "alg"), [("RSA", "RS256"), ("RSA", "PS256"), ("EC", "ES256"), ("OKP", "EdDSA")]
)
def test_good_token(kind: str, alg: str) -> None:
    """A token signed with an allowed algorithm and right in every claim gives its sub."""
    half = hashlib.sha512 if alg == "EdDSA" else hashlib.sha256
    digest = half(ACCESS.encode()).digest()
    at_hash = base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()
    token = sign(CLAIMS | {"at_hash": at_hash}, kind, alg)

    assert check_id_token(token, [jwk(kind)], EXPECTED, now=NOW).sub == SUB
    assert fault(sign(CLAIMS | {"at_hash": at_hash[:-1]}, kind, alg), jwk(kind)) == "at_hash"


def test_at_hash_as_a_real_server_makes_it() -> None:
    """The at_hash that a real Tailchat sent for this access token is right."""
    token = sign(CLAIMS | {"at_hash": "ga5LieVxjlYucpT--qCF7w"})

    assert check_id_token(token, [jwk()], EXPECTED, now=NOW).sub == SUB


def test_the_time_of_the_password_is_read() -> None:
    """In whole seconds, and 0 where the token does not say it."""
    token = sign(CLAIMS | {"auth_time": int(NOW) - 7})

    assert check_id_token(token, [jwk()], EXPECTED, now=NOW).auth_time == int(NOW) - 7
    assert check_id_token(sign(CLAIMS), [jwk()], EXPECTED, now=NOW).auth_time == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": ["tc_1"]},
        {"aud": ["tc_1"], "azp": "tc_1"},
        {"aud": ["other", "tc_1"], "azp": "tc_1"},
        {"azp": "tc_1"},
        {"exp": NOW - 59.5},
        {"exp": NOW + 0.5},
        {"iat": int(NOW) + 60},
        {"nbf": int(NOW) + 60},
        {"auth_time": 1, "sid": "x"},
    ],
)
def test_good_variants(changes: JsonObject) -> None:
    """Lists of audiences, fractions of seconds, clock differences and extra claims are fine."""
    assert check_id_token(sign(CLAIMS | changes), [jwk()], EXPECTED, now=NOW).sub == SUB


@pytest.mark.parametrize(
    ("changes", "claim"),
    [
        ({"iss": "https://tailchat.example.com/"}, "iss"),
        ({"iss": "https://evil.example"}, "iss"),
        ({"iss": None}, "iss"),
        ({"iss": ["https://tailchat.example.com"]}, "iss"),
        ({"aud": "tc_2"}, "aud"),
        ({"aud": ["tc_2"]}, "aud"),
        ({"aud": []}, "aud"),
        ({"aud": None}, "aud"),
        ({"aud": {"tc_1": 1}}, "aud"),
        ({"aud": ["tc_1", 7]}, "aud"),
        ({"aud": "tc_1 tc_2"}, "aud"),
        ({"aud": ["tc_1", "tc_2"]}, "azp"),
        ({"aud": ["tc_1", "tc_2"], "azp": "tc_2"}, "azp"),
        ({"azp": "tc_2"}, "azp"),
        ({"azp": None}, "azp"),
        ({"exp": NOW - 60}, "exp"),
        ({"exp": None}, "exp"),
        ({"exp": str(NOW + 3600)}, "exp"),
        ({"exp": True}, "exp"),
        ({"exp": 10**30}, "exp"),
        ({"exp": -(10**300)}, "exp"),
        ({"iat": NOW + 61}, "iat"),
        ({"iat": None}, "iat"),
        ({"iat": "now"}, "iat"),
        ({"nbf": NOW + 61}, "nbf"),
        ({"nbf": None}, "nbf"),
        ({"auth_time": NOW + 61}, "auth_time"),
        ({"auth_time": None}, "auth_time"),
        ({"auth_time": "1"}, "auth_time"),
        ({"auth_time": True}, "auth_time"),
        ({"nonce": "other"}, "nonce"),
        ({"nonce": ""}, "nonce"),
        ({"nonce": None}, "nonce"),
        ({"nonce": ["n-0S6_Wz"]}, "nonce"),
        ({"nonce": "\ud800"}, "nonce"),
        ({"at_hash": "ga5LieVxjlYucpT--qCF7x"}, "at_hash"),
        ({"at_hash": ""}, "at_hash"),
        ({"at_hash": None}, "at_hash"),
        ({"sub": None}, "sub"),
        ({"sub": ""}, "sub"),
        ({"sub": [SUB]}, "sub"),
        ({"sub": 66}, "sub"),
    ],
)
def test_wrong_claims(changes: JsonObject, claim: str) -> None:
    """One wrong claim is enough to refuse a token that is well signed."""
    assert fault(sign(CLAIMS | changes)) == claim


@pytest.mark.parametrize("claim", ["iss", "aud", "exp", "iat", "nonce", "sub"])
def test_missing_claims(claim: str) -> None:
    """A token that lacks one of the claims that every login needs is refused."""
    claims = {name: value for name, value in CLAIMS.items() if name != claim}

    assert fault(sign(claims)) == claim


@pytest.mark.parametrize(
    ("payload", "claim"),
    [
        (b"", "form"),
        (b"[]", "form"),
        (b'"text"', "form"),
        (b"\xff\xfe", "form"),
        (b'{"sub":"a","sub":"b"}', "form"),
        (json.dumps(CLAIMS).replace("1800003600", "NaN").encode(), "form"),
        (json.dumps(CLAIMS).replace("1800003600", "Infinity").encode(), "form"),
        (json.dumps(CLAIMS).replace("1800003600", "1e999").encode(), "exp"),
        (b"[" * 11_000, "form"),
    ],
)
def test_payload_is_no_claims_set(payload: bytes, claim: str) -> None:
    """A signed payload that is not one plain JSON object is refused."""
    assert fault(sign(payload)) == claim


@pytest.mark.parametrize(
    ("header", "claim"),
    [
        ({"alg": "none"}, "alg"),
        ({"alg": "None"}, "alg"),
        ({"alg": "HS256"}, "alg"),
        ({"alg": "RS512"}, "alg"),
        ({"alg": "rs256"}, "alg"),
        ({"alg": ["RS256"]}, "alg"),
        ({"alg": {}}, "alg"),
        ({"alg": None}, "alg"),
        ({}, "alg"),
        ([], "form"),
        ("RS256", "form"),
        ({"alg": "RS256", "crit": ["exp"], "exp": 1}, "crit"),
        ({"alg": "RS256", "b64": False, "crit": ["b64"]}, "crit"),
        ({"alg": "RS256", "typ": "at+jwt"}, "typ"),
        ({"alg": "RS256", "typ": ["JWT"]}, "typ"),
        ({"alg": "RS256", "kid": ["RSA"]}, "kid"),
        ({"alg": "RS256", "kid": None}, "kid"),
        ({"alg": "RS256", "kid": "unknown"}, "kid"),
        ({"alg": "RS256", "kid": "RSA"}, "signature"),
    ],
)
def test_header(header: object, claim: str) -> None:
    """Algorithms outside the list, unknown extensions, other types and odd ids are refused."""
    assert fault(unsigned(header)) == claim


@pytest.mark.parametrize(
    "change",
    [
        lambda token: "",
        lambda token: "a.b",
        lambda token: token + ".x",
        lambda token: token.replace(".", "!.", 1),
        lambda token: "é" + token,
        lambda token: "=" + token,
        lambda token: token + "A" * 20_000,
        lambda token: "." + token.split(".", 1)[1],
    ],
)
def test_form(change: Callable[[str], str]) -> None:
    """What is not three parts of base64url in a sane length is no token."""
    assert fault(change(sign(CLAIMS))) == "form"


def test_signature_covers_every_part() -> None:
    """A payload, header or signature of another token does not go with the rest."""
    one, two = (sign(CLAIMS | {"sub": s}).split(".") for s in ("a", "b"))

    assert fault(".".join((one[0], two[1], one[2]))) == "signature"
    assert fault(".".join((one[0], one[1], two[2]))) == "signature"
    assert fault(".".join((one[0], one[1], ""))) == "signature"
    assert fault(".".join((*one[:2], one[2][:-2]))) == "signature"


def test_public_key_as_hmac_secret() -> None:
    """A token signed by HMAC with the public key's bytes is refused by its algorithm."""
    secret = str(jwk()["n"]).encode()
    token = jwt.encode(CLAIMS, secret, "HS256", {"kid": "RSA"})

    assert fault(token) == "alg"


@pytest.mark.parametrize(
    "key",
    [
        jwk(use="enc"),
        jwk(alg="PS256"),
        jwk(alg="RS512"),
        jwk(kty="oct"),
        jwk(kty=None),
        jwk(n=None),
        jwk(n=7),
        jwk(n="!"),
        jwk(e=[]),
        jwk(kid=["RSA"]),
        jwk("EC", kid="RSA"),
        jwk("OKP", kid="RSA"),
        {},
    ],
)
def test_unfit_keys(key: JsonObject) -> None:
    """A key of another use, algorithm, kind or id, or a broken one, is as good as none."""
    assert fault(sign(CLAIMS), key) == "kid"
    assert check_id_token(sign(CLAIMS), [key, jwk()], EXPECTED, now=NOW).sub == SUB


def test_weak_key() -> None:
    """An RSA key of less than 2048 bits signs nothing that counts."""
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        token = sign(CLAIMS, "weak")

    assert fault(token, jwk("weak")) == "signature"


def test_curve() -> None:
    """An EC key of another curve than the algorithm's is no key for it."""
    assert fault(sign(CLAIMS, "EC", "ES256", kid="P-384"), jwk("P-384")) == "kid"


def test_private_members_are_ignored() -> None:
    """A JWK Set that shows private members by mistake verifies with its public ones."""
    key = private_key("RSA")
    assert isinstance(key, rsa.RSAPrivateKey)
    private: JsonObject = RSAAlgorithm.to_jwk(key, as_dict=True)

    assert check_id_token(sign(CLAIMS), [private | {"kid": "RSA"}], EXPECTED, now=NOW).sub == SUB


def test_without_kid() -> None:
    """A token without a key id is taken where one key fits, and refused where two do."""
    token = sign(CLAIMS, kid=None)

    assert check_id_token(token, [jwk(), jwk("EC")], EXPECTED, now=NOW).sub == SUB
    assert fault(token, jwk(), jwk(kid="second")) == "kid"


def test_two_keys_of_one_id() -> None:
    """Where a set gives one id to two keys, either may have signed."""
    assert (
        check_id_token(sign(CLAIMS), [jwk("weak", kid="RSA"), jwk()], EXPECTED, now=NOW).sub == SUB
    )


def test_unknown_key_is_told_apart() -> None:
    """Only a token that no key fits asks for newer keys, a badly signed one does not."""
    with pytest.raises(UnknownKey):
        check_id_token(sign(CLAIMS), [], EXPECTED, now=NOW)
    with pytest.raises(LoginRefused) as caught:
        check_id_token(sign(CLAIMS, kid="EC"), [jwk(kid="EC"), jwk()], EXPECTED, now=NOW + 9999)
    assert not isinstance(caught.value, UnknownKey)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"1", b"null", b'{"a":1}x', b'{"a":NaN}', b'{"a":-Infinity}',
     b'{"a":1,"a":1}', b'{"x":{"a":1,"a":2}}', b"\xef\xbb\xbf{}", b"{}".decode().encode("utf-16"),
     b'{"a":"\xff"}', b'{"a":' * 30_000, b'{"a":' + b"9" * 5000 + b"}"],
)  # fmt: skip
def test_json_object_refuses(text: bytes) -> None:
    """What two readers might read as two things is refused with one kind of error."""
    with pytest.raises(ValueError, match=r"."):
        json_object(text)


def test_repr_shows_no_token() -> None:
    """The repr of what is expected shows neither nonce nor access token."""
    assert "n-0S6_Wz" not in repr(EXPECTED)
    assert ACCESS not in repr(EXPECTED)
