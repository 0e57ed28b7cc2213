"""Answers of Tailchat's token endpoint: tokens fit for a header, errors that tell no secret."""

import re

from fuzz.cutting import steered
from fuzz.target import Target
from tailchat_gate.identity.oauth.id_token import JsonObject, json_object
from tailchat_gate.identity.oauth.login import LoginRefused
from tailchat_gate.identity.oauth.responses import TokenSet, read_tokens, refused
from tailchat_gate.reasons import STATUS, Reason

_NOW = 1_800_000_000.0
_YEAR = 365 * 86_400
#: "@" stands for it in an input.
_SECRET = "the-secret-of-the-app"  # noqa: S105 - of the fuzzer
_CALLS = ("token", "refresh", "recheck", "me")
_STATUSES = (200, 400, 401, 403, 429, 500, 503)
#: What ends a session, and nothing else does.
_WITHDRAWN = {("recheck", 401, "invalid_token"), ("refresh", 400, "invalid_grant")}
_VISIBLE = re.compile("[!-~]+")


def check(data: bytes) -> None:
    """Read an answer as an error and as a grant; two bytes say of which call and status it is."""
    (call, status), rest = steered(data, 2)
    try:
        answer = json_object(rest.replace(b"@", _SECRET.encode("ascii")))
    except ValueError:
        return
    _check_error(_CALLS[call % len(_CALLS)], _STATUSES[status % len(_STATUSES)], answer)
    _check_grant(answer)


def _check_error(call: str, status: int, answer: JsonObject) -> None:
    found = refused(call, status, answer, (_SECRET,))
    ended = (call, status, str(answer.get("error"))) in _WITHDRAWN
    assert (found.reason is Reason.SESSION_REVOKED) == ended
    assert found.reason in STATUS
    for text in found.detail.values():
        assert _SECRET not in text
        assert len(text) <= 200
        assert text.isprintable()


def _check_grant(answer: JsonObject) -> None:
    try:
        tokens = read_tokens("token", answer, now=_NOW)
    except LoginRefused as error:
        reason, detail = error.reason, error.detail
    else:
        _check_tokens(tokens)
        return
    assert reason is Reason.TAILCHAT_BROKEN
    assert _SECRET not in repr(detail)


def _check_tokens(tokens: TokenSet) -> None:
    assert _VISIBLE.fullmatch(tokens.access_token)
    assert tokens.refresh_token == "" or _VISIBLE.fullmatch(tokens.refresh_token)
    assert tokens.expires_at == 0 or _NOW < tokens.expires_at <= _NOW + _YEAR
    assert len(tokens.access_token) < len("TokenSet()") or tokens.access_token not in repr(tokens)


TARGET = Target(
    check,
    parsers=("identity.oauth.responses",),
    seeds=(
        b'\x00\x00{"access_token":"a","token_type":"Bearer","expires_in":3600}',
        b'\x00\x00{"access_token":"a","token_type":"bearer","refresh_token":"r","expires_in":1e3}',
        b'\x00\x00{"access_token":"a b","token_type":"Bearer"}',
        b'\x00\x00{"access_token":"a","token_type":"Bearer","expires_in":true}',
        b'\x00\x01{"error":"invalid_grant","error_description":"grant request is invalid"}',
        b'\x01\x01{"error":"invalid_grant"}',
        b'\x02\x02{"error":"invalid_token","error_description":"@"}',
        b'\x00\x02{"error":"invalid_client","error_description":"a\\u0000@\\nb"}',
        b'\x00\x05{"error":"server_error","error_description":["@"]}',
        b'\x00\x01{"error":["@"],"error_description":{"@":1}}',
    ),
    words=(
        *(b'"error":', b'"error_description":', b'"access_token":', b'"token_type":"Bearer"'),
        *(b'"refresh_token":', b'"expires_in":', b"@", b"invalid_grant", b"invalid_token"),
        *(b"null", b"true", b"-1", b"1e999", b"\\u0000", b"\\ud800", b"\\u2028"),
    ),
)
