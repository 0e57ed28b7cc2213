"""What a request becomes on its way through the gate: docs/headers.md, field by field."""

from dataclasses import dataclass
from fnmatch import fnmatchcase

from fuzz.reference.bearer import presented
from fuzz.reference.request import Request
from fuzz.reference.syntax import Pairs, elements, values
from tailchat_gate.request.field_names import CLAIMS, OWN

#: Fields of the connection (RFC 9110 section 7.6.1), and those that the gate writes anew.
_OWN = frozenset(
    (
        *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization"),
        *(b"proxy-connection", b"te", b"transfer-encoding", b"upgrade", b"content-length", b"host"),
    )
)
#: Fields that tools take from a proxy; nobody but the gate says them.
_MANAGED = (*OWN, *(name for names in CLAIMS.values() for name in names))
#: What an option of Connection takes nothing away from. "close" is reserved as a field's name.
_NEVER_LISTED = frozenset((b"close", b"content-length", b"cookie", b"transfer-encoding"))
#: Fields that only mean something in a head (RFC 9110 section 6.5.1).
_HEAD_ONLY = frozenset(
    (
        *(b"authorization", b"cache-control", b"cookie", b"expect", b"max-forwards", b"origin"),
        *(b"pragma", b"range", b"set-cookie", b"trailer", b"if-match", b"if-modified-since"),
        *(b"if-none-match", b"if-range", b"if-unmodified-since"),
    )
)
#: Digits of a count of hops that means anything.
_MAX_FORWARDS = 9
_ALNUM = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789")
_PLAIN = _ALNUM | frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ-")


@dataclass(frozen=True)
class Setting:
    """What a gate says of its own.

    `own_cookies` are its cookies' names, `own_names` further names that it alone may set, and
    `passed_names`, in lower case, those that a tool gets as sent all the same. `hops` is the chain
    of addresses up to it, `identity` the fields that name the visitor. `host` is the one that the
    tool is asked for, b"" for the visitor's; `forwarded` the value of Forwarded, and `via` the
    name in Via, b"" for neither. `passes_tokens`: a tool gets tokens of the gate.
    `beside_tailchat`: the request's host is Tailchat's or below it.
    """

    own_cookies: frozenset[bytes]
    own_names: frozenset[bytes] = frozenset()
    passed_names: frozenset[bytes] = frozenset()
    hops: bytes = b"127.0.0.1"
    scheme: bytes = b"http"
    identity: Pairs | tuple[()] = ()
    host: bytes = b""
    forwarded: bytes = b""
    via: bytes = b"tailchat-gate"
    passes_tokens: bool = False
    beside_tailchat: bool = True
    request_id: bytes = b""


def to_upstream(sent: Request, gate: Setting, *, upgrade: bool = False) -> Pairs:
    """Return the fields that the upstream gets for a request, in order, its framing aside."""
    host = values(sent.fields, b"host")[0] if sent.host[0] else b""
    passed = [(n, v) for n, v in passed_on(sent, gate) if folded(n) not in gate.own_names]
    token = presented(*(values(sent.fields, n) for n in (b"authorization", b"x-tailchat-token")))
    if token is not None and token.place != "field" and not gate.passes_tokens:
        passed = [(n, v) for n, v in passed if n.lower() != b"authorization"]
    wanted = [
        (b"Host", gate.host or host),
        *_counted_down(sent.method, passed),
        (b"X-Forwarded-Host", host),
        (b"X-Forwarded-For", gate.hops),
        (b"X-Forwarded-Proto", gate.scheme),
        (b"X-Forwarded-Port", sent.host[1] or {b"http": b"80", b"https": b"443"}[gate.scheme]),
    ]
    if gate.forwarded:
        wanted.append((b"Forwarded", gate.forwarded))
    if reads_trailers(sent):
        wanted += [(b"TE", b"trailers"), (b"Connection", b"TE")]
    wanted += [(b"X-Request-Id", gate.request_id), *gate.identity]
    if gate.via:
        wanted.append((b"Via", sent.version.removeprefix(b"HTTP/") + b" " + gate.via))
    if upgrade:
        asked = b",".join(values(sent.fields, b"upgrade")).lower()
        wanted += [(b"Connection", b"Upgrade"), (b"Upgrade", asked)]
    return wanted


