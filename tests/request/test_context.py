import pytest

from tailchat_gate.reasons import CLIENT_CLOSED_REQUEST, STATUS, Reason
from tailchat_gate.request.client import ClientAddress
from tailchat_gate.request.context import RequestContext, RequestIds
from tailchat_gate.request.fields import FieldSection
from tailchat_gate.request.head import RequestHead
from tailchat_gate.request.target import read_target


def test_visit_that_was_not_read() -> None:
    """A request that is refused before it was read is recorded as an error with nothing in it."""
    context = RequestContext("id", 1.0)

    assert (context.client, context.host, context.path, context.route, context.sub) == ("",) * 5
    assert context.reason is Reason.INTERNAL_ERROR
    assert context.status == 0


def test_visit_shows_what_was_asked() -> None:
    """Address, host and path come from what was read, the path as it was sent."""
    fields = FieldSection([(b"Host", b"GATE.test:80"), (b"User-Agent", b"agent")])
    head = RequestHead("GET", False, read_target("/A%2e?code=secret", fields.host), fields)
    context = RequestContext("id", 1.0, head)
    context.client_address = ClientAddress("203.0.113.9", "https", "203.0.113.9, 10.0.0.1")

    assert context.client == "203.0.113.9"
    assert context.host == "gate.test"
    assert context.path == "/A%2e"
    assert (context.method, context.head.fields.agent) == ("GET", "agent")


def test_ids_are_unique() -> None:
    """Ids are 24 hex digits: a start's own, then a count; two starts never share one."""
    first = RequestIds(lambda size: b"\x01" * size)
    second = RequestIds(lambda size: b"\x02" * size)
    ids = [first.next() for _ in range(1000)] + [second.next() for _ in range(1000)]

    assert ids[:2] == ["0101010101010101" + "00000001", "0101010101010101" + "00000002"]
    assert len(set(ids)) == 2000
    assert all(len(one) == 24 and int(one, 16) >= 0 for one in ids)


def test_count_of_ids_wraps() -> None:
    """After 2^32 requests the count begins again and an id keeps its length."""
    ids = RequestIds(bytes)
    ids._count = 0xFFFF_FFFF

    assert ids.next() == "0" * 24


@pytest.mark.parametrize("reason", list(Reason))
def test_each_reason_has_its_status(reason: Reason) -> None:
    """Every reason that refuses answers with an error, every other one lets through or is gone."""
    let_through = {Reason.PUBLIC, Reason.SIGNED_IN, Reason.TOKEN, Reason.OWN_PATH}
    let_through |= {Reason.CLIENT_GONE, Reason.PREFLIGHT}

    assert (reason in STATUS) is (reason not in let_through)
    if reason in STATUS:
        assert 400 <= STATUS[reason] <= 599
    assert reason == reason.lower().replace("_", "-")


def test_closed_request_is_no_real_status() -> None:
    """The log's mark for a client that left is a status that no answer carries."""
    assert CLIENT_CLOSED_REQUEST not in {status.value for status in STATUS.values()}
