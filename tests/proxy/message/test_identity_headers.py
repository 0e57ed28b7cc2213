import re
from collections.abc import Mapping, Sequence
from email.header import decode_header, make_header
from types import MappingProxyType
from urllib.parse import unquote

import pytest
from gatekit import ALICE, START, SUB, make_settings
from hypothesis import given, settings
from hypothesis import strategies as st

from tailchat_gate.access.routes import RouteTable
from tailchat_gate.config.values.header import fill
from tailchat_gate.identity.authenticator import Visitor
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.proxy.message.identity_headers import (
    MAX_VALUE_BYTES,
    IdentityHeaders,
    encode_value,
    identity_fields,
)

RECORD = SessionRecord.begin(ALICE, now=START, login="l")
ENCODINGS = ("percent", "utf8", "rfc2047")
#: Visible ASCII with single inner spaces at most at its ends removed; utf8 adds obs-text.
VISIBLE = {
    "percent": re.compile(rb"[!-~](?:[ -~]*[!-~])?"),
    "utf8": re.compile(rb"[!-~\x80-\xff](?:[ -~\x80-\xff]*[!-~\x80-\xff])?"),
    "rfc2047": re.compile(rb"[!-~](?:[ -~]*[!-~])?"),
}


def decoded(value: bytes, encoding: str) -> str:
    """Return what a tool reads in a header value, by a library that is not the gate's."""
    if encoding == "percent":
        return unquote(value.decode("ascii"), errors="strict")
    if encoding == "utf8":
        return value.decode("utf-8")
    return str(make_header(decode_header(value.decode("ascii"))))


def cleaned(text: str) -> str:
    """Return what is left of a text without what no header carries."""
    hidden = {*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0xD800, 0xE000)}
    return "".join(sign for sign in text if ord(sign) not in hidden).strip()


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    ("nickname", "read"),
    [
        ("Alice", "Alice"),
        ("星野 Hoshino ☆", "星野 Hoshino ☆"),
        ("👩‍👩‍👧‍👦🏽", "👩‍👩‍👧‍👦🏽"),
        ("\"quoted\" 'n' \\back\\", "\"quoted\" 'n' \\back\\"),
        ("100% %41 %zz %", "100% %41 %zz %"),
        ("a\r\nX-Tailchat-Sub: admin", "aX-Tailchat-Sub: admin"),
        ("a\nb\rc\x00d\x1be\x7ff", "abcdef"),
        ("a\x85b\x9bc\u2028d\u2029e", "abcde"),
        ("\ud800a\udfff", "a"),
        ("  spaced  out  ", "spaced  out"),
        ("\u3000wide\xa0", "wide"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("{sub} {{x}}", "{sub} {{x}}"),
        ("=?UTF-8?B?YWRtaW4=?=", "=?UTF-8?B?YWRtaW4=?="),
        ("a, b; c=d", "a, b; c=d"),
    ],
)
def test_hostile_nicknames(nickname: str, read: str, encoding: str) -> None:
    """A nickname of any kind is one value of visible bytes, and a tool reads it unchanged."""
    value = encode_value(nickname, encoding)

    assert VISIBLE[encoding].fullmatch(value)
    assert decoded(value, encoding) == read


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("nickname", ["", " ", "\r\n\x00", "\ud800", "\u2028 \x85"])
def test_nothing_visible_is_nothing(nickname: str, encoding: str) -> None:
    """A nickname without a visible character is an empty value, which becomes no field."""
    assert encode_value(nickname, encoding) == b""


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ("Alice B", b"Alice B"),
        ("ü", b"%C3%BC"),
        ("%", b"%25"),
        ("%41", b"%2541"),
        ("a/b?c#d&e=f+g~", b"a/b?c#d&e=f+g~"),
        ("星", b"%E6%98%9F"),
        ("\u200b", b"%E2%80%8B"),
    ],
)
def test_percent(value: str, encoded: bytes) -> None:
    """Visible ASCII stands for itself, "%" and everything else is percent-encoded UTF-8."""
    assert encode_value(value, "percent") == encoded


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("sign", ["x", "%", "é", "星", "😀", "a😀", "😀 ", "=?", "x" * 3000 + "星"])
def test_length_is_capped_between_characters(sign: str, encoding: str) -> None:
    """A name of 5000 characters is cut to the cap, and never inside a character or an escape."""
    text = (sign * 5000)[:5000]
    value = encode_value(text, encoding)

    assert MAX_VALUE_BYTES * 0.6 < len(value) <= MAX_VALUE_BYTES
    assert VISIBLE[encoding].fullmatch(value)
    assert text.startswith(decoded(value, encoding))


@given(text=st.text(max_size=200), encoding=st.sampled_from(ENCODINGS))
def test_any_text_decodes_back(text: str, encoding: str) -> None:
    """Any text, cleaned, is what the tool reads, and never more than one line."""
    value = encode_value(text, encoding)

    if cleaned(text):
        assert VISIBLE[encoding].fullmatch(value)
    assert decoded(value, encoding) == cleaned(text)


@given(text=st.text(min_size=200, max_size=400), encoding=st.sampled_from(ENCODINGS))
@settings(max_examples=40, deadline=None)
def test_any_long_text_is_cut_cleanly(text: str, encoding: str) -> None:
    """A long text gives a value below the cap that decodes to its start."""
    text *= 8
    value = encode_value(text, encoding)

    assert len(value) <= MAX_VALUE_BYTES
    assert cleaned(text).startswith(decoded(value, encoding))


