from http.cookies import SimpleCookie

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailchat_gate.identity.sessions.cookie_fields import (
    MAX_VALUES,
    CookieNames,
    CookieReader,
    set_cookie,
)

NAMES = CookieNames.for_origin("https://gate.test")
READER = CookieReader(NAMES)
TAILCHATS_HOST = CookieNames.for_origin("https://gate.test", tailchat_url="https://chat.test")
SESSION = b"__Host-tailchat_gate"
LOGIN = b"__Host-tailchat_gate_login"


@pytest.mark.parametrize(
    ("origin", "names"),
    [
        (
            "https://gate.test",
            CookieNames("__Host-tailchat_gate", "__Host-tailchat_gate_login", secure=True),
        ),
        ("http://gate.test", CookieNames("tailchat_gate", "tailchat_gate_login", secure=False)),
        ("http://https:8080", CookieNames("tailchat_gate", "tailchat_gate_login", secure=False)),
    ],
)
def test_names(origin: str, names: CookieNames) -> None:
    """On https the names carry the prefix that no sibling host and no plain page can set."""
    assert CookieNames.for_origin(origin) == names


PIECES = st.sampled_from(
    [
        *(b"; ", b"; ", b";", b"=", b" ", b"view=1", b"a", b"_session=x", b"tailchat_gate=x"),
        *(SESSION + b"=abc", SESSION + b"=def", SESSION, LOGIN + b"_abcdef=x", b"x" + SESSION),
    ]
)


def reading(reader: CookieReader, field: bytes) -> tuple[object, ...]:
    """Return all that is read of a field."""
    sent = reader.for_upstream(field), reader.for_upstream(field, "elsewhere.test")
    return reader.session_values(field), *sent


@given(st.lists(PIECES, max_size=9).map(b"".join))
def test_cookies_of_gates_that_stand_together_are_read_as_any(field: bytes) -> None:
    """What is read around cookies of gates at once is what the pattern of each cookie reads."""
    each = CookieReader(TAILCHATS_HOST)
    each._recent[field] = each._every_cookie(field)
    assert reading(CookieReader(TAILCHATS_HOST), field) == reading(each, field)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        (SESSION + b"=abc", ["abc"]),
        (b"a=b; " + SESSION + b"=abc; c=d", ["abc"]),
        (b"a=b;" + SESSION + b"=abc;c=d", ["abc"]),
        (b"  \t" + SESSION + b" = abc \t;", ["abc"]),
        (SESSION + b"=", [""]),
        (SESSION, [""]),
        (SESSION + b"=a=b==", ["a=b=="]),
        (SESSION + b'="abc"', ['"abc"']),
        (SESSION + b"=one; x=y; " + SESSION + b"=two", ["one", "two"]),
        (SESSION + b"=\xe9\xff\x00", ["\ufffd\ufffd\x00"]),
        (b"", []),
        (b";;;", []),
        (b"a=b", []),
        (b"tailchat_gate=abc", []),
        (b"x" + SESSION + b"=abc", []),
        (SESSION + b"x=abc", []),
        (SESSION + b".0=abc", []),
        (SESSION.upper() + b"=abc", []),
        (SESSION.lower() + b"=abc", []),
        (b"a=" + SESSION, []),
        (b"a=" + SESSION + b"=abc", []),
        (b'a="; ' + SESSION + b'=abc"', ['abc"']),
        (b"a=b, " + SESSION + b"=abc", []),
        (LOGIN + b"=abc", []),
        (b"=" + SESSION + b"=abc", []),
    ],
)
def test_session_values(field: bytes, values: list[str]) -> None:
    """Only a cookie of the whole name counts, in the case it was set with."""
    assert list(READER.session_values(field)) == values


def test_login_values() -> None:
    """Login cookies are read apart from the session cookie, each by its own name."""
    field = SESSION + b"=s; " + LOGIN + b"_Ab-_01=l; " + LOGIN + b"=old; x" + LOGIN + b"_abcdef=x;"
    field += LOGIN + b"_second=m ; " + LOGIN + b"_seven77=n; " + LOGIN + b"_.bcdef=o"
    found = [(cookie.name.encode(), cookie.value) for cookie in READER.login_cookies(field)]

    assert found == [(LOGIN + b"_Ab-_01", "l"), (LOGIN + b"_second", "m")]


def test_values_are_bounded() -> None:
    """Of thousands of cookies of one name the first few are tried, in order."""
    field = b"; ".join(SESSION + b"=%d" % index for index in range(5000))

    assert list(READER.session_values(field)) == ["0", "1", "2", "3"]
    assert MAX_VALUES == 4


