"""The work that replays a page load of a real tool, as a browser recorded it."""

import json
import sys
from functools import partial
from pathlib import Path

from differing import BLOCK
from measure import Ask, Sample, children_seconds, empty_logs, expect, parse_load, sample
from peers import Stage
from process import BenchError, cpu_seconds, finished, rss_bytes
from recording import answers, recording
from roster import OAUTH2_PROXY, PLAIN
from work import Entry, Options, Work

NAME = "page"
_VISITS = Path(__file__).with_name("visits.py")
# As many connections as a browser opens to one origin.
_BROWSER = 6


def page() -> Work:
    """Return the work."""
    entries = recording()
    sockets = sum(one.upgrade for one in entries)
    return Work(
        NAME,
        f"page loads of JupyterLab: {len(entries)} requests, of which {sockets} are WebSockets",
        "request",
        tuple(Entry(name, name, partial(_load, name)) for name in (*PLAIN, OAUTH2_PROXY, "gate")),
        block=BLOCK,
    )


def _load(name: str, stage: Stage, options: Options) -> Sample:
    peer = stage.peer(name, "tool")
    entries = recording()
    first = entries[0]
    body = b"x" * answers(entries)[first.key].size
    expect(peer, Ask(first.target, answer=body))
    order = {
        "port": int(peer.origin.rpartition(":")[2]),
        "session": peer.session.header.removeprefix("Cookie: "),
        "visitors": max(1, options.connections // _BROWSER),
        "seconds": options.seconds,
        "seed": options.turn,
        "once": bool(options.count),
    }
    empty_logs(peer, 1)
    before, own = cpu_seconds(peer.pids), children_seconds()
    words = finished(
        [sys.executable, str(_VISITS)], limit=options.seconds + 120, given=json.dumps(order)
    )
    load = parse_load(words)
    cpu, rss = cpu_seconds(peer.pids) - before, rss_bytes(peer.pids)
    own = children_seconds() - own
    empty_logs(peer, load.requests)
    try:
        return {**sample(load, cpu, rss), "loader": own * 1e6 / load.duration}
    except BenchError as problem:
        raise BenchError(f"{peer.name}: {problem}") from None
