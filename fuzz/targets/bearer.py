"""Tokens of machines: only the one that is configured is one, and none reaches a tool unseen."""

from base64 import b64encode

from fuzz.cutting import lines_of
from fuzz.reference.bearer import presented
from fuzz.reference.syntax import BadError
from fuzz.target import Target
from tailchat_gate.config.model import Token
from tailchat_gate.identity.machine_tokens import TokenRefused, Tokens, hash_of, make_token
from tailchat_gate.identity.revocation.state import RevocationState
from tailchat_gate.reasons import Reason, RefusedError
from tailchat_gate.request.authorization import read_token
from tailchat_gate.request.fields import FieldSection

_NOW = 1_800_000_000.0
#: "@" stands for it in an input.
_KNOWN = make_token(bytes(range(32)))
_TOKENS = Tokens(
    (Token(name="ci", hash=hash_of(_KNOWN)),), lambda: _NOW, RevocationState(lambda: _NOW)
)


def check(data: bytes) -> None:
    """Read Authorization fields, a line each; a line that begins with "+" is the gate's field."""
    count = data.count(b"\n") + 1
    lines = [line.encode("latin-1") for line in lines_of(data, count)]
    values = [_filled(line) for line in lines if not line.startswith(b"+")]
    own = [_filled(line[1:]) for line in lines if line.startswith(b"+")]
    try:
        wanted = presented(values, own)
    except BadError:
        try:
            read_token(values, own)
        except RefusedError:
            return
        raise AssertionError("what should be refused is not") from None
    found = read_token(values, own)
    if wanted is None:
        assert found is None
        return
    assert found is not None
    assert (found.token, found.way.value) == wanted
    names = [b"Authorization"] * len(values) + [b"x-tailchat-TOKEN"] * len(own)
    section = FieldSection(list(zip(names, [*values, *own], strict=True)))
    assert (section.bearer, section.token_way) == found
    _check_machine(section, is_known=found.token == _KNOWN.encode("ascii"))


def _filled(line: bytes) -> bytes:
    """Return a line with tokens filled in.

    "@" stands for the known one, "#" for it as Basic's password, "%" as its user name, "&" as both.
    """
    token = _KNOWN.encode("ascii")
    for mark, text in (
        *((b"@", token), (b"#", b64encode(b"ci:" + token)), (b"%", b64encode(token + b":"))),
        (b"&", b64encode(token + b":" + token)),
    ):
        line = line.replace(mark, text)
    return line.strip(b" \t")


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
    parsers=("request.authorization", "identity.machine_tokens", "request.fields"),
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
        b"@",
        b"token @",
        b'Digest response="@"',
        b"token x@",
        b"Bearer a.@",
        b"Basic @",
        b"Basic #",
        b"bASIC  #=",
        b"Basic dTp0Z18xCg",
        b"Basic dTp0Z18x=",
        b"Basic #\nBasic x",
        b"Basic %",
        b"Basic &",
        b"Basic % x",
        b"Basic " + b64encode(_KNOWN.encode("ascii") + b":tg_"),
        b"Basic " + b64encode(b" " + _KNOWN.encode("ascii") + b":"),
        b"Basic " + b64encode(_KNOWN.encode("ascii")),
        b"Basic #\n+@",
        b"+@",
        b"+tg_1 x\nBasic x",
        b"+admin",
        b"+@\n+@",
    ),
    words=(
        *(b"Bearer ", b"bearer", b"tg_", b"@", b"\n", b" ", b"\t", b'"', b"'", b":", b"=", b","),
        *(b"Basic ", b"#", b"%", b"&", b"+", b"dGdf", b"_", b"-", b"\xe9", b"TG_"),
    ),
)