@pytest.mark.parametrize(
    ("field", "kept"),
    [
        (b"a=b", b"a=b"),
        (b"a=b;c=d", b"a=b;c=d"),
        (b" a=b ;\tc = d;; ", b" a=b ;\tc = d;; "),
        (SESSION + b"=x", b""),
        (SESSION + b"=x;", b""),
        (SESSION + b"=x; ; ", b""),
        (SESSION, b""),
        (SESSION + b"=x; a=b", b"a=b"),
        (b"a=b; " + SESSION + b"=x", b"a=b"),
        (b"a=b; " + SESSION + b"=x; c=d", b"a=b; c=d"),
        (b"a=b;" + SESSION + b"=x;c=d", b"a=b;c=d"),
        (
            SESSION + b"=1; z=9; " + LOGIN + b"=2; a=\xe9\xff; " + SESSION + b"=3",
            b"z=9; a=\xe9\xff",
        ),
        (b"_session=1; _session.sig=2; a=b; _session.legacy=3; _session.legacy.sig=4", b"a=b"),
        (b"_interaction=1; _interaction_resume=2; _interaction.sig=3; a=b", b"a=b"),
        (b"_session_id=1; _sessions=2; _session.x=3", b"_session_id=1; _sessions=2; _session.x=3"),
        (b"tailchat_gate_two=1; __Host-tailchat_gate-b=2; a=b", b"a=b"),
        (b"a=_session; b=" + SESSION, b"a=_session; b=" + SESSION),
        (b"x_session=1; a_interaction=2", b"x_session=1; a_interaction=2"),
        (b"x" + SESSION + b"=1", b"x" + SESSION + b"=1"),
        (SESSION + b".0=1", SESSION + b".0=1"),
        (b'a="q; ' + SESSION + b'=x; b"; c=d', b'a="q; b"; c=d'),
        (b"flag; " + SESSION + b"=x; =nameless", b"flag; =nameless"),
        (b"", b""),
    ],
)
def test_cookies_for_upstream(field: bytes, kept: bytes) -> None:
    """The gate's and Tailchat's cookies go; every other one keeps its bytes and its place."""
    assert READER.for_upstream(field) == kept


def test_huge_field() -> None:
    """A field of a megabyte is handled like any other."""
    filler = b"; ".join(b"c%d=%d" % (index, index) for index in range(70_000))

    assert READER.for_upstream(SESSION + b"=x; " + filler) == filler
    assert list(READER.session_values(filler + b"; " + SESSION + b"=x")) == ["x"]


cookie_names = st.sampled_from(
    [SESSION, LOGIN, b"_session", b"_session.sig", b"_interaction", b"a", b"__host-tailchat_gate"]
)
pairs = st.lists(
    st.tuples(
        cookie_names,
        st.binary(max_size=6).map(lambda raw: raw.replace(b";", b"")),
        st.sampled_from([b"", b" ", b"\t "]),
    ),
    max_size=8,
)


@given(found=pairs)
def test_nothing_hidden_is_left(found: list[tuple[bytes, bytes, bytes]]) -> None:
    """However cookies are mixed, no hidden one is left and none of the others is lost."""
    field = b";".join(space + name + b"=" + value for name, value, space in found)
    left = READER.for_upstream(field)
    others = [name for name, _, _ in found if name in {b"a", b"__host-tailchat_gate"}]

    assert [pair.partition(b"=")[0].strip() for pair in left.split(b";") if pair] == others
    assert not [*READER.session_values(left), *READER.login_cookies(left)]


@pytest.mark.parametrize(
    ("set_by_upstream", "own"),
    [
        (SESSION + b"=evil; Path=/; Secure", True),
        (SESSION + b"=", True),
        (SESSION, True),
        (b" " + SESSION + b" =evil", True),
        (LOGIN + b"=evil", True),
        (b"a=" + SESSION, False),
        (SESSION + b"2=x", False),
        (b"_session=x", True),
        (b"_session_id=x", False),
        (b"=" + SESSION + b"=evil", True),
        (b"", True),
        (SESSION + b"; Path=/", True),
        (b"anything; Path=/; Max-Age=9", True),
        (b" =" + SESSION + b"=evil; Path=/", True),
        (b"\t= " + SESSION + b"=evil", True),
        (SESSION + b"\t=evil; x=y", True),
        (b"tailchat_gate_two=x; Path=/", True),
        (b"a; b=c", True),
        (b"a=b; c", False),
    ],
)
def test_own_cookie_set_by_upstream(set_by_upstream: bytes, own: bool) -> None:
    """A Set-Cookie of an upstream that would replace one of the gate's is recognised."""
    assert READER.is_reserved(set_by_upstream) is own


BESIDE = CookieReader(CookieNames.for_origin("https://gate.test", tailchat_url="https://chat.test"))


@pytest.mark.parametrize(
    ("host", "beside"),
    [
        ("chat.test", True),
        ("tool.chat.test", True),
        ("gate.test", False),
        ("test", False),
        ("xchat.test", False),
    ],
)
def test_tailchats_cookies_are_hidden_where_they_come_along(host: str, *, beside: bool) -> None:
    """On its host and below, by whole names; elsewhere such a name is a tool's own."""
    field = b"_session=1; _session.legacy.sig=2; _session_id=3; a=b"

    assert BESIDE.for_upstream(field, host) == (b"_session_id=3; a=b" if beside else field)
    assert BESIDE.is_reserved(b"_session=x; Path=/", host) is beside
    assert BESIDE.is_reserved(b"_session=x; domain= .Chat.test", host)
    assert BESIDE.is_reserved(b"_session=x; Domain=test; Path=/", host)
    assert not BESIDE.is_reserved(b"_session_id=x; Domain=test", host)


