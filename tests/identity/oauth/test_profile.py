import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailchat_gate.identity.oauth.responses import Profile, ProfileError, profile_from_userinfo

SUB = "660000000000000000000001"
API = "https://tailchat.example.com"
FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"


def profile(**fields: object) -> Profile:
    """Return the profile of a user with these fields."""
    return profile_from_userinfo({"sub": SUB, **fields}, api_url=API)


def test_real_answer() -> None:
    """An answer as a real server gives it becomes a profile with an absolute avatar."""
    answer = json.loads(
        '{"sub":"660000000000000000000001","nickname":"星野 Hoshino ☆","discriminator":"0042",'
        '"avatar":"{BACKEND}/static/files/660000000000000000000001/abc123.png"}'
    )

    assert profile_from_userinfo(answer, api_url=API) == Profile(
        sub=SUB,
        nickname="星野 Hoshino ☆",
        discriminator="0042",
        avatar=f"{API}/static/files/{SUB}/abc123.png",
    )


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "text",
        7,
        {},
        {"sub": None},
        {"sub": ""},
        {"sub": 66},
        {"sub": True},
        {"sub": [SUB]},
        {"sub": {"id": SUB}},
        {"sub": "a b"},
        {"sub": "a\n"},
        {"sub": "a\x00"},
        {"sub": "\x7f"},
        {"sub": "星野"},
        {"sub": "\ud800"},
        {"sub": "a" * 256},
    ],
)
def test_no_usable_sub(data: object) -> None:
    """Without a sub of 1 to 255 visible ASCII characters there is no profile."""
    with pytest.raises(ProfileError) as caught:
        profile_from_userinfo(data, api_url=API)

    assert caught.value.reason in {"not an object", "no sub", "unusable sub"}


@pytest.mark.parametrize("sub", ["a", "!", "~", "a" * 255, "auth0|66,%;"])
def test_usable_sub(sub: str) -> None:
    """A sub of visible ASCII passes as it is, up to the length limit."""
    assert profile_from_userinfo({"sub": sub}, api_url=API).sub == sub


@pytest.mark.parametrize("field", ["nickname", "discriminator", "avatar"])
@pytest.mark.parametrize("value", [None, "", 7, 7.5, True, [], ["x"], {"a": "b"}, "   ", "\r\n"])
def test_nothing_usable(field: str, value: object) -> None:
    """Null, empty, blank, and anything that is not text count as missing."""
    assert profile(**{field: value}) == profile() == Profile(sub=SUB)


@pytest.mark.parametrize(
    ("given_name", "name"),
    [
        ("Plain Bob", "Plain Bob"),
        ("  trimmed \u3000", "trimmed"),
        (FAMILY + ' "O\'Neil", 50%<b>', FAMILY + ' "O\'Neil", 50%<b>'),
        ("Eve\r\nX-Evil: 1", "EveX-Evil: 1"),
        ("a\x00b\x1b[31mc\x7fd\x85e\x9bf\tg", "ab[31mcdefg"),
        ("\ud800a\udfff", "a"),
        ("admin\u202egnp.exe", "admingnp.exe"),
        ("a\u200bb\u200cc\u2060d\ufeffe\u00adf\u061cg\u200eh\u2066i", "abcdefghi"),
        ("a\u2028b\u2029c", "abc"),
        ("\u3164\u115f\uffa0\u034f", ""),
        ("a\U000e0041b", "ab"),
        ("ad\u200dmin\u200d", "admin"),
        ("\u200d\u2764\ufe0f\u200d\U0001f525", "\u2764\ufe0f\u200d\U0001f525"),
        ("a\u00a0\u200d\u00a0\u200d", "a"),
        ("星\u200d\u200d\u200d月", "星\u200d月"),
        ("\u200d" * 60_000 + " " * 60_000 + "a", "a"),
        ("क्\u200dष", "क्\u200dष"),
        ("x" * 5000, "x" * 128),
        ("星" * 5000, "星" * 128),
    ],
)
def test_nickname(given_name: str, name: str) -> None:
    """Controls, surrogates and disguising characters go, emoji and other scripts stay."""
    assert profile(nickname=given_name).nickname == name


