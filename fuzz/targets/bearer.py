"""Tokens of machines: only the one that is configured is one, and none reaches a tool unseen."""

from fuzz.cutting import lines_of
from fuzz.reference.bearer import is_meant, presented
from fuzz.reference.syntax import BadError
from fuzz.target import Target
from tailchat_gate.config.token import Token
from tailchat_gate.identity.locks import Standing
from tailchat_gate.identity.tokens import TokenRefused, Tokens, hash_of, make_token
from tailchat_gate.reasons import Reason
from tailchat_gate.request.bearer import read_bearer
from tailchat_gate.request.fields import FieldSection
from tailchat_gate.request.refusal import RefusedError

_NOW = 1_800_000_000.0
#: "@" stands for it in an input.
_KNOWN = make_token(bytes(range(32)))
_TOKENS = Tokens((Token(name="ci", hash=hash_of(_KNOWN)),), lambda: _NOW, Standing(lambda: _NOW))


def check(data: bytes) -> None:
    """Read Authorization fields, a line each."""
    count = data.count(b"\n") + 1
    lines = lines_of(data, count)
    values = [line.replace("@", _KNOWN).encode("latin-1").strip(b" \t") for line in lines]
    try:
        wanted = presented(values)
    except BadError:
        try:
            read_bearer(values)
        except RefusedError:
            return
        raise AssertionError("what should be refused is not") from None
    found = read_bearer(values)
    assert found == wanted
    assert found is not None or not any(map(is_meant, values))
    if found is None:
        return
    section = FieldSection([(b"Authorization", value) for value in values])
    assert section.bearer == found
    _check_machine(section, is_known=found == _KNOWN.encode("ascii"))


def _check_machine(section: FieldSection, *, is_known: bool) -> None:
    for _ in range(2):
        try:
            machine = _TOKENS.machine_of(section)
        except TokenRefused as error:
            refused = error
        else:
            assert is_known
            assert machine.name == "ci"
            continue
        assert not is_known
        assert (refused.reason, refused.name) == (Reason.TOKEN_UNKNOWN, "")


TARGET = Target(
    check,
    parsers=("request.bearer", "identity.tokens", "request.fields"),
    seeds=(
        b"Bearer @",
        b"bearer   tg_abc",
        b"Bearer tg_",
        b'Basic x\nBEARER "@"',
        b"Bearer other",
        b"x-Bearer=tg_1",
        b"xBearer tg_1",
        b"Bearer @x",
        b"Bearer\t@",
        b"Bearer @, Basic x",
    ),
    words=(
        *(b"Bearer ", b"bearer", b"tg_", b"@", b"\n", b" ", b"\t", b'"', b"'", b":", b"=", b","),
        *(b"Basic ", b"_", b"-", b"\xe9", b"TG_"),
    ),
)
