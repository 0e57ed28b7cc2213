"""A network namespace and a name server for tests of how the gate looks up names."""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
from parts import missing

#: As in /etc/resolv.conf. The resolver asks once, and waits for longer than any test.
_RESOLV: Final = "nameserver 127.0.0.1\noptions timeout:30 attempts:1\n"
#: Packets to these networks are lost without an error.
_SETUP: Final = """
ip link set lo up
ip route add 192.0.2.0/24 dev lo
ip -6 address add fd00:dead::ff/64 dev lo nodad
ip -6 route add fd00:dead::/64 dev lo metric 1
mount --bind "$1" /etc/resolv.conf
shift
exec "$@"
"""


class Zone(asyncio.DatagramProtocol):
    """A name server: its answers by name, and how often it was asked."""

    def __init__(self) -> None:
        #: Addresses by name; any other name does not exist.
        self.records: dict[str, list[str]] = {}
        #: Names for which it never answers.
        self.silent: set[str] = set()
        #: Names for which it answers once an event is set.
        self.held: dict[str, asyncio.Event] = {}
        self._answers: set[asyncio.Task[None]] = set()
        #: Names for which it reports a failure.
        self.failing: set[str] = set()
        self.asked: list[str] = []
        self._transport: asyncio.DatagramTransport | None = None

    async def serve(self) -> None:
        """Listen on the address that the system's resolver asks."""
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 53))

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        """Keep the transport."""
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        """Answer one question."""
        query = dns.message.from_wire(data)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True)
        self.asked.append(name)
        if name in self.silent:
            return
        if name in self.held:
            task = asyncio.create_task(self._answer_later(query, name, addr))
            self._answers.add(task)
            task.add_done_callback(self._answers.discard)
            return
        self._answer(query, name, addr)

    async def _answer_later(
        self, query: dns.message.Message, name: str, addr: tuple[str | Any, int]
    ) -> None:
        await self.held[name].wait()
        self._answer(query, name, addr)

    def _answer(self, query: dns.message.Message, name: str, addr: tuple[str | Any, int]) -> None:
        question = query.question[0]
        if self._transport is None:
            return
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        if name in self.failing:
            answer.set_rcode(dns.rcode.SERVFAIL)
        elif name not in self.records:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        else:
            kind = dns.rdatatype.to_text(question.rdtype)
            found = [one for one in self.records[name] if (":" in one) == (kind == "AAAA")]
            if found:
                answer.answer.append(dns.rrset.from_text(question.name, 0, "IN", kind, *found))
        self._transport.sendto(answer.to_wire(), addr)


async def run_in_network(script: Path, *arguments: str, directory: Path) -> None:
    """Run a Python script in a network namespace of its own; fail with its output."""
    unshare, ip = shutil.which("unshare"), shutil.which("ip")
    if os.geteuid() != 0 or unshare is None or ip is None or not await _may_unshare(unshare):
        missing("a network namespace (root, unshare and ip)")
    resolv = directory / "resolv.conf"
    await asyncio.to_thread(resolv.write_text, _RESOLV)
    command = ("sh", "-e", "-c", _SETUP, "sh", str(resolv), sys.executable, str(script))
    process = await asyncio.create_subprocess_exec(
        *(unshare, "--net", "--mount", *command, *arguments, str(directory)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    told, _ = await process.communicate()
    assert process.returncode == 0, told.decode()


async def _may_unshare(unshare: str) -> bool:
    process = await asyncio.create_subprocess_exec(
        unshare, "--net", "--mount", "true", stderr=subprocess.DEVNULL
    )
    return await process.wait() == 0
