"""A child's side of its life: orders, readiness, being asked to end, and losing its supervisor."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from responder.process import child
from responder.process.child import Lifeline, run
from responder.process.lifeline import Message, Word, pair, send, send_orders
from tests.support.processes import PATIENCE


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The supervisor's end of the lifeline of this very process, which is a child for the time of a test."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)}
    mask, limits, stdin = (
        signal.pthread_sigmask(signal.SIG_BLOCK, []),
        resource.getrlimit(resource.RLIMIT_NOFILE),
        os.dup(0),
    )
    lifelines: list[Lifeline] = []

    def make_lifeline(sock: socket.socket) -> Lifeline:
        lifelines.append(Lifeline(sock))
        return lifelines[-1]

    monkeypatch.setattr(child, "Lifeline", make_lifeline)
    ours, theirs = pair()
    with ours, theirs:
        os.dup2(theirs.fileno(), 0)
        theirs.close()
        try:
            yield ours
        finally:
            os.dup2(stdin, 0)
            os.close(stdin)
            for lifeline in lifelines:  # otherwise they end with their process
                lifeline._socket.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            for number, handler in handlers.items():
                signal.signal(number, handler)


async def until(event: asyncio.Event) -> None:
    await asyncio.wait_for(event.wait(), PATIENCE)


def test_orders_and_readiness(supervisor: socket.socket) -> None:
    """A child gets its orders, whatever their size, and its supervisor hears that it is ready."""
    received: list[Any] = []

    async def main(orders: Any, lifeline: Lifeline, stop: asyncio.Event) -> None:
        lifeline.ready()
        received.append(orders)

    send_orders(supervisor, ["é" + "x" * 5_000_000])
    run(main)

    assert [["\u00e9" + "x" * 5_000_000]] == received
    assert b"alive 0" == supervisor.recv(64)


def test_what_the_supervisor_says(supervisor: socket.socket) -> None:
    """A child hears what its supervisor says, in order, with the descriptors that come along; it can ask, too."""
    heard: list[Message] = []

    async def main(orders: Any, lifeline: Lifeline, stop: asyncio.Event) -> None:
        heard.extend([await lifeline.hear() for _ in range(3)])
        lifeline.ask_to_kill(42)

    send_orders(supervisor, {})
    reading, writing = os.pipe()
    send(supervisor, Message(Word.FEED, 7, writing))
    send(supervisor, Message(Word.DIED, 7))
    send(supervisor, Message(Word.SERVE, 2))
    os.close(writing)
    run(main)

    feed, *others = heard
    assert (Word.FEED, 7) == (feed.word, feed.number)
    assert [Message(Word.DIED, 7), Message(Word.SERVE, 2)] == others
    assert feed.descriptor is not None
    os.write(feed.descriptor, b"x")
    os.close(feed.descriptor)
    with os.fdopen(reading, "rb") as pipe:
        assert b"x" == pipe.read()
    assert b"kill 42" == supervisor.recv(64)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_end(supervisor: socket.socket, number: signal.Signals) -> None:
    """SIGTERM and SIGINT set the event that asks for the end, though the supervisor had them blocked."""
    stopped: list[bool] = []

    async def main(orders: Any, lifeline: Lifeline, stop: asyncio.Event) -> None:
        os.kill(os.getpid(), number)
        await until(stop)
        stopped.append(True)

    signal.pthread_sigmask(signal.SIG_BLOCK, [number])
    send_orders(supervisor, {})
    run(main)

    assert [True] == stopped


def test_hangup_is_survived(supervisor: socket.socket) -> None:
    """A hang-up of the terminal, or one meant as a request to reload, ends no child that has no use for it."""

    async def main(orders: Any, lifeline: Lifeline, stop: asyncio.Event) -> None:
        os.kill(os.getpid(), signal.SIGHUP)

    send_orders(supervisor, {})
    run(main)


@pytest.mark.parametrize("unread", [False, True])
def test_losing_the_supervisor(supervisor: socket.socket, monkeypatch: pytest.MonkeyPatch, *, unread: bool) -> None:
    """A child whose supervisor is gone ends at once, also if its last report was never looked at."""
    died = asyncio.Event()
    statuses: list[int] = []

    def end(status: int) -> None:
        statuses.append(status)
        asyncio.get_running_loop().remove_reader(lifelines[0]._socket)
        died.set()

    async def main(orders: Any, lifeline: Lifeline, stop: asyncio.Event) -> None:
        lifelines.append(lifeline)
        if unread:
            lifeline.ready()
        supervisor.close()
        await until(died)

    lifelines: list[Lifeline] = []
    monkeypatch.setattr("os._exit", end)
    send_orders(supervisor, {})
    run(main)

    assert [1] == statuses


def test_losing_the_supervisor_at_birth(supervisor: socket.socket) -> None:
    """A child that never gets orders ends before it has begun."""

    async def main(orders: Any, lifeline: Lifeline, stop: asyncio.Event) -> None:
        pytest.fail("nobody asked for this")

    supervisor.close()

    with pytest.raises(SystemExit, match="the supervisor went away"):
        run(main)


def test_faults_come_out(supervisor: socket.socket) -> None:
    """What a child dies of is not swallowed."""

    async def main(orders: Any, lifeline: Lifeline, stop: asyncio.Event) -> None:
        raise ZeroDivisionError

    send_orders(supervisor, {})

    with pytest.raises(ZeroDivisionError):
        run(main)


def test_as_many_descriptors_as_there_are(supervisor: socket.socket) -> None:
    """A child may have as many connections as the system lets it, not just the customary 1024 descriptors."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 1024), most))

    async def main(orders: Any, lifeline: Lifeline, stop: asyncio.Event) -> None:
        assert (most, most) == resource.getrlimit(resource.RLIMIT_NOFILE)

    send_orders(supervisor, {})
    run(main)
