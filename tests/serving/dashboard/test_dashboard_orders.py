"""Orders of the admin page: from where they are taken, from whom, and what they do."""

import asyncio
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dashboardkit import BOB, DASH, ROUTES, SECTIONS, WIKI, at_listener, at_route, status_at_wiki
from gatekit import ALICE, SUB, RawUpstream, RunningGate, ask, request_bytes, until
from tunnelkit import hurry, opened
from websocketkit import UPGRADE

from tailchat_gate.commands.state import read_store
from tailchat_gate.endpoints.access import FRESH_SECONDS
from tailchat_gate.identity.access_requests import APPROVED, DECLINED, OPEN
from tailchat_gate.identity.oauth.responses import Profile
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.observe.log import AUDIT_LOGGER_NAME
from tailchat_gate.serving.dashboard.orders import DONE
from tailchat_gate.serving.dashboard.page import LISTENER
from tailchat_gate.state.bookkeeping import FaultKind

Start = Callable[..., Any]
EVE = Profile("660000000000000000000005", "Eve", "0005", "")
LONG = "x" * 501
STALE = FRESH_SECONDS + 60


@pytest.fixture
async def gate(start_gate: Start, upstream: RawUpstream, tmp_path: Path) -> RunningGate:
    """Return a gate with a stored state whose listener takes orders; Eve does not approve."""
    found = await start_gate(
        upstream.url,
        server={"admin_listen": "127.0.0.1:0", "admin_orders": True},
        state={"path": str(tmp_path)},
        groups={"ops": [BOB.sub], "admins": [BOB.sub, EVE.sub]},
        access=SECTIONS["access"],
        route=[ROUTES[0], {**ROUTES[1], "allow": ["group:admins"]}],
    )
    assert isinstance(found, RunningGate)
    return found


@pytest.fixture
def audit(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, Any]]]:
    """Return what yields the orders in the audit log so far."""
    caplog.set_level(logging.INFO, AUDIT_LOGGER_NAME)

    def orders() -> list[dict[str, Any]]:
        found = [vars(record)["details"] for record in caplog.records if record.msg == "audit"]
        return [one for one in found if one["event"] == "admin-order"]

    return orders


def _plain(page: str) -> str:
    return re.sub("<[^>]+>", "", page)


async def _ask_for_access(gate: RunningGate, person: Profile = ALICE) -> str:
    """Ask for the tool; return the request's key."""
    record = SessionRecord.begin(person, now=gate.clock(), login="x")
    return (await gate.generation.process_state.access_requests.ask(record, "wiki", "why")).key


@pytest.mark.parametrize(
    "change",
    [
        {"csrf": ""},
        {"csrf": "0" * 48},
        {"csrf": "\udc80"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "", "Sec_Fetch_Site": ""},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "none"},
    ],
)
@pytest.mark.parametrize("where", [at_listener, at_route])
async def test_an_order_from_elsewhere_is_refused(
    gate: RunningGate, where: Callable[[RunningGate], Any], change: dict[str, str]
) -> None:
    """Without the form's token, or from a page of another origin: 403, and nothing has changed."""
    desk = where(gate)
    form = {"order": "lock", "target": "all", "page": "people", "csrf": await desk.token()}
    fields = {name: value for name, value in change.items() if name != "csrf"}
    if "csrf" in change:
        form["csrf"] = change["csrf"].encode("utf-8", "surrogateescape").decode("latin-1")
    response = await desk.send(form, **fields)
    assert response.status == 403
    assert gate.generation.process_state.revocation.locks == ()


async def test_a_token_is_of_one_session_on_one_host(gate: RunningGate) -> None:
    """Another person's token, or one that a tool's host could show, gives no order."""
    desk = at_route(gate)
    form = {"order": "lock", "target": "all", "page": "people"}
    others = await at_route(gate, EVE).token(), await at_listener(gate).token()
    for token in others:
        assert (await desk.send({**form, "csrf": token})).status == 403


