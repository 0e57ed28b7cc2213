"""The works whose requests differ from each other, as those of people do.

Twelve header fields as a browser and an edge send them, over keep-alive connections.
load.lua makes them; in one round every peer gets the same.
"""

from measure import Ask
from roster import OAUTH2_PROXY, PLAIN
from scene import BODY
from work import Family, Work, loads

FAMILY = Family(
    "differ",
    "small keep-alive GETs with a session and twelve header fields that differ",
    "what differs",
)
BLOCK = "mixed"
ROWS = {
    "differ-nothing": ("nothing", "nothing"),
    "differ-path": ("path and query", "path"),
    "differ-referer": ("Referer out of a thousand", "referer"),
    "differ-validator": ("If-None-Match", "validator"),
    "differ-ids": ("X-Request-Id and traceparent", "ids"),
    "differ-edge": ("path, X-Request-Id and traceparent", "path,ids"),
    "differ-cookie": ("one cookie of the tool", "cookie"),
    "differ-most": ("path, ids, Referer, If-None-Match", "path,ids,referer,validator"),
    "differ-all": ("all of these", "path,ids,referer,validator,cookie"),
}
"""Name, title and, as load.lua calls it, what differs."""

PEERS = (*PLAIN, OAUTH2_PROXY, "gate")


def differing() -> tuple[Work, ...]:
    """Return a work for each row."""
    return tuple(
        Work(
            name,
            title,
            "request",
            loads(PEERS, Ask("/page", answer=BODY, differs=differs)),
            family=FAMILY,
            block=BLOCK,
        )
        for name, (title, differs) in ROWS.items()
    )
