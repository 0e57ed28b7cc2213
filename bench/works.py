"""The works: what is asked of which peer, and how its cost is measured."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from functools import partial
from http import HTTPStatus
from types import MappingProxyType

import differing
import others
from gate import ASKED, MANY, POLICY
from goals import ONE, PLAIN_GATE
from hold import Connections, connections
from measure import Ask, Peer, Sample, empty_logs, sample
from page import page
from peers import Stage
from process import cpu_seconds, rss_bytes
from roster import BY_TLS, NAMES, OWN_SESSIONS, PLAIN
from scene import BODY, content
from sealing import seal
from work import Entry, Options, Work, load, loaded, loads

SESSIONS = 2000
_NAVIGATION = ("Accept: text/html", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document")
_UPLOAD = 1_000_000
# Opened and closed again before memory is read for the first time: pools and caches are filled.
_WARM = 200
# What the harness, the logs and the upstream need of the files that a process may open.
_SPARE = 500


def works() -> tuple[Work, ...]:
    """Return every work."""
    small = Ask(answer=BODY)
    upload = Ask("/upload", upload=_UPLOAD, answer=json.dumps({"received": _UPLOAD}).encode())
    signed_in = (*PLAIN, *OWN_SESSIONS, "gate")
    tunnelling = (*PLAIN, "gate")
    return (
        *differing.differing(),
        *others.others(),
        page(),
        Work("small", "small keep-alive GET with a session", "request", loads(NAMES, small)),
        Work("gate", "what the gate does besides", "request", _gate_alone(small), baseline=ONE),
        Work("policy", "what decides who may", "request", _policies(small), baseline=PLAIN_GATE),
        Work("10k", "10 kB responses", "request", loads(signed_in, _file("10k"))),
        Work("1m", "1 MB responses", "MB", loads(signed_in, _file("1m"))),
        Work("upload", "1 MB uploads", "MB", loads(signed_in, upload, "tool")),
        Work(
            "chunked",
            "chunked responses of 16 kB",
            "request",
            loads(signed_in, Ask("/chunked/16k", answer=content("16k"))),
        ),
        Work(
            "close",
            "a new connection for each request",
            "request",
            loads(signed_in, Ask(answer=BODY, close=True)),
        ),
        Work("tls", "small keep-alive GET by TLS", "request", _by_tls(small)),
        Work(
            "tls-close",
            "a new TLS connection for each request",
            "request",
            _by_tls(Ask(answer=BODY, close=True)),
        ),
        Work(
            "tunnel",
            "WebSocket messages of 125 bytes through tunnels",
            "message",
            tuple(Entry(name, name, partial(_tunnel, name)) for name in tunnelling),
        ),
        Work(
            "slow",
            "a tool that takes 1 s, many requests in flight",
            "request",
            tuple(Entry(name, name, partial(_waiting, name)) for name in tunnelling),
        ),
        Work("idle", "idle keep-alive connections", "connection", _idles(), once=True),
        Work("idle-ws", "idle WebSockets", "connection", _idles(websocket=True), once=True),
    )


def _by_tls(ask: Ask) -> tuple[Entry, ...]:
    """An entry for each peer that has TLS of its own in the bench."""
    return tuple(
        Entry(peer, peer, partial(load, name, "web", ask))
        for name in BY_TLS
        for peer in (name.removesuffix("-tls"),)
    )


def _idles(*, websocket: bool = False) -> tuple[Entry, ...]:
    return tuple(
        Entry(name, name, partial(_idle, name, websocket=websocket)) for name in (*PLAIN, "gate")
    )


def _gate_alone(small: Ask) -> tuple[Entry, ...]:
    question = Ask("/oauth2/auth", headers=others.QUESTION, status=HTTPStatus.ACCEPTED.value)
    asks = {
        ONE: small,
        "navigation, signed out (302)": Ask(
            headers=_NAVIGATION, session=False, status=HTTPStatus.FOUND.value
        ),
        "API call, signed out (401)": Ask(session=False, status=HTTPStatus.UNAUTHORIZED.value),
    }
    return (
        *(Entry(name, "gate", partial(load, "gate", "web", ask)) for name, ask in asks.items()),
        Entry("/oauth2/auth", "gate", partial(load, ASKED, "web", question)),
        Entry(f"{SESSIONS} sessions in turn", "gate", _many_sessions),
    )


def _policies(small: Ask) -> tuple[Entry, ...]:
    names = {PLAIN_GATE: "gate", "1000 routes": MANY, "all of policy": POLICY}
    return tuple(
        Entry(name, "gate", partial(load, peer, "web", small)) for name, peer in names.items()
    )


def _file(name: str) -> Ask:
    return Ask(f"/files/{name}", answer=content(name))


def _many_sessions(stage: Stage, options: Options) -> Sample:
    peer, cookies = stage.peer("gate"), stage.scene.directory / "cookies"
    if not cookies.exists():
        seal(stage.scene, peer.origin, cookies, SESSIONS)
    ask = Ask(answer=BODY, session=False, cookies=cookies, visitors=SESSIONS)
    return loaded(peer, ask, options)


def _tunnel(name: str, stage: Stage, options: Options) -> Sample:
    peer = stage.peer(name, "tool")
    with _held(stage, peer, options.connections, websocket=True) as held:
        before = cpu_seconds(peer.pids)
        load = held.load(f"ping {options.seconds}", options.seconds + 60)
        return sample(load, cpu_seconds(peer.pids) - before, rss_bytes(peer.pids))


def _waiting(name: str, stage: Stage, options: Options) -> Sample:
    peer = stage.peer(name, "tool")
    with _held(stage, peer, options.waiting, websocket=False) as held:
        empty_logs(peer, options.waiting)
        before = cpu_seconds(peer.pids)
        load = held.load("ask /slow 3 1", 60)
        cpu = cpu_seconds(peer.pids) - before
        empty_logs(peer, load.requests)
        return sample(load, cpu, rss_bytes(peer.pids))


def _idle(name: str, stage: Stage, options: Options, *, websocket: bool) -> Sample:
    wanted = options.websockets if websocket else options.idle
    # A WebSocket is two connections to a proxy.
    count = min(wanted, (stage.scene.files - _SPARE) // (2 if websocket else 1))
    with stage.fresh(name, "tool", room=count + _WARM) as peer:
        with _held(stage, peer, _WARM, websocket=websocket):
            pass
        before = rss_bytes(peer.pids)
        with _held(stage, peer, count, websocket=websocket) as held:
            held.must_be_open(count)
            return {
                "connections": count,
                "bytes": (rss_bytes(peer.pids) - before) / count,
                "rss_mib": rss_bytes(peer.pids) / 2**20,
            }


@contextlib.contextmanager
def _held(stage: Stage, peer: Peer, count: int, *, websocket: bool) -> Iterator[Connections]:
    directory = stage.scene.directory
    with connections(peer, Ask(), count, directory, websocket=websocket) as held:
        yield held


GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {differing.FAMILY.name: tuple(differing.ROWS)}
    | {
        block: tuple(work.name for work in works() if work.block == block)
        for block in ("mixed", "other", "repeated")
    }
)
"""Names that stand for several works: those of one table, and those of one block."""
