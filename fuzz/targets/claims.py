"""Paths in fields: whatever is named, no tool is told of a place where the visitor may not go."""

import re

from fuzz.cutting import steered
from fuzz.reference.servers import SERVERS
from fuzz.target import Target
from tailchat_gate.access.claimed_paths import ClaimingRequest, judge_claims
from tailchat_gate.access.policy import decide
from tailchat_gate.access.routes import RouteTable
from tailchat_gate.config.model import RouteSettings
from tailchat_gate.reasons import RefusedError
from tailchat_gate.request.claims import FIELDS, MAX_CLAIMS, claimed_paths
from tailchat_gate.request.fields import FieldSection
from tailchat_gate.request.target import Claim, read_host, read_target

_NAMES = tuple(sorted(FIELDS))
_TABLE = RouteTable(
    [
        RouteSettings(name="all", upstream="http://127.0.0.1:9", allow=("public",)),
        RouteSettings(
            name="in", upstream="http://127.0.0.1:9", path="/admin", allow=("group:ops",)
        ),
        RouteSettings(
            name="cut",
            upstream="http://127.0.0.1:9",
            path="/app",
            upstream_path="/t",
            allow=("public",),
        ),
    ],
    {"ops": ["alice"]},
)
_HOST = read_host(["h"])
_ASKED = ("/x/a", "/app/a")


def check(data: bytes) -> None:
    """Judge the paths of one field; a byte chooses the field, and the path that is asked for."""
    steer, value = steered(data, 1)
    if re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", value):
        return
    name = _NAMES[steer[0] // 2 % len(_NAMES)]
    section = FieldSection([(b"Host", b"h"), (name, value)])
    target = read_target(_ASKED[steer[0] % 2], None)
    match = _TABLE.match("h", target.path, "COPY")
    assert match is not None
    asked = ClaimingRequest(_HOST, target, frozenset(("COPY",)), forwarded=True)
    try:
        claims = claimed_paths(section)
        _check_spans(claims, value)
        claimed = judge_claims(_TABLE, match, section, claims, asked)
    except RefusedError:
        return
    if not decide(claimed.rules, None).allowed:
        return
    told = FieldSection([(b"Host", b"h"), (name, claimed.values.get(name, value))])
    for claim in claimed_paths(told):
        assert claim.authority is None or claim.authority.name == "h"
        for server in SERVERS:
            read = server(claim.target.path)
            assert not f"{read}/".startswith("/admin/"), (server.__name__, read)


def _check_spans(claims: tuple[Claim, ...], value: bytes) -> None:
    assert len(claims) <= MAX_CLAIMS
    end = 0
    for claim in claims:
        assert end <= claim.start < claim.end <= len(value)
        end = claim.end
        named = value[claim.start : claim.end]
        assert claim.target.raw.removeprefix(b"/") in named
        assert claim.authority is None or b"://" in named


TARGET = Target(
    check,
    parsers=("request.claims", "access.claimed_paths"),
    seeds=(
        b"\0http://h/x/b",
        b"\0/x/../admin/b",
        b"\1https://h/app/b%20c",
        b'\2</x/b> (<urn:uuid:1>) <http://h/admin> (["a)b"])',
        b'\2(<urn:uuid:1> ["e"]) (Not <DAV:no-lock>)',
        b"\4final;/x/a /x/b",
        b"\x08/bucket/key?versionId=1",
        b"\x0aadmin%2fkey",
        b"\x0carn:aws:s3:::x",
        b"\x0ehttp://evil/x",
    ),
    words=(b"http://h/", b"/admin", b"%2f", b"..", b"<", b"> (", b")", b"final;", b"?versionId="),
)
