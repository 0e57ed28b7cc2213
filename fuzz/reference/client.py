"""The chain of X-Forwarded-For, read from the right past trusted proxies."""

import ipaddress
from collections.abc import Sequence


def believed_hops(
    peer: str, chain: str, trusted: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]
) -> list[str]:
    """Return the addresses that are believed, the peer first, then leftwards through the chain."""
    hops = [peer]
    for entry in reversed(chain.split(",")):
        address = _address(entry.strip())
        if address is None:
            break
        hops.append(str(address))
        if not any(address.version == n.version and address in n for n in trusted):
            break
    return hops


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    if text[:1] == "[":
        text = text[1:].split("]", maxsplit=1)[0]
    elif text.count(":") == 1:
        text = text.split(":")[0]
    bare, mark, zone = text.partition("%")
    if mark and (":" not in bare or not zone or set("%/") & set(zone)):
        # Only addresses of version 6 have zones (RFC 4007 section 11).
        return None
    try:
        found = ipaddress.ip_address(bare)
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address):
        return found.ipv4_mapped or found
    return found
