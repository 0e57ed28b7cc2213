"""People on the admin page: whom a text means, what is told of an order, who would get in now."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from accounts import user_named
from dashboardkit import BOB, ROUTES, SECTIONS, WIKI, Desk, at_listener, at_route, explain_url
from dashboardkit import status_at_wiki as wiki_status
from gatekit import ALICE, SUB, Clock, RawUpstream, RunningGate, ask, request_bytes
from storykit import story

from tailchat_gate.identity.grants import Grant
from tailchat_gate.identity.machine_tokens import hash_of, make_token
from tailchat_gate.identity.oauth.responses import Profile
from tailchat_gate.identity.revocation.state import Lock, Unlock
from tailchat_gate.identity.sessions.record import SessionRecord

Start = Callable[..., Any]
NAMESAKE = Profile("660000000000000000000008", "alice", "0008", "")
TOKEN = make_token(b"t" * 32)


@pytest.fixture
async def gate(start_gate: Start, upstream: RawUpstream) -> RunningGate:
    """Return a gate with a titled tool, at which Alice was refused."""
    route = [{**ROUTES[0], "title": "Team notes"}, ROUTES[1]]
    found = await start_gate(
        upstream.url,
        server={"admin_listen": "127.0.0.1:0", "admin_orders": True},
        token=[{"name": "ci", "hash": hash_of(TOKEN)}],
        **{**SECTIONS, "route": route},
    )
    assert isinstance(found, RunningGate)
    assert await wiki_status(found, ALICE) == 403
    return found


def _inputs(page: str) -> dict[str, str]:
    """Return the inputs that hold something that was typed, by their names."""
    return dict(re.findall(r'<input name="([a-z]+)"[^>]* value="([^"]+)"', page))


def _plain(page: str) -> str:
    return " ".join(re.sub("<[^>]+>", "", page).split())


async def _order(desk: Desk, order: str, **fields: str) -> tuple[str, str]:
    return await desk.ordered(order, **fields)


@pytest.mark.parametrize("typed", ["Alice#0042", "alice#0042", " Alice "])
async def test_a_name_is_looked_at_before_it_counts(gate: RunningGate, typed: str) -> None:
    """The form comes back with the ID in place of the name, and the rest as it was typed."""
    desk = at_route(gate)
    given = {"route": "wiki", "for": "2h", "reason": "on call"}
    said, page = await _order(desk, "grant", sub=typed, **given)
    assert said == "confirm"
    assert f"Alice#0042, sub:{SUB}" in _plain(page)
    assert gate.generation.process_state.grants.state.in_force == ()
    back = _inputs(page[page.index("data-code") :])
    assert back == {"sub": f"sub:{SUB}", "for": "2h", "reason": "on call"}
    said, page = await _order(desk, "grant", sub=back["sub"], **given)
    assert said == "granted"
    assert f"Done: Alice#0042 (sub:{SUB}) can use Team notes until" in _plain(page)
    assert await wiki_status(gate, ALICE) == 200


async def test_a_text_that_means_nobody_or_several_is_told_and_stays(gate: RunningGate) -> None:
    """Each with what is wrong, beside the input; nothing is locked."""
    desk = at_listener(gate)
    assert await wiki_status(gate, NAMESAKE) == 403
    cases = {
        "alice": ("several", "alice#0008 (sub:660000000000000000000008)"),
        "Carol": ("nobody", "is called Carol"),
        "Carol#0001": ("not-asked", "could not tell who Carol#0001 is"),
        "sub:66": ("invalid-person", "sub:66 is no ID of Tailchat"),
    }
    for typed, (code, told) in cases.items():
        said, page = await _order(desk, "lock", target=typed, message="Call us", **{"for": "1h"})
        assert said == code
        assert told in _plain(page)
        assert _inputs(page[page.index("data-code") :])["target"] == typed
        assert 'aria-invalid="true" aria-describedby="wrong"' in page
        assert _inputs(page)["message"] == "Call us"
    assert gate.generation.process_state.revocation.locks == ()


async def test_tailchat_is_asked_for_a_whole_name(tmp_path: Path, clock: Clock) -> None:
    """As by the commands: of an account that the gate has never seen, and of one that is none."""
    bob = user_named("bob")
    server = {"admin_listen": "127.0.0.1:0", "admin_orders": True}
    async with story(tmp_path / "log", clock, server=server) as scene:
        desk = at_listener(scene.gate)
        said, page = await _order(desk, "lock", target="Plain Bob#7")
        assert (said, f"sub:{bob.sub}" in _inputs(page).values()) == ("confirm", True)
        said, _ = await _order(desk, "lock", target="Plain Bob#8")
        assert said == "nobody-there"
        text = await desk.text(explain_url(f"{scene.url}/x", "Plain Bob#7"))
        assert f"asked by: {bob.sub}" in re.sub(" +", " ", text)


async def test_what_is_known_is_suggested(gate: RunningGate) -> None:
    """IDs by the names of people, machines and the addresses of tools."""
    for path in ("/people", "/checks"):
        text = await at_listener(gate).text(path)
        assert f'<option value="sub:{SUB}">Alice#0042</option>' in text
        assert '<option value="token:ci">' in text
    assert f'<option value="http://{WIKI}/">' in text


@pytest.mark.parametrize(
    ("url", "who", "method", "said"),
    [
        (f"http://{WIKI}/x", "Alice#0042", "GET", "denied"),
        (f"{WIKI}/x", f"sub:{SUB}", "GET", "denied"),
        (f"{WIKI}/x", "token:ci", "", "token-elsewhere"),
        ("/x", SUB, "GET", "no-route"),
        ("ftp://x/", "", "GET", "ftp://x/ is no address"),
        (f"{WIKI}/x", "", "G T", "G T is no method"),
        (f"{WIKI}/x", "token:gone", "GET", "no token with the name gone"),
        (f"{WIKI}/x", "Carol", "GET", "is called Carol"),
        (f"{WIKI}/x", "sub:", "GET", "sub: is no ID of Tailchat"),
    ],
)
async def test_the_explain_box_takes_what_people_know(
    gate: RunningGate, url: str, who: str, method: str, said: str
) -> None:
    """Names, hosts and paths; nonsense is told as such, not as a refusal, and stays in the box."""
    page = await at_listener(gate).text(f"{explain_url(url, who)}&method={quote(method)}")
    assert said in _plain(page)
    assert ("is refused" in page) is (said in {"denied", "token-elsewhere", "no-route"})
    assert _inputs(page)["url"] == url
    assert _inputs(page).get("as", "") == who


async def test_a_refusal_that_is_mended_says_so(gate: RunningGate) -> None:
    """A grant, a lock that was lifted: nobody pastes a line that is needed no longer."""
    state, now = gate.generation.process_state, int(gate.clock())
    desk = at_listener(gate)

    async def cell() -> str:
        text = await desk.text("/people")
        (found,) = re.findall(r'data-label="What would let them in">(.*?)</td>', text, re.DOTALL)
        return str(found)

    assert "allow = " in await cell()
    await state.grants.put(Grant(SUB, "wiki", now, now + 60))
    assert _plain(await cell()) == "would be let in now"
    await state.locks.order(Lock(f"sub:{SUB}", now, None, ""))
    assert _plain(await cell()) == f"tailchat-gate unlock sub:{SUB}"
    await state.locks.order(Unlock(f"sub:{SUB}", now))
    await state.grants.put(Grant(SUB, "wiki", now, now + 60).revoked(now))
    assert "allow = " in await cell()


async def test_an_operator_is_led_to_waiting_requests(gate: RunningGate) -> None:
    """To the forms of the page, or to the page of approvers where these forms are not."""
    requests = gate.generation.process_state.access_requests
    desk = at_route(gate)
    assert "is waiting" not in await desk.text("/")
    await requests.ask(SessionRecord.begin(ALICE, now=gate.clock(), login="x"), "wiki", "")
    text = await desk.text("/")
    assert "1 request for access is waiting." in _plain(text)
    assert '<a href="/people#requests">' in text
    machine = request_bytes("/", host="dash.test", Authorization=f"Bearer {TOKEN}")
    assert (await ask(gate.port, machine)).status == 403
    # Their own is for somebody else.
    record = SessionRecord.begin(BOB, now=gate.clock(), login="x")
    await requests.ask(record, "wiki", "")
    assert "1 request for access is waiting." in _plain(await desk.text("/"))


async def test_the_page_shows_titles_and_names(gate: RunningGate) -> None:
    """People read the title elsewhere, the configuration has the name."""
    requests = gate.generation.process_state.access_requests
    await requests.ask(SessionRecord.begin(ALICE, now=gate.clock(), login="x"), "wiki", "")
    both = '<bdi>Team notes</bdi> <code class="quiet">wiki</code>'
    people = await at_route(gate).text("/people")
    assert people.count(both) == 2
    assert '<option value="wiki">Team notes (wiki)</option>' in people
    assert both in await at_route(gate).text("/")


async def test_nobody_elses_link_makes_the_page_say_something(gate: RunningGate) -> None:
    """What is said is sealed for one session; another person's link says nothing."""
    desk = at_route(gate)
    form = {"order": "lock", "target": "token:ci", "page": "people", "csrf": await desk.token()}
    place = (await desk.send(form)).value("Location")
    assert "data-code" in await desk.text(place)
    for other in (at_route(gate), at_listener(gate)):
        assert "data-code" not in await other.text(place)
