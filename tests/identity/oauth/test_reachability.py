"""Why Tailchat cannot be asked: said in the gate's own log and counted, by its true cause."""

import asyncio
import logging
import ssl
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from gatekit import RawUpstream, Received
from process import free_port
from tlskit import Authority

from tailchat_gate.config.files import authorities_context
from tailchat_gate.identity.oauth.back_channel import BackChannel
from tailchat_gate.identity.oauth.login import LoginRefused
from tailchat_gate.identity.oauth.reachability import MESSAGES, Reachability
from tailchat_gate.observe.families import Histogram

JSON = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


def _values(reachability: Reachability) -> dict[str, float]:
    found: dict[str, float] = {}
    for family, samples in reachability.collect():
        for labels, value in samples:
            assert not isinstance(value, Histogram)
            found[" ".join((family.name, *labels))] = value
    return found


async def _trusting(authority: Authority) -> ssl.SSLContext:
    return await asyncio.to_thread(authorities_context, "ca_file", str(authority.file))


async def _asked(url: str, **options: Any) -> Reachability:  # noqa: ANN401 - BackChannel's
    """Ask once and return what was learned."""
    reachability = Reachability(lambda: 0.0)
    channel = BackChannel(url, reachability=reachability, **options)
    try:
        await channel.exchange("me", "GET", "/open/me", {}, None)
    except LoginRefused:
        pass
    finally:
        await channel.close()
    return reachability


@pytest.mark.parametrize(
    ("name", "days", "trusted", "cause"),
    [
        ("localhost", -1, True, "certificate-expired"),
        ("other.test", 1, True, "certificate-other-host"),
        ("localhost", 1, False, "certificate-untrusted"),
    ],
)
async def test_what_is_wrong_with_a_certificate_is_said(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    days: int,
    trusted: bool,
    cause: str,
) -> None:
    """The log has an error with the true cause, and the counter of that cause goes up."""
    authority = await asyncio.to_thread(Authority.create, tmp_path)
    other = await asyncio.to_thread(Authority.create, tmp_path, "other")
    issued = await asyncio.to_thread(authority.issue, name, ends=timedelta(days=days))
    trust = await _trusting(authority if trusted else other)
    context = await asyncio.to_thread(issued.server_context)
    async with RawUpstream(JSON % b"200 OK", tls=context) as tailchat:
        reachability = await _asked(tailchat.url, tls=trust)

    (record,) = (one for one in caplog.records if one.levelno >= logging.ERROR)
    details = vars(record)["details"]
    assert record.message == MESSAGES[cause]
    assert (details["cause"], details["call"]) == (cause, "me")
    values = _values(reachability)
    assert (values["gate_tailchat_up"], values[f"gate_tailchat_faults {cause}"]) == (0, 1)
    assert sum(count for key, count in values.items() if "faults" in key) == 1


async def test_a_good_certificates_end_is_known(tmp_path: Path) -> None:
    """After an answer Tailchat is up, and the end of its certificate is in the metrics."""
    authority = await asyncio.to_thread(Authority.create, tmp_path)
    issued = await asyncio.to_thread(authority.issue, "localhost", ends=timedelta(days=3))
    trust = await _trusting(authority)
    context = await asyncio.to_thread(issued.server_context)
    async with RawUpstream(JSON % b"200 OK", tls=context) as tailchat:
        values = _values(await _asked(tailchat.url, tls=trust))

    ends = values["gate_tailchat_certificate_expiry_timestamp_seconds"]
    assert 0 < ends - time.time() - timedelta(days=3).total_seconds() + 60 < 120
    assert values["gate_tailchat_up"] == 1


class _NoName(AbstractResolver):
    async def resolve(self, host: str, *_: object, **__: object) -> list[ResolveResult]:
        """Find nothing."""
        raise OSError(f"no address of {host}")

    async def close(self) -> None:
        """Nothing to do."""


async def _hang(
    request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    await reader.read()


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (JSON % b"502 Bad Gateway", "server-error"),
        (b"", "closed"),
        (b"no HTTP\r\n\r\n", "malformed"),
        (_hang, "timeout"),
    ],
)
async def test_other_outages_have_their_cause(answer: Any, cause: str) -> None:  # noqa: ANN401 - bytes, or a tool's answer()
    """A server error, silence, a closed connection and no HTTP are told apart."""
    if answer == b"":

        async def close(_: Received, __: object, writer: asyncio.StreamWriter) -> None:
            writer.close()

        answer = close
    async with RawUpstream(answer) as tailchat:
        # Only where nothing comes the wait has to end soon: a busy machine answers late.
        timeout = 0.3 if cause == "timeout" else 60.0
        values = _values(await _asked(tailchat.url, timeout=timeout))

    assert {key for key, count in values.items() if "faults" in key and count} == {
        f"gate_tailchat_faults {cause}"
    }


async def _plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    writer.close()


async def test_what_does_not_answer_at_all_has_its_cause(tmp_path: Path) -> None:
    """No listener, no name, no TLS and no proxy are told apart."""
    nowhere = f"http://127.0.0.1:{free_port()}"
    trust = await _trusting(await asyncio.to_thread(Authority.create, tmp_path))
    plain = await asyncio.start_server(_plain, "127.0.0.1")
    address = f"127.0.0.1:{plain.sockets[0].getsockname()[1]}"
    try:
        found = [
            await _asked(nowhere),
            await _asked("http://nobody.test", resolver=_NoName()),
            await _asked(f"https://{address}", tls=trust),
            await _asked("http://tailchat.test", proxy=nowhere),
        ]
    finally:
        plain.close()
        await plain.wait_closed()

    assert [list(one.faults) for one in found] == [["refused"], ["dns"], ["tls"], ["proxy"]]


async def test_that_it_answers_again_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """The first answer after an outage is logged, and no other."""
    reachability = Reachability(lambda: 0.0)
    with caplog.at_level(logging.INFO, "tailchat_gate"):
        reachability.answered()
        reachability.failed("refused", "me", "ConnectionRefusedError")
        reachability.failed("refused", "me", "ConnectionRefusedError")
        reachability.answered()
        reachability.answered()

    assert [record.message for record in caplog.records] == [
        MESSAGES["refused"],
        "Tailchat answers again",
    ]
    assert reachability.faults["refused"] == 2