def test_encoded_words_are_short() -> None:
    """Each encoded-word has at most 75 bytes and whole characters (RFC 2047 section 2)."""
    words = encode_value("星😀é" * 100, "rfc2047").split(b" ")

    assert all(len(word) <= 75 for word in words)
    assert all(str(make_header(decode_header(word.decode()))) for word in words)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{sub}", "S"),
        ("{nickname} <{sub}@chat>", "{sub} <S@chat>"),
        ("{{sub}}", "{sub}"),
        ("{{{sub}}}", "{S}"),
        ("}}{{", "}{"),
        ("plain", "plain"),
        ("{sub}{sub}", "SS"),
        ("{discriminator}|{avatar}|{groups}", "D|A|G"),
    ],
)
def test_templates(template: str, text: str) -> None:
    """Fields are filled in once: what a visitor's name looks like is not filled in again."""
    values = {
        "sub": "S",
        "nickname": "{sub}",
        "discriminator": "D",
        "avatar": "A",
        "groups": "G",
    }

    assert fill(template, values) == text


def lines(
    record: SessionRecord = RECORD,
    groups: Sequence[str] = (),
    *,
    encoding: str = "percent",
    templates: Mapping[str, str] = MappingProxyType({}),
) -> list[bytes]:
    """Return the identity lines for a record."""
    made = identity_fields(record, groups, encoding=encoding, templates=templates)
    return made.split(b"\r\n")


def test_identity_fields() -> None:
    """Every value that is known is one line, in a fixed order."""
    assert lines(
        groups=["dev", "ops"], templates={"X-WEBAUTH-USER": "{sub}", "X-Mail": "{sub}@c"}
    ) == [
        b"X-Tailchat-Sub: " + SUB.encode(),
        b"X-Tailchat-Nickname: Alice",
        b"X-Tailchat-Discriminator: 0042",
        b"X-Tailchat-Avatar: https://chat.example/static/a.png",
        b"X-Tailchat-Groups: dev,ops",
        b"X-WEBAUTH-USER: " + SUB.encode(),
        b"X-Mail: " + SUB.encode() + b"@c",
        b"",
    ]


def test_missing_values_are_absent_fields() -> None:
    """A person without nickname, avatar and groups has one line, and a template none."""
    record = RECORD._replace(nickname="", discriminator="\x00", avatar=" ")

    assert lines(record=record, templates={"X-Name": "{nickname}"}) == [
        b"X-Tailchat-Sub: " + SUB.encode(),
        b"",
    ]


#: What a template may have before a field.
TEXTS = st.from_regex(r"[!-z|~]([ -z|~]{0,20}[!-z|~])?", fullmatch=True)


@given(nickname=st.text(), encoding=st.sampled_from(ENCODINGS), template=TEXTS)
def test_no_value_adds_a_line(nickname: str, encoding: str, template: str) -> None:
    """Whatever a person calls himself, no line is added and the line of the sub stays."""
    record = RECORD._replace(nickname=nickname, discriminator=nickname, avatar=nickname)
    found = lines(record=record, encoding=encoding, templates={"X-Name": template + "{nickname}"})

    assert found[0] == b"X-Tailchat-Sub: " + SUB.encode()
    assert found[-1] == b""
    names = [line.partition(b": ")[0].decode() for line in found[:-1]]
    assert set(names) <= {
        *("X-Tailchat-Sub", "X-Tailchat-Nickname", "X-Tailchat-Discriminator"),
        *("X-Tailchat-Avatar", "X-Name"),
    }
    assert len(set(names)) == len(names)


def test_fields_are_made_once_for_each_route() -> None:
    """The lines of a visitor are made once a route, with that route's encoding and templates."""
    routes = RouteTable(
        make_settings(
            route=[
                {"name": "plain"},
                {
                    "name": "odd",
                    "path": "/odd",
                    "header_encoding": "utf8",
                    "headers": {"X-U": "{sub}"},
                },
            ]
        ).route,
        {},
    ).routes
    headers = IdentityHeaders({"ops": [SUB], "dev": ["x", SUB], "none": []})
    visitor = Visitor(RECORD._replace(nickname="é"), START, START)
    plain, odd = (headers.fields(visitor, route) for route in routes)

    assert b"X-Tailchat-Nickname: %C3%A9\r\n" in plain
    assert b"X-U" not in plain
    assert "X-Tailchat-Nickname: é\r\n".encode() in odd
    assert odd.endswith(b"X-U: " + SUB.encode() + b"\r\n")
    assert b"X-Tailchat-Groups: dev,ops\r\n" in plain
    assert headers.fields(visitor, routes[0]) is plain
    assert visitor.identity_headers == {"plain": plain, "odd": odd}


def test_groups_of() -> None:
    """A person's groups are those that list the sub, sorted; a stranger has none."""
    headers = IdentityHeaders({"b": ["1", "2"], "a": ["1"], "c": []})

    assert headers.groups_of("1") == ["a", "b"]
    assert headers.groups_of("2") == ["b"]
    assert headers.groups_of("3") == []
