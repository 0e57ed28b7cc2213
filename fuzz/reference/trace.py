"""traceparent, tracestate and X-Request-Id, read a character at a time."""

_HEX = b"0123456789abcdef"
_LETTERS = b"abcdefghijklmnopqrstuvwxyz"
_DIGITS = b"0123456789"
_KEY = _LETTERS + _DIGITS + b"_-*/@"
_ID = _LETTERS + _LETTERS.upper() + _DIGITS


def parent(value: bytes) -> tuple[bytes, bytes, bool] | None:
    """Return the trace id, the parent id and whether it is sampled; None for no traceparent."""
    if len(value) < 55 or value[2:3] + value[35:36] + value[52:53] != b"---":
        return None
    version, trace, span, flags = value[:2], value[3:35], value[36:52], value[53:55]
    if not all(octet in _HEX for octet in version + trace + span + flags):
        return None
    if version == b"ff" or not trace.strip(b"0") or not span.strip(b"0"):
        return None
    if len(value) > 55 and (version == b"00" or value[55:56] != b"-"):
        return None
    return trace, span, int(flags, 16) % 2 == 1


def state(values: list[bytes]) -> list[bytes]:
    """Return the members of tracestate, [] where it is malformed or too long."""
    joined = b",".join(values)
    members = [member.strip(b" \t") for member in joined.split(b",") if member.strip(b" \t")]
    if len(joined) > 4096 or len(members) > 32 or not all(map(_is_member, members)):
        return []
    return members


def _is_member(member: bytes) -> bool:
    key, equals, value = member.partition(b"=")
    return (
        bool(equals)
        and 1 <= len(key) <= 256
        and key[0] in _LETTERS + _DIGITS
        and all(octet in _KEY for octet in key)
        and 1 <= len(value) <= 256
        and all(0x20 <= octet <= 0x7E and octet not in b",=" for octet in value)
    )


def request_id(value: bytes) -> bool:
    """Whether an id is taken over."""
    return (
        1 <= len(value) <= 64
        and value[0] in _ID
        and all(octet in _ID + b"._:=+/@-" for octet in value)
    )
