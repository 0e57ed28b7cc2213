"""Paths that are made to be read in many ways: how much of that one network may cause."""

import sys
from collections.abc import Callable
from functools import partial
from itertools import count
from types import FrameType
from typing import Any
from urllib.parse import quote

import pytest
from gatekit import RawClient, RawUpstream, make_settings, request_bytes
from interpreted import counts_pythons_steps

from tailchat_gate.access.reading_meter import A_SECOND, FREE, MOST
from tailchat_gate.access.routes import RouteTable
from tailchat_gate.reasons import Reason, RefusedError
from tailchat_gate.request.client import ClientAddress
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.readings import MAX_READINGS, readings
from tailchat_gate.serving.process_state import ProcessState

ROUTES = [{"name": "a"}, {"name": "admin", "path": "/admin"}]
#: Twenty bytes with 64 readings, and a tail that makes each another path.
EVIL = "///%25252e%09%2e//%23"
HONEST = "/group%2Fproject/a%20b"


def evil() -> Callable[[], str]:
    """Return what makes paths with many readings, each another one."""
    numbers = count()
    return lambda: f"{EVIL}{next(numbers)}"


class Asking:
    """A route table that is asked by clients."""

    def __init__(self) -> None:
        self.table = RouteTable(make_settings(route=ROUTES).route, {})
        self.steps = 0

    def ask(self, path: str, *, client: str = "192.0.2.1", at: float = 0.0) -> bool:
        """Ask for a path; return whether it may be read."""
        address = ClientAddress(client, "http", client)
        self.table.meter.asker = RequestContext("id", at, client_address=address)
        try:
            self.table.match("gate.test", path, "GET")
        except RefusedError as refused:
            return refused.reason is not Reason.RATE_LIMITED
        return True

    def use_up(self, *, client: str = "192.0.2.1") -> None:
        """Use up a client's readings."""
        assert self.ask(HONEST, client=client)
        self.table.meter.count(MOST + FREE + 1)

    def count(self, path: str) -> int:
        """Return how many of Python's instructions a path takes."""
        self.steps = 0
        sys.settrace(self._step)
        try:
            self.ask(path)
        finally:
            sys.settrace(None)
        return self.steps

    def _step(self, frame: FrameType, event: str, _: object) -> Any:  # noqa: ANN401 - a trace function
        frame.f_trace_opcodes = True
        self.steps += event == "opcode"
        return self._step


def test_one_network_has_a_bounded_number_of_readings() -> None:
    """A network's readings are used up by a path's many, and come back by the second."""
    asking, path = Asking(), evil()
    assert len(readings(path())) > MAX_READINGS / 2
    passed = 0
    while asking.ask(path()):
        passed += 1
    assert MOST // MAX_READINGS <= passed <= MOST // (MAX_READINGS / 2 - FREE) + 1

    assert not asking.ask(path(), at=0.0)
    assert asking.ask(path(), client="198.51.100.1")
    assert asking.ask(path(), at=MAX_READINGS / A_SECOND)
    assert not all(asking.ask(path(), at=MAX_READINGS / A_SECOND) for _ in range(5))


@counts_pythons_steps
def test_what_is_refused_costs_little() -> None:
    """Once they are used up, a path with many takes a fraction of the work; few pass, as before."""
    asking, path = Asking(), evil()
    full = asking.count(path())
    asking.use_up()
    assert asking.count(path()) < full / 4
    assert not asking.ask(path())
    assert asking.ask(HONEST)
    assert asking.ask("/page")
    assert asking.ask("/admin/page")


@pytest.mark.parametrize("client", ["2001:db8:1::1", "2001:db8:1:2::1"])
def test_a_site_is_one_network(client: str) -> None:
    """Of IPv6 the site counts: a household has 65,536 networks."""
    asking, path = Asking(), evil()
    asking.use_up(client="2001:db8:1::")
    assert not asking.ask(path(), client=client)
    assert asking.ask(path(), client="2001:db8:2::1")


def test_long_paths_count_by_their_length() -> None:
    """Thousands of characters with few readings take the time of many."""
    asking, numbers = Asking(), count()
    passed = 0
    while asking.ask("/" + "%C3%A9%2F" * 800 + str(next(numbers))):
        passed += 1
    assert passed < MOST / 50


async def test_a_client_is_told_when_to_come_back(
    start_gate: Callable[..., Any], upstream: RawUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a connection they are 429 with Retry-After in the end, and no page of anybody else."""
    # A busy machine could take longer for each than the meter needs to forget it.
    monkeypatch.setattr("gatekit.ProcessState", partial(ProcessState, monotonic=lambda: 1000.0))
    gate, path = await start_gate(upstream.url, route=ROUTES), evil()
    statuses = []
    async with RawClient.connect(gate.port) as client:
        while 429 not in statuses:
            client.send(request_bytes(path(), Accept="application/json", Sec_Fetch_Mode="cors"))
            response = await client.response()
            statuses.append(response.status)
            assert len(statuses) < 10 * MOST / MAX_READINGS
    assert (response.json["error"], response.value("Retry-After")) == ("rate-limited", "5")
    assert set(statuses[:-1]) == {401}
    async with RawClient.connect(gate.port) as client:
        for path_of_all in (HONEST, "/page"):
            client.send(request_bytes(path_of_all, Cookie=gate.cookie()))
            assert (await client.response()).status == 200


async def test_the_sign_in_page_counts_for_the_client_that_asks_for_it(
    start_gate: Callable[..., Any],
) -> None:
    """A return target read for a page's title counts for the client that asks for the page."""
    trusted = {"trusted_proxies": ["127.0.0.1"]}
    gate = await start_gate("http://127.0.0.1:9", route=ROUTES, server=trusted)
    path = quote("/a///%25252e%2e//%23", safe="")
    meter = gate.generation.gate.authorizer.routes.meter
    async with RawClient.connect(gate.port) as client:
        for target, address in (
            ("/page", "192.0.2.1"),
            (f"/oauth2/sign_in?rd={path}", "198.51.100.1"),
        ):
            client.send(request_bytes(target, X_Forwarded_For=address))
            await client.response()

    assert list(meter._due._young) == ["198.51.100.1"]
