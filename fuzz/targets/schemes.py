"""Schemes of authentication: none that may make a connection a person's goes unseen."""

from fuzz.cutting import lines_of
from fuzz.reference import schemes as reference
from fuzz.target import Target
from tailchat_gate.reasons import RefusedError
from tailchat_gate.request.authorization import PER_REQUEST, challenge_binds, credentials_bind
from tailchat_gate.request.fields import FieldSection


def check(data: bytes) -> None:
    """Read Authorization values, a line each, and each as a challenge."""
    lines = lines_of(data, data.count(b"\n") + 1)
    values = [line.encode("latin-1").strip(b" \t") for line in lines]
    wanted = any(reference.of_credentials(one) not in PER_REQUEST for one in values if one)
    assert credentials_bind(values) == wanted
    for value in values:
        found = challenge_binds(value)
        assert found == reference.challenged(value, PER_REQUEST)
        assert challenge_binds(value + b" , NTLM")
    try:
        section = FieldSection([(b"Host", b"h"), *((b"Authorization", one) for one in values)])
    except RefusedError:
        return
    assert section.binds == wanted


TARGET = Target(
    check,
    parsers=("request.authorization",),
    seeds=(
        b"NTLM TlRMTVNTUAAB",
        b"Basic eDp5\nNegotiate YII=",
        b'Basic realm="a, NTLM", charset="UTF-8"',
        b'Digest realm="x",Negotiate,NTLM',
        b"bASIC x",
        b', kerberos\t"',
        b'Basic realm="\\"", nego2',
    ),
    words=(
        *(b"NTLM", b"Negotiate", b"Kerberos", b"Basic ", b"Bearer ", b"Digest ", b"realm=", b'"'),
        *(b"\\", b",", b" ", b"\t", b"=", b"\n", b"\xe9"),
    ),
)
