"""
What all children of the supervisor have in common: the lifeline, the signals, the event loop.

The supervisor sends the orders of the child on the lifeline, as a JSON document in an anonymous file, so that argument
lists and environments contain no secret. The child reports when it is ready and, from then on, that it is alive. If the
lifeline closes, the supervisor has ended, and the child ends at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from responder.logs import Seldom
from responder.process.lifeline import Message, Word, receive, receive_orders, send
from responder.process.prctl import hide_memory

BEAT = 1.0
"""Seconds between two reports that the child is alive."""

FAULT_INTERVAL = 10.0
"""Seconds between two log lines about faults of one kind."""

_log = structlog.get_logger("process")


class Lifeline:
    """A child's end of the socket to its supervisor."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._heard: asyncio.Queue[Message] = asyncio.Queue()
        self._beat: asyncio.TimerHandle | None = None

    def orders(self) -> Any:
        """The JSON document that the supervisor sent. Blocks until it is here; call it once, first of all."""
        if (orders := receive_orders(self._socket)) is None:
            raise SystemExit("the supervisor went away")
        return orders

    def watch(self) -> None:
        """Read messages from now on, and end this process at once when the supervisor is gone."""
        asyncio.get_running_loop().add_reader(self._socket, self._listen)

    def unwatch(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        if self._beat is not None:
            self._beat.cancel()

    async def hear(self) -> Message:
        """The next message of the supervisor, now or later."""
        return await self._heard.get()

    def ready(self, place: int = 0) -> None:
        """Report that the work has begun, at that *place*, and from now on that the event loop is still turning."""
        if self._beat is not None:
            self._beat.cancel()
        self._send(Message(Word.ALIVE, place))
        self._beat = asyncio.get_running_loop().call_later(BEAT, self.ready, place)

    def waiting(self) -> None:
        """Report that something outside is waited for before the work can begin."""
        self._send(Message(Word.WAITING))

    def prepared(self) -> None:
        """Report that the process has started, and can go on once it is its turn."""
        self._send(Message(Word.PREPARED))

    def ask_to_kill(self, pid: int) -> None:
        """Have the supervisor kill a nameserver. It reports the death; until then, it may be asked again."""
        self._send(Message(Word.KILL, pid))

    def _send(self, message: Message) -> None:
        with contextlib.suppress(OSError):  # the supervisor is gone, or does not read
            send(self._socket, message)

    def _listen(self) -> None:
        try:
            message = receive(self._socket)
        except BlockingIOError:
            return
        except ConnectionError:  # its end if the supervisor never looked at our report
            message = None
        if message is None:
            os._exit(1)
        self._heard.put_nowait(message)


def run(main: Callable[[Any, Lifeline, asyncio.Event], Awaitable[None]]) -> None:
    """
    Run *main* with the orders, the lifeline, and an event that is set when it shall come to an end.

    SIGTERM and SIGINT ask for the end. The end of the lifeline does not ask: the process is gone at once.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # when a terminal closes, the supervisor decides what to do
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # the customary 1024 are fewer than our connections
    hide_memory()  # there are secrets in it
    lifeline = Lifeline(socket.socket(fileno=os.dup(0)))
    asyncio.run(_run(main, lifeline.orders(), lifeline))


async def _run(
    main: Callable[[Any, Lifeline, asyncio.Event], Awaitable[None]], orders: Any, lifeline: Lifeline
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_Reporter())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # the supervisor blocks its own signals, and we inherited that
    lifeline.watch()
    try:
        await main(orders, lifeline, stop)
    finally:
        lifeline.unwatch()


class _Reporter:
    """Logs faults of the event loop, such as a lack of descriptors, at a limited rate."""

    def __init__(self) -> None:
        self._seldom = Seldom(FAULT_INTERVAL)

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        message = str(context["message"])
        if (unreported := self._seldom.due(message)) is not None:
            _log.error(message, reason=repr(context.get("exception")), more=unreported)