async def test_the_listener_takes_no_order_about_people_by_default(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """It has no sign-in, so anybody on the machine could let themselves in."""
    sections = {**SECTIONS, "server": {"admin_listen": "127.0.0.1:0"}}
    gate = await start_gate(upstream.url, **sections)
    desk = at_listener(gate)
    text = await desk.text("/people")
    assert "This listener takes no orders about people" in text
    assert "/orders" not in text
    page = gate.server._page
    form = {"order": "grant", "sub": SUB, "route": "wiki", "for": "8h", "csrf": page._token}
    refused = await desk.send(form)
    assert (refused.status, b"takes no orders about people" in refused.body) == (422, True)
    assert gate.generation.process_state.grants.state.in_force == ()


async def test_locks_are_stored_and_audited(
    gate: RunningGate, audit: Callable[[], list[dict[str, Any]]], tmp_path: Path
) -> None:
    """A lock is in force at once and after a restart; it names who set it; unlocking lifts it."""
    desk = at_listener(gate)
    assert await status_at_wiki(gate, BOB) == 200
    assert await desk.order("lock", target=f"sub:{BOB.sub}", message="Call us") == "locked-forever"
    assert await status_at_wiki(gate, BOB) == 403
    assert "Call us" in await desk.text("/people")
    assert await desk.order("unlock", target=f"sub:{BOB.sub}") == "unlocked"
    assert await desk.order("unlock", target=f"sub:{BOB.sub}") == "unchanged"
    assert await status_at_wiki(gate, BOB) == 200
    eve = at_route(gate, EVE)
    assert await eve.order("lock", target="token:ci", **{"for": "2d"}) == "locked"
    assert [(one["order"], one["by"], one.get("by_name"), one["target"]) for one in audit()] == [
        ("lock", LISTENER, None, f"sub:{BOB.sub}"),
        ("unlock", LISTENER, None, f"sub:{BOB.sub}"),
        ("lock", EVE.sub, "Eve#0005", "token:ci"),
    ]
    (kept,) = (await asyncio.to_thread(read_store, tmp_path)).revocation.locks
    assert (kept.target, kept.until) == ("token:ci", int(gate.clock()) + 2 * 86_400)


async def test_a_lock_that_cannot_be_stored_is_refused(gate: RunningGate) -> None:
    """As by the command: the next start would not know it."""
    state = gate.generation.process_state
    state.health.report(FaultKind.UNWRITABLE, "no room")
    assert await at_listener(gate).order("lock", target="token:ci") == "not-stored"
    assert state.revocation.locks == ()
    state.health.clear(FaultKind.UNWRITABLE)


async def test_everybody_is_locked_out_after_a_look_at_what_it_does(gate: RunningGate) -> None:
    """The form comes back once for each time that was typed, and asks for a fresh password."""
    desk, lock = at_route(gate), {"target": "all", "for": "1h"}
    said, page = await desk.ordered("lock", **lock)
    assert (said, "tailchat-gate unlock all" in page) == ("confirm-all", True)
    (confirmed,) = re.findall('name="confirmed" value="([^"]+)"', page)
    lock["confirmed"] = confirmed
    assert await desk.order("lock", **{**lock, "for": ""}) == "confirm-all-forever"
    assert await at_route(gate, password_ago=STALE).order("lock", **lock) == "not-fresh"
    assert gate.generation.process_state.revocation.locks == ()
    assert await at_listener(gate).order("lock", **lock) == "locked"
    assert (await desk.open()).status == 503


async def test_a_form_that_was_wrong_is_no_dead_end(gate: RunningGate) -> None:
    """The address at which the browser shows it leads to the page on a reload, like all of it.

    No response names the software below the gate.
    """
    for desk in (at_listener(gate), at_route(gate)):
        found = await desk.open("/orders")
        assert (found.status, found.value("Location")) == (303, "/people")
        bad = await desk.send({"order": "lock", "csrf": await desk.token()})
        for answer in (found, bad, await desk.open("/people"), await desk.open("/none")):
            assert answer.values("Server") in ([], ["tailchat-gate"])


async def test_a_password_that_tailchat_does_not_date_is_told_as_such(gate: RunningGate) -> None:
    """Somebody who typed it a moment ago reads why they are to type it once more."""
    desk = at_route(gate, password_ago=gate.clock())
    text = await desk.text("/people")
    assert "Tailchat did not say when you last typed it" in text
    assert 'value="grant"' not in text
    assert await desk.order("grant", sub=SUB, route="wiki", **{"for": "8h"}) == "no-password-time"


async def test_a_grant_lets_in_until_it_is_revoked(
    gate: RunningGate, audit: Callable[[], list[dict[str, Any]]]
) -> None:
    """It names who gave it."""
    desk = at_route(gate)
    given = {"sub": f"sub:{SUB}", "route": "wiki", "for": "8h", "reason": "on call"}
    said, page = await desk.ordered("grant", **given)
    assert (said, f"Done: sub:{SUB} can use wiki until 2027" in _plain(page)) == ("granted", True)
    assert await status_at_wiki(gate, ALICE) == 200
    (grant,) = gate.generation.process_state.grants.state.in_force
    assert (grant.by, grant.reason) == (BOB.sub, "on call")
    assert await desk.order("revoke", sub=SUB, route="wiki") == "revoked"
    assert await desk.order("revoke", sub=SUB, route="wiki") == "unchanged"
    assert await status_at_wiki(gate, ALICE) == 403
    assert [(one["order"], one["by"], one["target"]) for one in audit()] == [
        ("grant", BOB.sub, SUB),
        ("revoke", BOB.sub, SUB),
    ]


@pytest.mark.parametrize(
    ("order", "fields", "said"),
    [
        ("lock", {"target": "somebody"}, "nobody"),
        ("lock", {"target": "all", "for": "soon"}, "invalid-duration"),
        ("lock", {"target": "all", "message": "a\nb"}, "invalid-message"),
        ("grant", {"sub": "<b>", "route": "wiki", "for": "8h"}, "nobody"),
        ("grant", {"sub": SUB, "route": "dash", "for": "8h"}, "invalid-route"),
        ("grant", {"sub": SUB, "route": "wiki", "for": "0s"}, "invalid-duration"),
        ("lock", {"target": "sub:bob"}, "invalid-person"),
        ("lock", {"target": "token:a b"}, "invalid-target"),
        ("grant", {"sub": SUB, "route": "wiki", "for": "8h", "reason": LONG}, "invalid-message"),
        ("grant", {"sub": BOB.sub, "route": "wiki", "for": "8h"}, "own"),
        ("decide", {"id": "none", "for": "8h"}, "unchanged"),
        ("end", {"id": "none"}, "unchanged"),
        ("end-all", {"who": "none"}, "unchanged"),
        ("made-up", {}, "unchanged"),
        ("doctor", {}, "no-file"),
        ("reload", {}, "no-file"),
    ],
)  # fmt: skip
async def test_a_bad_order_changes_nothing_and_says_why(
    gate: RunningGate, order: str, fields: dict[str, str], said: str
) -> None:
    """Each with a sentence on the page."""
    desk = at_route(gate)
    assert await desk.order(order, **fields) == said
    state = gate.generation.process_state
    assert (state.revocation.locks, state.grants.state.in_force) == ((), ())


async def test_letting_in_needs_a_fresh_sign_in(gate: RunningGate) -> None:
    """A copied cookie can lock and revoke, and lets nobody in; the page leads to the password."""
    key = await _ask_for_access(gate)
    desk = at_route(gate, password_ago=STALE)
    assert "/oauth2/start?rd=http%3A//dash.test/people&prompt=login" in await desk.text("/people")
    assert await desk.order("grant", sub=SUB, route="wiki", **{"for": "8h"}) == "not-fresh"
    assert await desk.order("decide", id=key, **{"for": "8h"}) == "not-fresh"
    assert await desk.order("lock", target="token:ci") == "locked-forever"
    assert await desk.order("unlock", target="token:ci") == "not-fresh"
    assert gate.generation.process_state.grants.state.in_force == ()


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("", "1s", "not-fresh"),
        ("2h", "1h", "not-fresh"),
        ("1h", "2h", "locked"),
        ("1h", "", "locked-forever"),
    ],
)
async def test_a_lock_is_not_shortened_without_a_fresh_sign_in(
    gate: RunningGate, before: str, after: str, said: str
) -> None:
    """A lock in the place of one that ends later would let in as an unlock does."""
    lock = {"target": f"sub:{BOB.sub}"}
    assert await at_route(gate, EVE).order("lock", **lock, **{"for": before}) in DONE
    desk = at_route(gate, EVE, password_ago=STALE)
    assert await desk.order("lock", **lock, **{"for": after}) == said
    assert await at_route(gate, EVE).order("lock", **lock, **{"for": "1s"}) == "locked"


