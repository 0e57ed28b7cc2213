"""Callbacks: only the browser that began a login ends it, with parameters that came once."""

from fuzz.cutting import lines_of
from fuzz.target import Target
from tailchat_gate.identity.oauth.login import (
    LoginRefused,
    accept_callback,
    open_callback,
    short_text,
)
from tailchat_gate.identity.oauth.login_state import is_browser_cookie
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.reasons import Reason
from tailchat_gate.request.target import query_pairs

_KEYS = KeyRing((b"fuzzing-secret-number-one-is-32-b",), "login")
_ISSUER = "https://tailchat.test"
_BROWSER = "A" * 43
_NOW = 1_800_000_000
#: Sealed once by those keys for that browser at that time; "@" stands for it in an input.
_STATE = (
    "AT-wuXpfRRfBrlqOGPW0YajrZ7N0Irim5LWiCuwDWoDYrOIpd1waaNS7YfQbubMD7kRqlNsG7pY2BPJQuKHPmSM8i-iG"
    "uiWTnxzLuc_KjZ2c9jQAsIR-qu3CjotdQve3daSKT-7Ks2Y-DssfuIM_kXGBi82fxJknRs5Gc9dzlpZR6h8jciB_xnKn"
    "Of7qcHXcdgOfYUMZ2TBWJ05_8GEgw1UZGZcQQFGMaLLUZIzYU38ANySv2O_4i3WUCmBBq5PoGgBsvcHEoPs"
)
_NAMES = ("code", "state", "iss", "error", "error_description")
_EARLY = frozenset(
    (
        *(Reason.LOGIN_MALFORMED, Reason.LOGIN_REFUSED, Reason.LOGIN_STATE_MISSING),
        *(Reason.LOGIN_STATE_FORGED, Reason.LOGIN_OTHER_BROWSER),
    )
)
_LATE = frozenset(
    (
        *(Reason.LOGIN_ISSUER_MISSING, Reason.LOGIN_ISSUER_WRONG, Reason.LOGIN_REFUSED),
        Reason.LOGIN_MALFORMED,
    )
)


def check(data: bytes) -> None:
    """Judge a callback: a line with the login cookies, then the query."""
    cookies, query = lines_of(data, 2)
    browsers = cookies.replace("@", _BROWSER).split(" ")
    pairs = query_pairs("?" + query.replace("@", _STATE))
    assert len(pairs) <= 32
    last = {name: [v for n, v in pairs if n == name] for name in _NAMES}
    once = all(len(values) <= 1 for values in last.values())
    try:
        pending = open_callback(pairs, browsers, keyring=_KEYS, now=_NOW + 5)
    except LoginRefused as refused:
        _check_words(refused, _EARLY)
        ours = last["state"] == [_STATE] and _BROWSER in browsers
        assert not (once and ours), "a callback of ours is refused"
        return
    assert once
    assert last["state"] == [_STATE]
    assert _BROWSER in browsers
    assert is_browser_cookie(_BROWSER)
    try:
        code = accept_callback(pending, expected_issuer=_ISSUER)
    except LoginRefused as refused:
        _check_words(refused, _LATE)
        return
    assert last["iss"] == [_ISSUER]
    assert not any(last["error"])
    assert last["code"] == [code]
    assert code.isascii()
    assert code.isprintable()
    assert " " not in code
    assert 0 < len(code) <= 512


def _check_words(refused: LoginRefused, reasons: frozenset[Reason]) -> None:
    """What a page and the log are told is short and cannot break a line."""
    assert refused.reason in reasons
    for text in refused.detail.values():
        assert text == short_text(text)
        assert len(text) <= 200
        assert text.isprintable()
    assert _STATE not in str(refused.detail)


TARGET = Target(
    check,
    parsers=("identity.oauth.login", "identity.oauth.login_state", "request.target"),
    seeds=(
        b"@\nstate=@&code=abc&iss=https%3A%2F%2Ftailchat.test",
        b"x @\nstate=@&error=access_denied&error_description=no%0d%0a&iss=https://tailchat.test",
        b"@\nstate=@&code=abc",
        b"@\nstate=@&code=a&code=b&iss=https://tailchat.test",
        b"x\nstate=@&code=abc&iss=https://tailchat.test",
        b"@\nerror=login_required",
        b"@\nstate=@x&iss=https://tailchat.test.evil.test",
        b"@\nstate=@&code=%00&iss=https://tailchat.test",
    ),
    words=(
        *(
            b"@",
            b"state=@",
            b"&",
            b"code=",
            b"iss=https://tailchat.test",
            b"error=",
            b"%00",
            b"%20",
        ),
        *(
            b"error_description=",
            b"access_denied",
            b"%0d%0a",
            b"%e2%80%a8",
            b"+",
            b";",
            b"=",
            b"a=",
        ),
    ),
)
