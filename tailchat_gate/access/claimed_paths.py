"""Judges the paths that a request names in its fields, and rewrites these fields; pure."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from tailchat_gate.access.policy import Rule
from tailchat_gate.access.route import Match, Route
from tailchat_gate.access.routes import RouteTable
from tailchat_gate.config.values.path import inside
from tailchat_gate.reasons import Reason, RefusedError
from tailchat_gate.request.claims import REWRITTEN
from tailchat_gate.request.field_names import fold
from tailchat_gate.request.fields import FieldSection
from tailchat_gate.request.readings import MAX_READINGS, TooManyReadingsError, readings
from tailchat_gate.request.target import Claim, Host, Purpose, Target, read_target
from tailchat_gate.syntax import DEFAULT_PORTS

#: How many folders of the request's own path may be the base of a relative name.
_MAX_FOLDERS: Final = 6
#: The folders of an account in Swift: "/v1/NAME".
_ACCOUNT_FOLDERS: Final = 2
_DEFAULT_PORTS: Final = frozenset(map(str, DEFAULT_PORTS.values()))
#: No rewritten values: the tool gets the fields as they were sent.
AS_SENT: Final[Mapping[bytes, bytes]] = MappingProxyType({})


class Claimed(NamedTuple):
    """The rules for the paths in a request's fields, and the fields' values for the tool."""

    rules: tuple[Rule, ...]
    values: Mapping[bytes, bytes]


class ClaimingRequest(NamedTuple):
    """The request that names paths.

    `forwarded`: the gate itself forwards it, so that it can rewrite paths for the tool.
    `public_port`: the port that visitors use, which a proxy in front may have removed from Host.
    """

    host: Host
    target: Target
    methods: frozenset[str]
    forwarded: bool
    public_port: str = ""


class _Judge:
    """Finds the rules for the paths in one request's fields.

    All of them together may have as many readings as one path. Otherwise a few hundred bytes of
    fields would cost more than a hundred requests.
    """

    def __init__(self, table: RouteTable, host: str) -> None:
        self._table = table
        self._host = host
        self._left = MAX_READINGS

    def find(self, path: str, methods: frozenset[str]) -> Match | None:
        """Return the match of a path; raises TooManyReadingsError."""
        self._left -= len(readings(path))
        if self._left < 0:
            raise TooManyReadingsError
        first, *others = sorted(methods)
        table, host = self._table, self._host
        match = table.match(host, path, first)
        return table.match_each(match, host, path, others) if match and others else match

    def touched(self, path: str, methods: frozenset[str]) -> list[Rule]:
        """Return the rules at every place to which some reading of a path leads."""
        return self._table.touched(self._host, path, methods)


def judge_claims(
    table: RouteTable,
    match: Match,
    fields: FieldSection,
    claims: Iterable[Claim],
    request: ClaimingRequest,
) -> Claimed:
    """Return the rules and rewritten values for the claims of a request that `match` serves.

    Raises RefusedError for another host, another tool, and a path that no route offers.
    """
    rules: list[Rule] = []
    seen: dict[bytes, list[tuple[Claim, bytes]]] = {}
    judge = _Judge(table, request.host.name)
    for claim in claims:
        if claim.relative:
            rules += _relative(judge, match.route, claim, request)
            continue
        _check_authority(claim, request)
        claimed = judge.find(claim.target.path, _methods(claim, request))
        if claimed is None:
            raise _refused("a field with a path that no route offers")
        rules += claimed.rules
        if request.forwarded:
            value = _as_sent(claimed.route, match.route, claim, request.host)
            seen.setdefault(claim.name, []).append((claim, value))
    return Claimed(tuple(rules), MappingProxyType(_values(fields, seen)))


def _methods(claim: Claim, request: ClaimingRequest) -> frozenset[str]:
    """Return the methods that amount to the use of a claimed path."""
    if claim.purpose is Purpose.READ:
        return frozenset(("GET",))
    if claim.purpose is Purpose.MOVE:
        return frozenset(("GET", "DELETE"))
    return request.methods | {"PUT"} if claim.purpose is Purpose.WRITE else request.methods


def _check_authority(claim: Claim, request: ClaimingRequest) -> None:
    authority, host = claim.authority, request.host
    if authority is None:
        return
    ports = {authority.port, host.port} - _DEFAULT_PORTS - {""}
    same_port = not ports or authority.port in {host.port, host.port or request.public_port}
    if authority.name != host.name or not same_port:
        raise _refused("a field with a path of another host")


def _relative(judge: _Judge, route: Route, claim: Claim, request: ClaimingRequest) -> list[Rule]:
    """Return the rules for every path that a name within the tool's own space may stand for.

    S3 takes it relative to its root, Swift relative to the account, whose folders begin the
    request's path: a route must offer that path. The rules for the readings of other servers apply
    as well. The name is not rewritten, because it is already the tool's own, and often signed.
    """
    own = read_target(route.upstream_target(request.target.raw).decode("ascii"), None).path
    folders = own.split("/")[1:-1][:_MAX_FOLDERS]
    base = min(_ACCOUNT_FOLDERS if claim.in_account else 0, len(folders))
    methods = _methods(claim, request)
    rules: list[Rule] = []
    for count in range(len(folders) + 1):
        path = _outward(route, "/".join(("", *folders[:count])) + claim.target.path)
        match = None if path is None else judge.find(path, methods)
        if match is None and (count == base or (path is None and not count)):
            raise _refused("a field with a path that no route offers")
        rules += judge.touched(path, methods) if path is not None else ()
    return rules


def _outward(route: Route, path: str) -> str | None:
    """Return the visitor's path for one of the tool's, None for one that the route cuts off."""
    seen = route.settings.upstream_path
    if seen is None:
        return path
    below, own = seen.rstrip("/"), route.settings.path.rstrip("/")
    return own + path[len(below) :] if not below or inside(path, below) else None


def _as_sent(serving: Route, route: Route, claim: Claim, host: Host) -> bytes:
    """Return the path as the tool gets it: b"" for unchanged, or as one of the tool's addresses.

    A URL stays one, for Apache's mod_dav takes no path alone, with the scheme that the tool is
    asked by and the Host that it is sent: it compares both.
    """
    settings = route.settings
    if serving.settings.upstream != settings.upstream:
        raise _refused("a field with a path of another tool")
    raw = serving.upstream_target(claim.target.raw)
    if claim.authority is None:
        return raw if raw != claim.target.raw else b""
    own, scheme = settings.upstream_host, _scheme(settings.backends[0])
    same = scheme == claim.scheme and claim.authority.port == host.port
    if own is None and same and raw == claim.target.raw:
        return b""
    return b"%b://%b%b" % (scheme.encode("ascii"), own.encode("ascii") if own else host.raw, raw)


def _scheme(upstream: str) -> str:
    return "https" if upstream[:8].lower() == "https://" else "http"


def _values(
    fields: FieldSection, seen: Mapping[bytes, list[tuple[Claim, bytes]]]
) -> dict[bytes, bytes]:
    """Return the values of the fields in which something has to be told otherwise.

    They are by their names as sent, in lower case.
    """
    made: dict[bytes, bytes] = {}
    for sent, sent_value in fields.pairs if seen else ():
        name, value = fold(sent), sent_value
        for claim, raw in reversed(seen.get(name, ()) if name in REWRITTEN else ()):
            if raw:
                made[sent.lower()] = value = value[: claim.start] + raw + value[claim.end :]
    return made


def _refused(text: str) -> RefusedError:
    return RefusedError(text, Reason.CLAIM_REFUSED)