async def test_what_no_grant_can_open_is_not_approved(
    gate: RunningGate, audit: Callable[[], list[dict[str, Any]]]
) -> None:
    """A request from before a reload that took the route away stays open, and no order is noted."""
    requests = gate.generation.process_state.access_requests
    record = SessionRecord.begin(ALICE, now=gate.clock(), login="x")
    asked = await requests.ask(record, "gone", "")
    said = await at_route(gate).order("decide", id=asked.key, **{"for": "8h"})
    assert (said, audit()) == ("invalid-route", [])
    assert [one.state for one in requests.open] == [OPEN]


async def test_only_approvers_decide_and_never_for_themselves(gate: RunningGate) -> None:
    """Who may see the page is not who may approve; the listener's orders count as an approver's."""
    requests = gate.generation.process_state.access_requests
    key = await _ask_for_access(gate)
    assert await at_route(gate, EVE).order("decide", id=key, **{"for": "8h"}) == "no-approver"
    assert requests.of(SUB, "wiki").state == OPEN  # type: ignore[union-attr] # it is there
    assert await at_route(gate).order("decide", id=key, **{"for": "8h"}) == "granted"
    found = requests.of(SUB, "wiki")
    assert found is not None
    assert (found.state, found.by) == (APPROVED, BOB.sub)
    assert await status_at_wiki(gate, ALICE) == 200

    own = await _ask_for_access(gate, BOB)
    assert await at_route(gate).order("decide", id=own, **{"for": "8h"}) == "own"
    assert await at_listener(gate).order("decide", id=own, **{"for": "no"}) == "declined"
    found = requests.of(BOB.sub, "wiki")
    assert found is not None
    assert (found.state, found.by) == (DECLINED, LISTENER)


