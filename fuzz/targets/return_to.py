"""Return targets: a browser that follows one stays on an origin of the gate."""

from urllib.parse import unquote, urlsplit

from fuzz.cutting import steered
from fuzz.reference.browser import origin_of
from fuzz.target import Target
from tailchat_gate.identity.oauth.login import MAX_RETURN_TO, safe_return_to
from tailchat_gate.identity.sites import Sites, read_handoff_target

_ORIGINS = ("https://gate.test", "http://127.0.0.1:4180", "https://gate.test:8443")
_ALLOWED = ("https://wiki.test", "http://[::1]:3000")
_PAGES = ("start", "callback", "sign_in", "sign_out")
_PREFIX = "/oauth2"


def check(data: bytes) -> None:
    """Judge a target; one byte chooses the gate's origin."""
    steer, rest = steered(data, 1)
    origin = _ORIGINS[steer[0] % len(_ORIGINS)]
    for text in (rest.decode("utf-8", "surrogateescape"), rest.decode("latin-1")):
        found = _safe(text, origin)
        _check_safe(found, origin)
        assert _safe(found, origin) == found, "judged again it is another"
        if text.startswith("/") and text.isascii() and found != "/":
            assert found == text.replace(" ", "%20"), "its bytes are changed"
        _check_arrival(found, origin)


def _safe(text: str, origin: str) -> str:
    return safe_return_to(text, public_origin=origin, allowed_origins=_ALLOWED, prefix=_PREFIX)


def _check_safe(found: str, origin: str) -> None:
    assert found.isascii()
    assert 0 < len(found) <= MAX_RETURN_TO
    assert not any(sign <= " " or sign == "\x7f" for sign in found)
    reached = origin_of(found, origin + "/oauth2/callback?a=b")
    assert reached in {origin, *_ALLOWED}, reached
    path = found if found.startswith("/") else "/" + found.split("/", 3)[3]
    for reading in (path, unquote(path), unquote(unquote(path))):
        # A server that decodes before it redirects must not send a browser elsewhere either.
        assert origin_of(reading, origin) == origin, reading
        plain = reading.split("?")[0].split("#")[0].lower()
        while "//" in plain:
            plain = plain.replace("//", "/")
        own = plain.split(";")[0].split("/")[:3]
        assert own[:2] != ["", "oauth2"] or own[2:] not in [[page] for page in _PAGES]


def _check_arrival(found: str, origin: str) -> None:
    """A target that finishes a sign-in elsewhere names a host of the gate's, and no other."""
    host = urlsplit(origin).hostname or ""
    arrival = read_handoff_target(found, Sites(origin, frozenset(("wiki.test", host))), _PREFIX)
    if arrival is not None:
        assert arrival.host == "wiki.test"
        assert found.startswith("https://wiki.test/oauth2/arrive?")
        assert arrival.browser


TARGET = Target(
    check,
    parsers=("identity.oauth.login", "identity.sites"),
    seeds=(
        b"\0/wiki?a=b#c",
        b"\0//evil.test",
        b"\0/\\evil.test",
        b"\1http://127.0.0.1:4180/x",
        b"\2https://GATE.test:8443",
        b"\0https://wiki.test/oauth2/arrive?for=x&rd=/a",
        b"\0https://wiki.test@evil.test/",
        b"\0/%2fevil.test",
        b"\0/%5cevil.test/..",
        b"\0/a/..%2f..//evil.test",
        b"\0/oauth2//START;x",
        b"\0/\t/evil.test",
        b"\0http://[::1]:03000/x y",
        "\0/星?b".encode(),
        b"\0javascript:x",
    ),
    words=(
        *(b"/", b"//", b"\\", b"%2f", b"%5c", b"%252f", b"%09", b"\t", b"\n", b" ", b"\0", b"@"),
        *(b"https://", b"http://", b"https:", b"gate.test", b"wiki.test", b"evil.test", b":443"),
        *(
            b"/oauth2/start",
            b"/oauth2/arrive?for=x",
            b"..",
            b"/.",
            b"%2e",
            b"?",
            b"#",
            b";",
            b"[::1]",
        ),
        *(
            "\u3002".encode(),
            "\uff0f".encode(),
            "\u2028".encode(),
            "\xa0".encode(),
            b"%c2%a0",
            b"javascript:",
        ),
    ),
)
