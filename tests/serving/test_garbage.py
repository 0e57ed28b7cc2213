"""What the gate answers is freed at once: the collector, which stops it, has nothing to find."""

import gc
from collections import Counter

from gatekit import RawClient, RawUpstream, RunningGate, request_bytes, until
from tunnelkit import opened
from websocketkit import TEXT, frame, masked

TIMES = 10


def _garbage() -> Counter[str]:
    """Return what of the gate's the collector finds, by its kind."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        kinds = [type(found) for found in gc.garbage]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.collect()
    found = (f"{kind.__module__}.{kind.__qualname__}" for kind in kinds)
    return Counter(name for name in found if name.startswith("tailchat_gate"))


async def test_no_request_waits_for_the_collector(gate: RunningGate) -> None:
    """Signed in or not, with a body or without, answered or refused, on old and new connections."""
    cookie = gate.cookie()
    kinds = (
        request_bytes(Cookie=cookie),
        request_bytes("/x?y", Cookie=cookie, If_None_Match='"a"'),
        request_bytes(method="POST", Cookie=cookie, Content_Length="4") + b"body",
        request_bytes(),
        request_bytes(Accept="text/html", Sec_Fetch_Mode="navigate"),
        request_bytes("/oauth2/userinfo", Cookie=cookie),
        request_bytes("/oauth2/auth", Cookie=cookie),
    )
    _garbage()
    gc.disable()
    try:
        for _ in range(TIMES):
            async with RawClient.connect(gate.port) as client:
                for data in kinds:
                    client.send(data)
                    await client.response()
        assert not _garbage()
    finally:
        gc.enable()


async def test_no_websocket_waits_for_the_collector(
    gate: RunningGate, upstream: RawUpstream
) -> None:
    """A WebSocket that has ended is freed with both of its connections."""
    pools = gate.generation.process_state.upstream_pools
    _garbage()
    gc.disable()
    try:
        for _ in range(TIMES):
            async with opened(gate, upstream) as found:
                found.client.send(frame(TEXT, masked(b"text", b"mask"), mask=b"mask"))
                await found.upstream.reader.readexactly(10)
            await until(lambda: not pools.tunnels and not pools._leaving)
        assert not _garbage()
    finally:
        gc.enable()