@pytest.mark.parametrize("order", ["end", "end-all"])
async def test_a_live_connection_is_listed_and_ended(
    gate: RunningGate, upstream: RawUpstream, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A WebSocket of a person ends; the session itself goes on."""
    hurry(monkeypatch)
    desk = at_listener(gate)
    fields = {**UPGRADE, "Cookie": gate.cookie_for(WIKI, BOB)}
    async with opened(gate, upstream, fields=fields, host=WIKI) as tunnel:
        text = await desk.text("/people")
        row = text[text.index('id="live"') :]
        assert "<bdi>Bob</bdi>" in row
        (one,) = gate.server._server.connections  # type: ignore[union-attr] # it is open
        request = one.active_request
        assert request is not None
        assert request.admission is not None
        name = request.admission.context.request_id
        which = {"id": name} if order == "end" else {"who": BOB.sub}
        said, page = await desk.ordered(order, **which)
        assert (said, "Done: 1 connection of Bob#" in _plain(page)) == ("ended", True)
        await until(tunnel.is_over)
    assert "Nobody has a request" in await desk.text("/people")
    upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    assert await status_at_wiki(gate, BOB) == 200


async def test_a_form_that_is_too_long_is_not_read(gate: RunningGate) -> None:
    """On the route and on the listener."""
    for desk in (at_listener(gate), at_route(gate)):
        response = await desk.send({"order": "lock", "target": "all", "message": "x" * 20_000})
        assert response.status == 413
    found = await ask(gate.port, request_bytes("/orders", method="PUT", host=DASH))
    assert found.status == 401
