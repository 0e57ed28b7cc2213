"""Profiles: whatever Tailchat says of a user becomes fields that every server reads alike."""

import unicodedata
from email.header import decode_header, make_header
from urllib.parse import unquote

from fuzz.cutting import steered
from fuzz.reference.syntax import Pairs, field_lines
from fuzz.target import Target
from tailchat_gate.identity.oauth.id_token import json_object
from tailchat_gate.identity.oauth.responses import (
    MAX_AVATAR,
    MAX_DISCRIMINATOR,
    MAX_NICKNAME,
    Profile,
    ProfileError,
    profile_from_userinfo,
)
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.proxy.message.identity_headers import (
    MAX_VALUE_BYTES,
    encode_value,
    identity_fields,
)
from tailchat_gate.syntax import MAX_SUB

_API = "https://tailchat.test"
_ENCODINGS = ("percent", "utf8", "rfc2047")
#: What makes text be read in another order than it stands.
_REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")


def check(data: bytes) -> None:
    """Read an answer about a user, or a text for a field; one byte chooses the encoding."""
    steer, rest = steered(data, 1)
    encoding = _ENCODINGS[steer[0] % 3]
    _check_value(rest.decode("utf-8", "surrogateescape"), encoding)
    try:
        answer = json_object(rest)
        profile = profile_from_userinfo(answer, api_url=_API)
    except (ValueError, ProfileError):
        return
    assert answer["sub"] == profile.sub
    _check_profile(profile)
    _check_fields(profile, encoding)


def _check_profile(profile: Profile) -> None:
    assert 0 < len(profile.sub) <= MAX_SUB
    assert all("!" <= sign <= "~" for sign in profile.sub)
    for text, most in (
        (profile.nickname, MAX_NICKNAME),
        (profile.discriminator, MAX_DISCRIMINATOR),
    ):
        assert len(text) <= most
        assert text == text.strip()
        assert not _REORDERING & set(text)
        assert not any(unicodedata.category(sign) in {"Cc", "Cs"} for sign in text)
        assert text.splitlines() in ([], [text])
        text.encode("utf-8")
    again = {"sub": profile.sub, "nickname": profile.nickname, "avatar": profile.avatar}
    found = profile_from_userinfo(
        {**again, "discriminator": profile.discriminator}, api_url="https://other.test"
    )
    assert found == profile, "read again it is another"
    assert len(profile.avatar) <= MAX_AVATAR
    assert profile.avatar == "" or profile.avatar.lower().startswith(("http://", "https://"))
    assert all("!" <= sign <= "~" and sign not in '"<>\\^`{|}' for sign in profile.avatar)


def _check_value(text: str, encoding: str) -> None:
    """A value is one line, and read back it is the text, or its start where it was too long."""
    value = encode_value(text, encoding)
    assert len(value) <= MAX_VALUE_BYTES
    assert field_lines(b"X: " + value + b"\r\n") == [(b"X", value)]
    assert not any(octet < 32 or octet == 127 for octet in value)
    plain = "".join(s for s in text if unicodedata.category(s) not in {"Cc", "Cs"})
    plain = plain.replace("\u2028", "").replace("\u2029", "").strip()
    told = _decoded(value, encoding)
    assert plain.startswith(told), (plain, told)
    # Encoded-words are counted, not measured: the last ones that would fit may be missing.
    assert told == plain or len(value) > MAX_VALUE_BYTES * 0.9


def _decoded(value: bytes, encoding: str) -> str:
    if encoding == "percent":
        assert value.isascii()
        return unquote(value.decode("ascii"), errors="strict")
    if encoding == "utf8":
        return value.decode("utf-8")
    assert value.isascii()
    return str(make_header(decode_header(value.decode("ascii"))))


def _check_fields(profile: Profile, encoding: str) -> None:
    record = SessionRecord.begin(profile, now=0, login="x")
    templates = {"X-User": "{nickname} <{sub}>", "X-Braces": "{{{avatar}}}"}
    lines: Pairs = field_lines(
        identity_fields(record, ["a", "b"], encoding=encoding, templates=templates)
    )
    names = [name for name, _ in lines]
    assert len(names) == len(set(names))
    assert set(names) <= {
        *(b"X-Tailchat-Sub", b"X-Tailchat-Nickname", b"X-Tailchat-Discriminator"),
        *(b"X-Tailchat-Avatar", b"X-Tailchat-Groups", b"X-User", b"X-Braces"),
    }
    told = dict(lines)
    assert _decoded(told[b"X-Tailchat-Sub"], encoding) == profile.sub
    assert told[b"X-Tailchat-Groups"] == b"a,b"
    nickname = told.get(b"X-Tailchat-Nickname", b"")
    assert bool(nickname) == bool(encode_value(profile.nickname, encoding))


TARGET = Target(
    check,
    parsers=("identity.oauth.responses", "proxy.message.identity_headers"),
    seeds=(
        b'\0{"sub":"660000000000000000000001","nickname":"Alice","discriminator":"0042",'
        b'"avatar":"{BACKEND}/static/a.png"}',
        '\1{"sub":"s","nickname":"星\u200d👩\u200d👩\u200d👧 a","avatar":"https://a.test/é"}'.encode(),
        b'\2{"sub":"s","nickname":"a\\r\\nX: y\\u2028\\ud800\\u202e"}',
        b'\2{"sub":"a%20b=?UTF-8?B?eA==?="}',
        b'\0{"sub":7,"nickname":null}',
        b"\1\xed\xa0\x80x",
        "\2=?UTF-8?Q?x?= é".encode(),
        "\1\u3000a\u3000".encode(),
        b"\0a%41+b",
    ),
    words=(
        *(b'"sub":"s"', b'"nickname":"', b'"avatar":"{BACKEND}', b'"discriminator":"', b"\\r\\n"),
        *(
            b"\\u200d",
            b"\\u202e",
            b"\\u2028",
            b"\\ud800",
            b"\\u0000",
            b"\\u3164",
            b"\\ud83d\\ude00",
        ),
        *(
            "星".encode(),
            "\u200d".encode(),
            "\u0301".encode(),
            "🏽".encode(),
            b"=?",
            b"?=",
            b"%",
            b" ",
        ),
        *(
            b"https://",
            b"http://[::1]",
            b"//",
            b"\\\\",
            b"@",
            b"\xed\xa0\x80",
            b"\xc2\x85",
            b"{",
            b"}",
        ),
    ),
)