@pytest.mark.parametrize("secure", [True, False])
def test_set_cookie(secure: bool) -> None:
    """A cookie is set HttpOnly, SameSite=Lax, for every path, for no domain, Secure on https."""
    value = set_cookie("n", "abc-_123", max_age=60, secure=secure)
    (morsel,) = SimpleCookie(value).values()

    assert (morsel.key, morsel.value) == ("n", "abc-_123")
    assert (morsel["path"], morsel["max-age"], morsel["domain"]) == ("/", "60", "")
    assert (morsel["httponly"], morsel["samesite"]) == (True, "Lax")
    assert bool(morsel["secure"]) is secure
    assert value.startswith("n=abc-_123;")


def test_deleting_keeps_the_flags() -> None:
    """A `__Host-` cookie is deleted with Secure and Path=/, or browsers would ignore it."""
    line = set_cookie(NAMES.session, "", max_age=0, secure=True)

    assert line.partition("=")[0] == NAMES.session
    assert {"Max-Age=0", "Secure", "Path=/", "HttpOnly"} <= set(line.split("; "))


@given(value=st.text(max_size=20))
def test_no_value_breaks_the_line(value: str) -> None:
    """No text given as a value adds an attribute or a line to the field."""
    line = set_cookie("n", value, max_age=1, secure=True)

    assert "\r" not in line
    assert "\n" not in line
    assert line.endswith("; HttpOnly; Max-Age=1; Path=/; SameSite=Lax; Secure")
    assert ";" not in line.removesuffix("; HttpOnly; Max-Age=1; Path=/; SameSite=Lax; Secure")


PARTS = st.sampled_from(
    [
        *(b"; ", b";", b"=", b" ", b"\t", b"x", b"a=b", b"theme=dark", b"tailchat_gate", b"other"),
        *(b"__Host-tailchat_gate=v", b"tailchat_gate=v", b"other=v", b"__Host-other=v"),
        *(b"tailchat_gate_login_abcdef=v", b"_session=v", b"_interaction.sig=v", b"\xe9", b"\x0b"),
    ]
)
SETS = [
    CookieNames.for_origin(origin, name, tailchat_url="https://chat.test")
    for name in ("tailchat_gate", "other")
    for origin in ("https://gate.test", "http://gate.test")
]


@given(st.sampled_from(SETS), st.lists(PARTS, max_size=9).map(b"".join), st.integers(0, 2))
def test_each_cookie_is_judged_alone(names: CookieNames, field: bytes, host: int) -> None:
    """What is left of a field is what is left of each of its cookies, whatever is around it."""
    reader, at = CookieReader(names), ("", "gate.test", "chat.test")[host]
    left = [pair for pair in field.split(b";") if reader.for_upstream(pair, at) or not pair.strip()]
    sessions = [value for pair in field.split(b";") for value in reader.session_values(pair)]

    whole = len(left) == len(field.split(b";"))
    rest = field if whole else b";".join(left).strip() if any(map(bytes.strip, left)) else b""
    assert CookieReader(names).for_upstream(field, at) == rest
    assert list(CookieReader(names).session_values(field)) == sessions[:MAX_VALUES]


@pytest.mark.parametrize("names", SETS)
@pytest.mark.parametrize(
    "form", [b"%b", b"%b; a=b", b"a=b; %b", b"a=b; %b; c=d", b"a=b; %b;", b"%b; ", b"a=\xe9; %b"]
)
def test_the_session_is_found_among_cookies_of_tools(names: CookieNames, form: bytes) -> None:
    """A session is found and kept from tools, wherever it is in a field."""
    session = names.session.encode() + b"=" + b"v" * 300
    field = form % session

    assert CookieReader(names).session_values(field) == ("v" * 300,)
    assert session not in CookieReader(names).for_upstream(field)


@given(st.lists(st.lists(PARTS, max_size=6).map(b"".join), max_size=6))
def test_a_field_that_is_remembered_is_read_as_before(fields: list[bytes]) -> None:
    """What a reader says of a Cookie field depends on no field that it read before."""
    reader = CookieReader(SETS[0])
    for field in fields * 3:
        # Another object with the same bytes, as in each request.
        again, fresh = bytes(bytearray(field)), CookieReader(SETS[0])
        assert reader.session_values(again) == fresh.session_values(field)
        for host in ("", "gate.test", "chat.test"):
            assert reader.for_upstream(again, host) == fresh.for_upstream(field, host)


def test_remembered_fields_are_bounded() -> None:
    """A field that came once is not kept, and a stranger's many fields push each other out."""
    reader = CookieReader(NAMES)
    for number in range(1000):
        reader.session_values(b"a=%d" % number)
    assert len(reader._kept) < 10, "but for the few whose hashes are alike"

    for number in range(1000):
        for _ in range(2):
            reader.session_values(b"a=%d%b" % (number, b"x" * 16_000))
    assert sum(
        len(field) for half in (reader._kept._young, reader._kept._old) for field in half
    ) < (4 << 20)
