"""Which language a visitor is answered in."""

import pytest

from tailchat_gate.pages.language import LANGUAGES, MAX_LENGTH, choose_language


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("", "en"),
        ("en", "en"),
        ("zh", "zh"),
        ("ZH", "zh"),
        ("zh-CN", "zh"),
        ("en-GB", "en"),
        ("nl", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("en-US,en;q=0.9,zh-CN;q=0.8", "en"),
        ("nl-NL, nl;q=0.9, zh;q=0.3", "zh"),
        ("uk-UA,uk;q=0.9,ru;q=0.8,en;q=0.7", "ru"),
        ("de-AT,de;q=0.9,en;q=0.8", "de"),
        ("en;q=0.3, zh;q=0.7", "zh"),
        ("zh;q=0.3, en;q=0.7", "en"),
        ("zh;q=0.001", "zh"),
        ("zh\t;\tq=0.8 , en;Q=0.5", "zh"),
        (",,zh,", "zh"),
    ],
)
def test_the_heaviest_range_wins(field: str, expected: str) -> None:
    """The language of the range with the highest weight is chosen, whatever its region or case."""
    assert choose_language(field) == expected


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("zh,en", "zh"),
        ("en,zh", "en"),
        ("en;q=0.5,zh;q=0.5", "en"),
        ("zh;q=0.5,en;q=0.5", "zh"),
        ("zh,en;q=0.9,en-GB", "zh"),
    ],
)
def test_of_equal_weights_the_earlier_range_wins(field: str, expected: str) -> None:
    """Where weights tell nothing, the order of the ranges does."""
    assert choose_language(field) == expected


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        *((tag, "zh") for tag in ("zh", "zh-CN", "zh-SG", "zh-Hans", "zh-Hans-TW", "zh-x-tw")),
        *((tag, "zh-TW") for tag in ("zh-TW", "zh-HK", "zh-MO", "zh-Hant", "zh-Hant-CN")),
        *((tag, "zh-TW") for tag in ("zh-hant-tw", "ZH-HK-x-a", "zh-TW-u-co-stroke")),
        *((tag, "pt-BR") for tag in ("pt", "pt-PT", "pt-BR", "pt-AO-x-a-b")),
        *((tag, "de") for tag in ("de", "de-CH-1996", "de-u-co-phonebk", "de-Latn-AT")),
        *((tag, "es") for tag in ("es", "es-419", "es-MX")),
        *(("fr-CA", "fr"), ("ja-JP", "ja"), ("ru-UA", "ru"), ("en-001", "en")),
        *(
            (tag, "en")
            for tag in ("yue", "zho", "d", "x-de", "i-klingon", "nl-BE", "ptx", "zhx-TW")
        ),
    ],
)
def test_a_range_is_looked_up(wanted: str, found: str) -> None:
    """RFC 4647 section 3.4: without its last subtags, until a language of the pages is found."""
    assert choose_language(wanted) == found
    assert choose_language(f"nl, {wanted};q=0.5") == found


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("*", "en"),
        ("nl, *;q=0.5", "en"),
        ("en;q=0.1, *;q=0.8", "en"),
        ("zh;q=0.2, *;q=0.1", "zh"),
        ("*, zh;q=0.2", "zh"),
        ("zh;q=0, *;q=0.1", "en"),
    ],
)
def test_a_wildcard_tells_of_no_language(field: str, expected: str) -> None:
    """`*` is skipped, as RFC 4647 section 3.4 says: any language would be a guess."""
    assert choose_language(field) == expected


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("zh;q=0", "en"),
        ("en;q=0", "en"),
        ("en;q=0, zh;q=0", "en"),
        ("en;q=0, zh;q=0.1", "zh"),
        ("zh;q=0, zh-TW", "zh-TW"),
        ("zh-TW;q=0, zh", "zh"),
    ],
)
def test_a_weight_of_zero_refuses_a_language(field: str, expected: str) -> None:
    """A refused language is not chosen, but a page in English is better than none."""
    assert choose_language(field) == expected


@pytest.mark.parametrize(
    "field",
    [
        "zh;q=2",
        "zh;q=1.1",
        "zh;q=-1",
        "zh;q=0.1234",
        "zh;q=",
        "zh;q=nan",
        "zh;q=1e0",
        "zh;level=1",
        "zh;",
        "zh q=1",
        "zh_CN",
        "zh-",
        "zh-\u017f",
        "zhongwen-zh",
        "中文",
        "\uff5a\uff48",
        "zh;q=\u0660.\u0665",
        "\x00zh",
        "zh\r\n",
        "zhzhzhzhz",
        ";q=1,=,;",
        "\ud800",
    ],
)
def test_a_range_that_is_not_well_formed_is_passed_over(field: str) -> None:
    """Nothing is guessed from garbage, and it does not hide the ranges beside it."""
    assert choose_language(field) == "en"
    assert choose_language(f"{field},zh;q=0.5") == "zh"


def test_nothing_is_read_behind_the_bound() -> None:
    """The field counts only up to its bound, and an element that the bound cuts does not count."""
    filler = "x" * 7 + ","
    assert len(filler) * 32 == MAX_LENGTH
    assert choose_language(filler * 31 + "zh;q=0.9") == "zh"
    assert choose_language(filler * 32 + "zh") == "en"
    assert choose_language(filler * 31 + "zh-Hans,en;q=0.1") == "zh"
    assert choose_language("en;q=0.5," + filler * 30 + "xxxx," + "zh;q=0.1") == "en"
    assert choose_language("zh," * 1_000_000) == "zh"


def test_english_is_the_fallback() -> None:
    """The first language is the one for everybody else; each other one has a file."""
    assert LANGUAGES == ("en", "de", "es", "fr", "ja", "pt-BR", "ru", "zh", "zh-TW")