def without_framing(pairs: Pairs) -> Pairs:
    """Return fields without those that the gate writes for the body."""
    return [(n, v) for n, v in pairs if n not in {b"Content-Length", b"Transfer-Encoding"}]


def _counted_down(method: bytes, pairs: Pairs) -> Pairs:
    """Return fields with the first Max-Forwards one less, for the methods that count it."""
    counted: Pairs = []
    done = method not in {b"OPTIONS", b"TRACE"}
    for name, value in pairs:
        digits = value.lstrip(b"0")
        is_count = value.isdigit() and 0 < len(digits) <= _MAX_FORWARDS
        if not done and name.lower() == b"max-forwards" and is_count:
            counted.append((name, b"%d" % (int(digits) - 1)))
            done = True
        else:
            counted.append((name, value))
    return counted


def folded(name: bytes) -> bytes:
    """Return a name as servers that make variables of names may see it."""
    return bytes(octet if octet in _ALNUM else ord("-") for octet in name.lower())


def is_the_gates(name: bytes) -> bool:
    """Tell whether a field of this name is never passed on by itself."""
    seen = folded(name)
    if seen in _OWN or not _PLAIN.issuperset(name):
        return True
    return any(fnmatchcase(seen.decode("ascii"), pattern) for pattern in _MANAGED)


def passed_on(request: Request, gate: Setting) -> Pairs:
    """Return the client's fields that a tool gets, in order, those that are set for it aside."""
    listed = set(elements(request.fields, b"connection")) - _NEVER_LISTED
    kept = []
    for name, value in request.fields:
        dropped = is_the_gates(name) and name.lower() not in gate.passed_names
        if dropped or name.lower() in listed:
            continue
        if name.lower() == b"cookie":
            beside = gate.beside_tailchat
            rest = visible_cookies(value, gate.own_cookies, beside_tailchat=beside)
            kept += [(name, rest)] if rest else []
        else:
            kept.append((name, value))
    return kept


_SIGNED = (b"_session", b"_session.legacy", b"_interaction", b"_interaction_resume")
#: Cookies that Tailchat's provider sets (docs/headers.md).
TAILCHATS = frozenset((*_SIGNED, *(name + b".sig" for name in _SIGNED)))


def is_of_a_gate(name: bytes) -> bool:
    """Tell whether a cookie is some gate's, by its name."""
    rest = name.removeprefix(b"__Host-").removeprefix(b"tailchat_gate")
    is_named = name.removeprefix(b"__Host-").startswith(b"tailchat_gate")
    return is_named and rest[:1] in {b"", b"_", b"-"}


def visible_cookies(
    value: bytes, own_cookies: frozenset[bytes], *, beside_tailchat: bool = True
) -> bytes:
    """Return a Cookie value without the gate's and Tailchat's cookies, the others as they are."""
    pairs = value.split(b";")
    names = [pair.split(b"=")[0].strip() for pair in pairs]
    others = TAILCHATS if beside_tailchat else frozenset()
    hidden = [n in own_cookies | others or is_of_a_gate(n) for n in names]
    if not any(hidden):
        return value
    kept = [pair for pair, is_hidden in zip(pairs, hidden, strict=True) if not is_hidden]
    return b";".join(kept).strip() if any(pair.strip() for pair in kept) else b""


def passed_trailers(trailers: Pairs) -> Pairs:
    """Return the trailers that a tool gets, in order."""
    return [
        (name, value)
        for name, value in trailers
        if not is_the_gates(name)
        and folded(name) not in _HEAD_ONLY
        and not folded(name).startswith(b"content-")
    ]


def reads_trailers(request: Request) -> bool:
    """Tell whether the client says that it reads trailers (RFC 9110 section 10.1.4)."""
    listed = b"te" in elements(request.fields, b"connection")
    return listed and b"trailers" in elements(request.fields, b"te")
