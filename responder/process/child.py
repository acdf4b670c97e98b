"""
What every child of the supervisor has in common: its lifeline, its signals, its event loop.

The lifeline is a socket on file descriptor 0. The supervisor sends the child's orders down it (a JSON document in an
anonymous file, so that no secret ever stands in an argument list or an environment), the child reports that it is
ready and, from then on, that it lives, and its end means that the supervisor is gone: then the child goes too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from responder.logs import Seldom

ALIVE = b"."
"""What a child says when it is ready, and again and again after that."""

BEAT = 1.0
"""Seconds between two signs of life."""

FAULT_INTERVAL = 10.0
"""Seconds between two reports of faults of one kind."""

_log = structlog.get_logger("process")


class Lifeline:
    """A child's end of the socket to its supervisor."""

    def __init__(self) -> None:
        self._socket = socket.socket(fileno=os.dup(0))

    def orders(self) -> Any:
        """The JSON document that the supervisor sent. Blocks until it is here; call it once, first of all."""
        _, files, _, _ = socket.recv_fds(self._socket, 1, 1)
        if not files:
            raise SystemExit("the supervisor went away")
        with os.fdopen(files[0], "rb") as file:
            return json.load(file)

    def ready(self) -> None:
        """Report that the work has begun, and from now on that the event loop is still turning."""
        with contextlib.suppress(OSError):  # the supervisor is gone, or stopped for so long that it need not know
            self._socket.send(ALIVE, socket.MSG_DONTWAIT)
        asyncio.get_running_loop().call_later(BEAT, self.ready)

    async def ended(self) -> None:
        """Return when the supervisor is gone."""
        self._socket.setblocking(False)
        with contextlib.suppress(ConnectionError):  # its end if the supervisor never looked at our report
            await asyncio.get_running_loop().sock_recv(self._socket, 1)


def run(main: Callable[[Any, Lifeline, asyncio.Event], Awaitable[None]]) -> None:
    """
    Run *main* with the orders, the lifeline, and an event that is set when it shall come to an end.

    SIGTERM and SIGINT ask for the end. The end of the lifeline does not ask: it kills, for nobody is left to wait.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # when a terminal closes, the supervisor says what to do
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # the supervisor blocks its own signals, and we inherited that
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # the customary 1024 are fewer than our connections
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # secrets are in memory, and belong in no file
    lifeline = Lifeline()
    asyncio.run(_run(main, lifeline.orders(), lifeline))


async def _run(
    main: Callable[[Any, Lifeline, asyncio.Event], Awaitable[None]], orders: Any, lifeline: Lifeline
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_Reporter())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    watching = asyncio.create_task(_die_with(lifeline))
    await main(orders, lifeline, stop)
    watching.cancel()


async def _die_with(lifeline: Lifeline) -> None:
    await lifeline.ended()
    os.kill(os.getpid(), signal.SIGKILL)


class _Reporter:
    """Logs what goes wrong in the event loop, such as a want of descriptors, without letting it fill the disk."""

    def __init__(self) -> None:
        self._seldom = Seldom(FAULT_INTERVAL)

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        message = str(context["message"])
        if (unreported := self._seldom.due(message)) is not None:
            _log.error(message, reason=repr(context.get("exception")), more=unreported)


def send_orders(lifeline: socket.socket, orders: bytes) -> None:
    """The supervisor's side of `Lifeline.orders`. Never blocks, however long they are and whatever the child does."""
    with os.fdopen(os.memfd_create("orders"), "wb") as file:
        file.write(orders)
        file.seek(0)
        socket.send_fds(lifeline, [b"O"], [file.fileno()])
