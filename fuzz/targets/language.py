"""Accept-Language: the language a plain reader would choose."""

from fuzz.reference.language import choose
from fuzz.target import Target
from tailchat_gate.pages.language import LANGUAGES, MAX_LENGTH, choose_language


def check(data: bytes) -> None:
    """Choose a language for a field, and for one too long to be read to its end."""
    field = data.decode("latin-1")
    if len(field) <= MAX_LENGTH:
        assert choose_language(field) == choose(field, LANGUAGES)
    whole = field[:MAX_LENGTH].rpartition(",")[0] if len(field) > MAX_LENGTH else field
    assert choose_language(field) == choose(whole, LANGUAGES)
    # What cannot be read says nothing.
    assert choose_language("zh;q=0.1234," + field[:200]) == choose_language(field[:200])


TARGET = Target(
    check,
    parsers=("pages.language",),
    seeds=(
        b"zh-CN,zh;q=0.9,en;q=0.8",
        b"en-GB, *;q=0",
        b"*;q=0.5, en;q=0",
        b"de, fr;q=0.1, zh-Hant-TW ; Q=1.000",
        b"zh;q=1.001, en;q=.5",
        b"x" * 250 + b",zh,en;q=0.9",
        b"en;q=0.1," + b"x" * 250 + b",zh",
        b"zh-Hant-HK, pt;q=0.8, zh-x-tw;q=0.5",
        b"zh-a-x-hant",
    ),
    words=(
        *(
            b"zh",
            b"en",
            b"*",
            b"-",
            b",",
            b";q=",
            b"; q=0",
            b"q=1.000",
            b"0.001",
            b"1.0",
            b" ",
            b"\t",
        ),
        *(b"zh-Hant", b"zh-TW", b"pt", b"pt-BR", b"de-x-", b"-a-"),
        *(b"zh-Hans-CN", b"en-US", b";Q=0.5", b"q=1.1", b"\xe9", b"i-klingon", b"zh;q=0"),
    ),
)
