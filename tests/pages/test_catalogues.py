"""The texts of the pages in each language: whole, translated, and right with every number."""

import re
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest

from tailchat_gate.pages.filters import counted
from tailchat_gate.pages.language import LANGUAGES, choose_language, plural_form

FOLDERS = ("locales", "admin")
FORMS = {"one", "few", "many", "other"}
#: Texts that are the same words in English.
SAME = {
    ("locales", "de"): {"problem.code", "problem.details", "fact.tool"},
    ("locales", "fr"): {"problem.code"},
    ("admin", "de"): {"tool", "routes.name", "routes.tool", "grants.who"},
    ("admin", "fr"): {"pages", "page.configuration", "routes.title", "routes.name"},
}
#: Letters that a text in a language has, where it has letters that no other language here has.
LETTERS = {
    "ja": "[\u3041-\u30ff]|[\u4e00-\u9fff]",
    "ru": "[\u0410-\u044f]",
    "zh": "[\u4e00-\u9fff]",
    "zh-TW": "[\u4e00-\u9fff]",
}
#: Simplified characters of words of these pages, in the texts of Taiwan, and the other way round.
OTHER_CHINESE = {
    "zh-TW": "账录请问题网页访权证书设码随这说开关闭连",
    "zh": "帳錄請問題網頁訪權證書設碼隨這說開關閉連",
}

#: By catalogue, a key and its text, or its forms.
Texts = dict[str, str | dict[str, str]]


def catalogue(folder: str, language: str) -> Texts:
    """Return the texts of a file by their dotted keys."""
    path = files("tailchat_gate.pages").joinpath(folder, f"{language}.toml")
    return dict(_leaves(tomllib.loads(path.read_text(encoding="utf-8"))))


def _leaves(table: dict[str, Any], path: str = "") -> Iterator[tuple[str, str | dict[str, str]]]:
    for key, value in table.items():
        if isinstance(value, dict) and not value.keys() <= FORMS:
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield path + key, value


def said(text: str | dict[str, str]) -> list[str]:
    """Return the sentences of an entry."""
    return list(text.values()) if isinstance(text, dict) else [text]


def placeholders(sentence: str) -> list[str]:
    """Return what is to be filled into a sentence."""
    return sorted(re.findall(r"{\w*}", sentence))


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_catalogue_is_whole(folder: str, language: str) -> None:
    """It has the keys of the English one, each with its placeholders and with nothing else."""
    english, found = catalogue(folder, "en"), catalogue(folder, language)

    assert list(found) == list(english)
    for key, text in found.items():
        (wanted,) = {tuple(placeholders(one)) for one in said(english[key])}
        for sentence in said(text):
            assert tuple(placeholders(sentence)) == wanted, key
            assert sentence == sentence.strip() != "", key
            plain = re.sub(r"{\w+}", "x", sentence)
            assert not re.search(r"[<>&@{}]|\s\s", plain), key


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_a_catalogue_is_translated(folder: str, language: str) -> None:
    """No entry is left in English, but for the few words that are the same, or in other letters."""
    english, found = catalogue(folder, "en"), catalogue(folder, language)
    same = {key for key in found if set(said(found[key])) & set(said(english[key]))}

    assert same == SAME.get((folder, language), set())
    for key, text in found.items():
        for sentence in said(text):
            letters = LETTERS.get(language, "[^\\W\\d_]")
            assert key == "tag" or re.search(letters, sentence), key
            assert not set(sentence) & set(OTHER_CHINESE.get(language, "")), key


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_counts_have_the_forms_of_the_language(folder: str, language: str) -> None:
    """A text with a number has each form that its language knows, and no other."""
    counts = [text for text in catalogue(folder, language).values() if isinstance(text, dict)]

    forms = {plural_form(language, number) for number in range(101)}
    assert all(text.keys() == forms for text in counts)
    assert len(counts) == {"locales": 1, "admin": 5}[folder]


@pytest.mark.parametrize(
    ("language", "form", "numbers"),
    [
        ("ru", "one", (1, 21, 31, 101, 121, 1001, 1_000_001)),
        ("ru", "few", (2, 3, 4, 22, 34, 102, 1_002)),
        ("ru", "many", (0, 5, 9, 10, 11, 12, 13, 14, 19, 20, 25, 100, 111, 112, 1_000_000)),
        *((language, "one", (1,)) for language in ("en", "de", "es")),
        *((language, "other", (0, 2, 5, 11, 21, 101)) for language in ("en", "de", "es")),
        *((language, "one", (0, 1)) for language in ("fr", "pt-BR", "pt")),
        *((language, "other", (2, 10, 101)) for language in ("fr", "pt-BR", "pt")),
        *((language, "other", (0, 1, 2, 21)) for language in ("ja", "zh", "zh-Hans", "zh-TW")),
    ],
)
def test_a_number_takes_its_form(language: str, form: str, numbers: tuple[int, ...]) -> None:
    """As Unicode CLDR has it for whole numbers."""
    assert {plural_form(language, number) for number in numbers} == {form}


def test_a_sentence_is_filled_with_its_number() -> None:
    """The form goes with the number; other values are set apart as everywhere."""
    forms = catalogue("admin", "ru")["plots.requests_label"]
    assert isinstance(forms, dict)

    wanted = forms["few"].format(total="<bdi>3</bdi>", failed="<bdi>&lt;b&gt;</bdi>")
    assert counted(forms, "ru", 3, failed="<b>") == wanted


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_is_called_by_its_own_name(language: str) -> None:
    """Both catalogues have one tag, which leads to the language; no other has its name."""
    found = catalogue("locales", language)
    names = [catalogue("locales", one)["name"] for one in LANGUAGES]

    assert found["tag"] == catalogue("admin", language)["tag"]
    assert choose_language(str(found["tag"])) == language
    assert names.count(found["name"]) == 1
