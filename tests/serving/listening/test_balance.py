"""Workers that accept from one queue take about as many connections each."""

import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager

import pytest
from gatekit import until

from tailchat_gate.serving.listening.acceptor import Acceptor
from tailchat_gate.serving.listening.balance import Balance, takes_none

_COUNT = 32


class _Taker:
    """What a worker has accepted."""

    def __init__(self, balance: Balance) -> None:
        self.taken: list[socket.socket] = []
        self._balance = balance

    def has_room(self) -> bool:
        return True

    def make_room(self) -> None:
        pass

    def take(self, accepted: socket.socket, peer: object) -> None:
        assert peer
        self.taken.append(accepted)
        self._balance.tell(len(self.taken))

    async def settled(self) -> None:
        pass


@pytest.fixture
def memory() -> Iterator[int]:
    """Return the memory of two workers that take none yet."""
    found = os.memfd_create("test")
    for number in (1, 2):
        takes_none(found, number)
    yield found
    os.close(found)


@pytest.fixture
def waiting() -> Iterator[socket.socket]:
    """Return a socket in whose queue connections wait."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=_COUNT))
        for _ in range(_COUNT):
            stack.enter_context(socket.create_connection(listening.getsockname()))
        yield listening


@asynccontextmanager
async def _accepting(balance: Balance, listening: socket.socket) -> AsyncIterator[_Taker]:
    taker = _Taker(balance)
    acceptor = Acceptor(listening.dup(), taker, lambda: None, balance)
    acceptor.start(_COUNT)
    try:
        yield taker
    finally:
        await acceptor.close()
        for one in taker.taken:
            one.close()


async def test_a_burst_is_shared(memory: int, waiting: socket.socket) -> None:
    """Connections that wait at once do not all go to the worker that wakes first."""
    async with (
        _accepting(Balance(memory, 1, 2), waiting) as one,
        _accepting(Balance(memory, 2, 2), waiting) as other,
    ):
        await until(lambda: len(one.taken) + len(other.taken) == _COUNT)
        assert min(len(one.taken), len(other.taken)) >= _COUNT // 3


async def test_a_worker_that_takes_none_holds_nothing_up(
    memory: int, waiting: socket.socket
) -> None:
    """One that hangs with fewer connections leaves all of them to the others in the end."""
    Balance(memory, 2, 2)
    async with _accepting(Balance(memory, 1, 2), waiting) as one:
        await until(lambda: len(one.taken) == _COUNT)


def test_a_worker_that_has_ended_is_not_waited_for(memory: int) -> None:
    """Before its start, while it drains and after its end a worker is behind nobody."""
    own = Balance(memory, 1, 2)
    own.tell(40)
    assert not own.is_ahead
    other = Balance(memory, 2, 2)
    assert own.is_ahead
    other.leave()
    other.tell(0)
    assert not own.is_ahead
    other = Balance(memory, 2, 2)
    other.tell(38)
    assert not own.is_ahead
    own.took()
    assert own.is_ahead
    takes_none(memory, 2)
    assert not own.is_ahead