@given(text=st.text(alphabet=st.characters(), max_size=400))
def test_any_nickname_is_safe(text: str) -> None:
    """Whatever the nickname, the result is short, encodable, and holds no control."""
    name = profile(nickname=text).nickname

    assert len(name) <= 128
    assert name == name.strip()
    assert name.encode().decode() == name
    assert not {unicodedata.category(c) for c in name if c != "\u200d"} & {"Cc", "Cf", "Cs"}
    assert profile(nickname=name).nickname == name


@pytest.mark.parametrize(
    ("long", "cut"),
    [
        ("x" * 125 + FAMILY, "x" * 125),
        ("x" * 127 + "\U0001f44d\U0001f3fd", "x" * 127),
        ("x" * 127 + "e\u0301z", "x" * 127),
        ("x" * 127 + "\u2764\ufe0f", "x" * 127),
        ("x" * 127 + " yz", "x" * 127),
        ("x" * 121 + FAMILY, "x" * 121 + FAMILY),
        ("\u0301" * 200, "\u0301" * 128),
    ],
)
def test_long_nickname_ends_before_a_sequence(long: str, cut: str) -> None:
    """The cap does not cut an emoji sequence, a skin tone or an accent off its letter."""
    assert profile(nickname=long).nickname == cut


@pytest.mark.parametrize(
    ("value", "kept"),
    [("0042", "0042"), ("7", "7"), (" 1\r\n2 ", "12"), (42, ""), ("9" * 50, "9" * 16)],
)
def test_discriminator(value: object, kept: str) -> None:
    """A discriminator is text with its zeros, cleaned and capped like a nickname."""
    assert profile(discriminator=value).discriminator == kept


@pytest.mark.parametrize(
    ("avatar", "url"),
    [
        ("{BACKEND}/a.png", f"{API}/a.png"),
        ("{BACKEND}/{BACKEND}.png", f"{API}/%7BBACKEND%7D.png"),
        ("https://cdn.example/a.png?x=1&y=%20#z", "https://cdn.example/a.png?x=1&y=%20#z"),
        ("HTTP://cdn.example:8080/a", "HTTP://cdn.example:8080/a"),
        ("https://[::1]:9/a", "https://[::1]:9/a"),
        ("https://cdn.example", "https://cdn.example"),
        ("https://cdn.example/星.png", "https://cdn.example/%E6%98%9F.png"),
        ('https://cdn.example/"<x>', "https://cdn.example/%22%3Cx%3E"),
        ("https://cdn.example/@me", "https://cdn.example/@me"),
        ("javascript:alert(1)", ""),
        ("data:image/png;base64,AAAA", ""),
        ("/static/a.png", ""),
        ("//cdn.example/a.png", ""),
        ("{BACKEND", ""),
        ("{BACKEND}@evil.example/a", ""),
        ("{BACKEND}.evil.example\\a", ""),
        ("https:///a", ""),
        ("https://user@evil.example/", ""),
        ("https://user:pw@evil.example/", ""),
        ("https://good.example\\@evil.example/", ""),
        ("https://星.example/", ""),
        ("https://ev%69l.example/", ""),
        ("https://evil.example/a b", ""),
        ("https://evil.example/\r\nX-Evil: 1", ""),
        ("https://evil.example/\x00", ""),
        ("https://evil.example/\ud800", ""),
        (" https://evil.example/", ""),
        ("https://evil.example/\n", ""),
        ("ftp://cdn.example/a", ""),
        ("https://c.example/" + "a" * 1006, "https://c.example/" + "a" * 1006),
        ("https://c.example/" + "a" * 1007, ""),
        ("https://c.example/" + "星" * 200, ""),
    ],
)
def test_avatar(avatar: str, url: str) -> None:
    """An avatar is an absolute http(s) URL in visible ASCII without credentials, or missing."""
    assert profile(avatar=avatar).avatar == url
