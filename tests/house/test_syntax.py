"""The grammar is spelled once: in syntax.py, and nowhere a second time."""

import ast
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import pytest
from pydantic import TypeAdapter
from tables import check_each

import tailchat_gate
from tailchat_gate import syntax
from tailchat_gate.config.tables import fields, route_fields
from tailchat_gate.config.tables.fields import matching
from tailchat_gate.config.values import identifier
from tailchat_gate.identity.oauth.responses import ProfileError, profile_from_userinfo
from tailchat_gate.identity.revocation.records import is_message, is_person, is_target

ROOT: Final = Path(tailchat_gate.__file__).parent
#: Classes of characters that are rules of their own wherever they stand.
CLASSES: Final = (
    *(syntax.TCHAR, syntax.CTL, syntax.VCHAR, syntax.UNRESERVED, syntax.BASE64URL),
    *(syntax.TCHAR.replace("A-Z", ""), f"{syntax.CTL}{syntax.C1}"),
    f"{syntax.CTL}{syntax.C1}{syntax.SEPARATORS}{syntax.SURROGATES}",
)
#: Words that two modules may list, and why.
LISTS: Final[Mapping[tuple[object, ...], str]] = MappingProxyType(
    {
        ("file", "locks"): "the place of a key in the file",
        ("secrets", "session"): "the place of a key in the file",
        ("", "/"): "no path, and the path of nothing",
    }
)
_CALLS: Final = frozenset(
    (
        *("compile", "match", "fullmatch", "search", "sub", "findall", "finditer", "split"),
        "matching",
    )
)
_CHARACTERS: Final = "".join(map(chr, (*range(0x250), 0x2028, 0x2029, 0xD800, 0xDFFF, 0xFF21)))
_CLASS: Final = re.compile(r"\[(?:\\.|[^\]\\])+\]", re.DOTALL)


@cache
def _characters(brackets: str) -> frozenset[str]:
    """Return what a class matches, as far as it matters, however it is written."""
    # A text in brackets need be no class: a range of "z-a" is none.
    inner = brackets[1:-1].replace("\\[", "[").replace("[", "\\[")
    try:
        return frozenset(re.findall(f"[{inner}]", _CHARACTERS, re.DOTALL))
    except re.error:
        return frozenset()


@cache
def normal(pattern: str) -> str:
    """Return a pattern in one spelling: classes by what they match, groups and repeats alike.

    White space is dropped, because a verbose pattern may have it anywhere.
    """
    names: dict[frozenset[str], str] = {}

    def named(match: re.Match[str]) -> str:
        found = _characters(match[0])
        return names.setdefault(found, f"<{hash(found):x}>")

    text = _CLASS.sub(named, pattern)
    text = re.sub(r"\(\?[aimsx]+\)", "", text)
    text = re.sub(r"(?<!\\)\((?!\?)", "(?:", text)
    text = re.sub(r"(?<=[*+?}])\+", "", text).replace(r"\Z", "$")
    return re.sub(r"\s+", "", text)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


