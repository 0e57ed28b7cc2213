"""Warns of addresses and people of the documents' examples, which a copied file still has.

When you check a file, and not at each start: a network of its own may have such names.
"""

import re
from collections.abc import Iterator

from tailchat_gate.config.model import Settings
from tailchat_gate.config.values.identifier import SUB
from tailchat_gate.config.values.url import parse_url

#: Names that are nobody's (RFC 2606 section 3, RFC 6761 section 6.5).
_NOBODYS = re.compile(r"(?:.*\.)?example(?:\.(?:com|net|org))?")
#: Tailchat's ids have five random bytes in the middle.
_MADE_UP = re.compile(f"(?:{SUB})?[0-9a-f]{{8}}0{{10}}[0-9a-f]{{6}}")


def of_examples(settings: Settings) -> Iterator[str]:
    """Warn of what no Tailchat and no network has."""
    for key, url, wanted in (
        ("server.public_url", settings.server.public_url, "the address at which people reach you"),
        ("tailchat.api_url", settings.tailchat.api_url, "the address of your Tailchat"),
    ):
        if _NOBODYS.fullmatch(parse_url(url, "").host):
            yield f"{key}: {url} is the documents' example; write {wanted}"
    for index, route in enumerate(settings.route):
        if route.host and _NOBODYS.fullmatch(route.host):
            yield (
                f"route[{index}].host: {route.host} is the documents' example; write the name at "
                "which people reach the tool"
            )
    listed = {f"groups.{name}": group.subs for name, group in settings.groups.items()}
    listed |= {f"route[{index}].allow": route.allow for index, route in enumerate(settings.route)}
    for key, entries in listed.items():
        for entry in filter(_MADE_UP.fullmatch, entries):
            yield (
                f"{key}: {entry} is the documents' example, and nobody; each person's ID is on "
                f"their page {settings.server.prefix}/userinfo"
            )