def _is_pattern(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    return name in _CALLS or (name.startswith("re.") and name[3:] in _CALLS)


@cache
def _nodes(tree: ast.AST) -> Sequence[ast.AST]:
    """Return all nodes of a module: to find them takes longer than to look at them."""
    return tuple(ast.walk(tree))


def literals(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """Yield each pattern's literal parts, and whether a part is the whole of its pattern."""
    for node in _nodes(tree):
        if isinstance(node, ast.Call) and _is_pattern(node) and node.args:
            whole = isinstance(node.args[0], ast.Constant)
            for part in ast.walk(node.args[0]):
                if isinstance(part, ast.Constant) and isinstance(part.value, str | bytes):
                    yield _text(part.value), whole
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "pattern":
                    yield from ((part, True) for part in _constants(value))


def _constants(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            yield _text(node.value)


def _texts(tree: ast.AST) -> Iterator[str]:
    """Yield every text of a module but what is written for people: its docstrings."""
    nodes = _nodes(tree)
    said = {
        id(node.body[0].value)
        for node in nodes
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in nodes:
        value = node.value if isinstance(node, ast.Constant) else None
        if isinstance(value, str | bytes) and id(node) not in said:
            yield _text(value)


@cache
def rules() -> Mapping[str, str]:
    """Return the patterns of syntax.py in their one spelling, by name."""
    found = {}
    for name, value in vars(syntax).items():
        text = value.pattern if isinstance(value, re.Pattern) else value
        if name.isupper() and isinstance(text, str | bytes) and set(_text(text)) & set("[?*+"):
            found[name] = normal(_text(text))
    # What every pattern may hold: the classes have a test of their own.
    return {name: rule for name, rule in found.items() if "<" in rule and len(rule) > 18}


def second_classes(tree: ast.AST) -> list[str]:
    """Return the classes in a module's texts that syntax.py has under a name."""
    known = {_characters(f"[{no}{one}]") for one in CLASSES for no in ("", "^")}
    found = (match[0] for text in _texts(tree) for match in _CLASS.finditer(text))
    return [brackets for brackets in found if _characters(brackets) in known]


def second_rules(tree: ast.AST) -> list[str]:
    """Return the pattern texts of a module that hold a rule of syntax.py, written out."""
    spelled = rules().values()
    return [text for text, _ in literals(tree) if any(rule in normal(text) for rule in spelled)]


def shared_patterns(trees: Mapping[str, ast.AST]) -> list[tuple[str, set[str]]]:
    """Return the patterns that two modules write out."""
    by_text: dict[str, set[str]] = defaultdict(set)
    for name, tree in trees.items():
        for text, whole in literals(tree):
            if whole and len(text) > 5:
                by_text[normal(text)].add(name)
    return [(text, names) for text, names in by_text.items() if len(names) > 1]


def _words(node: ast.AST) -> tuple[object, ...] | None:
    if not isinstance(node, ast.Set | ast.Tuple | ast.List) or len(node.elts) < 2:
        return None
    values = [one.value if isinstance(one, ast.Constant) else None for one in node.elts]
    if not all(isinstance(value, str | bytes) for value in values):
        return None
    return tuple(sorted(_text(value) for value in values if isinstance(value, str | bytes)))


def shared_lists(trees: Mapping[str, ast.AST]) -> list[tuple[tuple[object, ...], set[str]]]:
    """Return the sets of words that two modules write out, in whatever order."""
    by_words: dict[tuple[object, ...], set[str]] = defaultdict(set)
    for name, tree in trees.items():
        for node in _nodes(tree):
            if (words := _words(node)) is not None:
                by_words[words].add(name)
    return [
        (words, names) for words, names in by_words.items() if len(names) > 1 and words not in LISTS
    ]


SOURCES: Final = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in sorted(ROOT.rglob("*.py"))
}


@cache
def trees() -> Mapping[str, ast.Module]:
    """Return every module; not where tests are only collected, which each process does."""
    return {name: ast.parse(source) for name, source in SOURCES.items()}


def test_no_module_spells_a_rule_of_the_grammar() -> None:
    """A class or a pattern of syntax.py is written out in no other module."""

    def check(name: str) -> None:
        assert second_classes(trees()[name]) == []
        assert second_rules(trees()[name]) == []

    check_each([name for name in SOURCES if name != "syntax.py"], check)


def test_no_pattern_is_written_in_two_modules() -> None:
    """What two modules need as a pattern is a rule of the grammar."""
    assert shared_patterns(trees()) == []


def test_no_list_of_words_is_written_in_two_modules() -> None:
    """Equal sets of methods, fields or keywords are one set."""
    assert shared_lists(trees()) == []


@pytest.mark.parametrize(
    ("source", "finds"),
    [
        (r're.compile(r"[0-9A-Za-z!#$%&\'*+.^_`|~-]{3}")', second_classes),
        (r're.compile(rb"x[!#$%&\'*+\-.^_`|~0-9a-z]")', second_classes),
        (r'P = "^[\\x00-\\x1f\\x7f]$"', second_classes),
        (r're.fullmatch("[a-zA-Z0-9_-]+", x)', second_classes),
        (r're.compile("(id:)?([a-f0-9]{24})")', second_rules),
        (r're.compile(b"0*([0-9]{1,15})")', second_rules),
        (r'{"pattern": "^[0-9]{1,5}$|^[A-Z][A-Z0-9_-]{0,31}$"}', second_rules),
        (r'matching("sha256:[a-f0-9]{64}")', second_rules),
        (r're.compile("q= ( 0 (\\. [0-9]{0,3} )? | 1 (\\. 0{0,3} )? )", re.X)', second_rules),
    ],
)
def test_a_second_spelling_is_found(source: str, finds: Callable[[ast.AST], list[str]]) -> None:
    """The check sees a rule in other words: another order, escapes, groups, bytes."""
    assert finds(ast.parse(source)) != []


def test_what_two_modules_share_is_found() -> None:
    """The check sees a pattern and a set of two modules, in other words too."""
    one = ast.parse('re.compile("a[0-9a-f]+(b)"); frozenset(("GET", "HEAD"))')
    other = ast.parse('re.compile(rb"a[a-f0-9]++(?:b)"); {"HEAD", "GET"}')

    assert len(shared_patterns({"one": one, "other": other})) == 1
    assert len(shared_lists({"one": one, "other": other})) == 1


@pytest.mark.parametrize("name", ["HTTP_URL", "HTTP_ORIGIN"])
def test_a_long_s_is_no_s(name: str) -> None:
    """A scheme in letters that only look like ASCII in any case is none."""
    rule = vars(syntax)[name]
    pattern = rule if isinstance(rule, re.Pattern) else re.compile(rule, syntax.ANY_CASE)

    assert pattern.fullmatch("HTTPS://a.example")
    assert not pattern.fullmatch("http\u017f://a.example")


@pytest.mark.parametrize("path", [name for name, source in SOURCES.items() if "HTTP_" in source])
def test_schemes_are_compared_as_ascii(path: str) -> None:
    """No module reads text with a scheme in any case without saying that letters are ASCII."""
    calls = [node for node in _nodes(trees()[path]) if isinstance(node, ast.Call)]
    compiled = [call for call in calls if ast.unparse(call.func) == "re.compile"]

    for call in compiled:
        source = ast.unparse(call)
        is_octets = "encode" in source or "_OCTETS" in source
        assert "HTTP_" not in source or is_octets or "IGNORECASE" not in source


def test_one_value_has_one_spelling_in_base64url() -> None:
    """What reads base64url takes back what is written, and nothing else."""
    for raw in (b"", b"\xfb", b"\xff\xfe", bytes(range(32))):
        assert syntax.from_base64url(syntax.base64url(raw)) == raw
    odd = ("A", "AB", "AAB", "AAAAA", "-_==", "AA==", "+/8", "AAA+", "AAA/", "AA\n", "A A")
    for text in (*odd, "AAAAAB", "\u0661\u0661"):
        with pytest.raises(ValueError, match=r"."):
            syntax.from_base64url(text)


# What an editor is told of a value, and what the gate takes.

_LONG: Final = "a" * 64
_WORDS: Final = (
    *("", "a", "a.b", "a_b", "-a", ".a", "a b", "a/b", "ä", "a\n", _LONG, f"{_LONG}a", "A|B"),
    *("gate_login", "gate_login_x", "gate_loginx", "GET", "get", "CONNECT", "PROPFIND", "M-SEARCH"),
    *("/", "/a", "/a/", "/a//b", "/a/../b", "/.", "/..a", "/a%20b", "/a b", "/a;b", "/~a", "/a/./"),
    *("public", "signed-in", "signed-in\n", "group:ops", "group:a b", "group:", "sub:1", "sub:"),
    *("token:my.backup", "token:-x", "token:", f"sub:{'1' * 255}", f"sub:{'1' * 256}", "sub:a b"),
    *(f"sha256:{'0' * 64}", f"sha256:{'A' * 64}", f"sha256:{'0' * 63}", "/a\x7f", "/a\tb", "/b/\n"),
    *("websocket", "WebSocket", "h2c", "https", "h2ca", "a" * 255, "a" * 256),
)
#: Kinds whose rule the schema tells whole. A path of a route may not be the gate's own.
_TOLD: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "allow": route_fields.Allow,
        "audience": route_fields.Audience,
        "cookie name": fields.CookieName,
        "deny": fields.Deny,
        "state path": fields.StatePath,
        "methods": route_fields.Methods,
        "path of a route": route_fields.RoutePath,
        "pem file": route_fields.PemFile,
        "prefix": fields.Prefix,
        "response fields": route_fields.PassResponseFields,
        "route name": route_fields.RouteName,
        "token hash": route_fields.TokenHash,
        "token name": route_fields.TokenName,
        "upgrades": route_fields.Upgrades,
        "via": fields.Via,
    }
)


@pytest.mark.parametrize("kind", _TOLD)
def test_the_schema_and_the_gate_take_the_same(kind: str) -> None:
    """An editor marks a word exactly where the gate refuses it."""
    adapter: TypeAdapter[object] = TypeAdapter(_TOLD[kind])
    schema = adapter.json_schema()
    many = schema["type"] == "array"
    pattern = (schema["items"] if many else schema)["pattern"]
    told = [text for text in _WORDS if _matches(pattern, text)]

    assert told == [text for text in _WORDS if _takes(adapter, [text] if many else text)]
    assert told
    assert len(told) < len(_WORDS)


def _matches(pattern: str, text: str) -> bool:
    # As ECMA-262 reads it: its "$" is the very end.
    return re.search(re.sub(r"\$(?=\)|$)", r"(?!\\n)$", pattern), text) is not None


def _takes(adapter: TypeAdapter[object], value: object) -> bool:
    try:
        adapter.validate_python(value)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("length", [1, 128, 129, 255, 256])
def test_a_person_who_can_be_named_can_sign_in(length: int) -> None:
    """Lists, locks and sign-ins take the same subs, as OpenID Connect Core section 2 has them."""
    sub = "a" * length
    fits = length <= 255

    assert identifier.is_sub(sub) is fits
    assert is_person(f"sub:{sub}") is is_target(f"sub:{sub}") is fits
    try:
        signs_in = profile_from_userinfo({"sub": sub}, api_url="https://t.example").sub == sub
    except ProfileError:
        signs_in = False
    assert signs_in is fits


@pytest.mark.parametrize("sign", ["\udc80", "\u2028", "\x9f", "\n", "\x7f", "\0"])
def test_a_line_is_fit_to_be_shown_wherever_it_is_written(sign: str) -> None:
    """A contact and a lock's message hold no control and no byte that no page can be sent with."""
    assert not is_message(f"https://help{sign}.example")
    with pytest.raises(ValueError, match="one line"):
        identifier.contact(f"https://help{sign}.example")


def test_a_pattern_of_the_schema_is_anchored() -> None:
    """A rule that goes into the schema holds for the whole text."""
    assert matching("a|b") != matching("(?:a|b)")
    assert matching("[ab]") == {"type": "string", "pattern": "^[ab]$"}
