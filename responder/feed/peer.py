"""
A nameserver at the other end of the feed, as the control process sees it: what it was sent, what it has acknowledged.

It is killed where it takes nothing any more; otherwise that is for the `publisher` to decide.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import structlog

from responder.dns.zone import Change
from responder.feed.frames import End, Frame, Reply, Sandbox, render_frame
from responder.names import Name

ACK_DEADLINE = 3.0
"""Seconds a serving nameserver may take to acknowledge a change. It needs a millisecond; cert-manager waits 30 s."""

SECONDS_PER_NAME = 0.001
"""Seconds that it may take on top for each name in it: imports and snapshots have many. It needs a hundredth of it."""

MAX_UNREAD = 1 << 20
"""Octets that may wait for a nameserver when a reply joins them: thousands of replies; it never asks for as many."""

MAX_NAMES = 100
"""Names in one frame: to read it takes a nameserver 0.1 ms, in which it answers no query."""

_log = structlog.get_logger("feed")


@dataclass(eq=False)
class Peer:
    """
    One nameserver: what it was sent and what it has acknowledged, both counted in frames.

    It counts until it is *gone*, which means dead, by the word of the supervisor, or let go because we stop. *kill*
    asks for its death. *loaded* is whether it has zones, so that it may answer queries from them at any time.
    """

    pid: int
    writer: asyncio.StreamWriter
    kill: Callable[[int], None]
    loaded: bool = False
    sandbox: Sandbox = field(default_factory=Sandbox)
    sent: int = 0
    acknowledged: int = 0
    gone: bool = False
    _is_severed: bool = False
    _serials: dict[Name, int] = field(default_factory=dict)
    _pending: dict[Name, Change] | None = field(default_factory=dict)
    _progress: asyncio.Event = field(default_factory=asyncio.Event)
    _unacknowledged: deque[int] = field(default_factory=deque)  # the names in each of those frames
    _credit: float = 0.0  # seconds that it has taken less for its snapshot than it may
    _current_from: int = 0
    _loading: asyncio.Task[None] | None = None

    def send(self, frame: Frame) -> None:
        """Send *frame*, if there is still a way to do that."""
        self.sent += 1
        self._unacknowledged.append(len(frame.names) if isinstance(frame, Change) else 0)
        if not self._is_severed:
            self.writer.write(render_frame(self.sent, frame))

    def send_reply(self, reply: Reply) -> None:
        """
        Send *reply*, unless the nameserver reads so little that it would have us keep replies for ever: it
        may not be itself any more. One that is only busy lets its client ask again.
        """
        if self.writer.transport.get_write_buffer_size() <= MAX_UNREAD:
            self.send(reply)

    @property
    def is_current(self) -> bool:
        """Whether it has zones, with all changes that it was sent."""
        return self.loaded and not self.loading and not self._is_severed and self.acknowledged >= self._current_from

    @property
    def loading(self) -> bool:
        return self._pending is not None

    def send_changes(self, changes: Sequence[Change]) -> bool:
        """
        Send *changes*, now or behind the snapshot. Returns whether the nameserver may answer queries meanwhile.

        One that is loading may only if it had zones before, and then from old data.
        """
        for change in changes:
            if self._pending is None:
                self._send_news(change)
            else:
                earlier = self._pending.get(change.apex)
                self._pending[change.apex] = _join(earlier, change) if earlier is not None else change
        return self.loaded

    def begin_loading(self, loading: asyncio.Task[None]) -> None:
        """Keep changes back until *loading* has sent a whole snapshot, which is to begin afterwards."""
        self.stop_loading()
        self._pending, self._loading = {}, loading

    def stop_loading(self) -> None:
        if self._loading is not None:
            self._loading.cancel()

    def finish_loading(self, serials: dict[Name, int]) -> None:
        """Send what came while the snapshot went out and is not part of it, and only then let it be served."""
        self._serials = serials
        pending, self._pending = self._pending or {}, None
        for change in pending.values():
            self._send_news(change)
        self.send(End())
        self._current_from = self.sent
        self.loaded = True
        self._progress.set()

    def _send_news(self, change: Change) -> None:
        """Send *change* in pieces, unless it is older than what was sent before."""
        if change.serial > self._serials.get(change.apex, 0):
            self._serials[change.apex] = change.serial
            for piece in change.pieces(MAX_NAMES):
                self.send(piece)

    async def drain(self) -> None:
        """
        Wait until it takes more of its snapshot. One that hangs must not keep a transaction of the store open for ever,
        and neither must one that takes a little now and then: so long may all these waits be together.
        """
        self._credit += self._unacknowledged[-1] * SECONDS_PER_NAME
        now = asyncio.get_running_loop().time
        began = now()
        try:
            async with asyncio.timeout(ACK_DEADLINE + min(self._credit, 0.0)):
                await self.writer.drain()
        except TimeoutError:
            self.put_down()
            raise ConnectionAbortedError from None
        self._credit -= now() - began

    def acknowledge(self, count: int) -> None:
        """Raises `ValueError` for what cannot be: repeating itself, it would keep all callers waiting for ever."""
        if not self.acknowledged < count <= self.sent:
            raise ValueError("an acknowledgement of nothing")
        for _ in range(count - self.acknowledged):
            self._unacknowledged.popleft()
        self.acknowledged = count
        self._progress.set()

    async def confirm(self) -> None:
        """
        Wait until it has acknowledged everything sent so far, or is dead: one that is late is killed.

        There is one deadline for all of that: acknowledging it frame by frame does not buy more time.
        """
        while self.loading and not self._is_severed:  # `drain` limits how long that may take
            await self._progresses(self.sent, ACK_DEADLINE)
        target, now = self.sent, asyncio.get_running_loop().time
        deadline = now() + ACK_DEADLINE + sum(self._unacknowledged) * SECONDS_PER_NAME
        while self.acknowledged < target and not self._is_severed:
            await self._progresses(target, deadline - now())
        while self._is_severed and not self.gone:  # until it is dead, it may go on answering
            await self._progresses(target, ACK_DEADLINE)

    async def _progresses(self, target: int, seconds: float) -> None:
        """Wait for any progress. If there is none in time and it owes some up to *target*, it is killed."""
        self._progress.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._progress.wait()
        except TimeoutError:
            if self.acknowledged < target or self._is_severed:
                self.put_down()

    def put_down(self) -> None:
        """Have it killed because it hangs."""
        if not self._is_severed:
            _log.error("nameserver does not acknowledge; killing it so that it starts afresh", pid=self.pid)
        self.sever()

    def sever(self) -> None:
        """Have it killed, and take nothing more from it."""
        self._is_severed = True
        self._progress.set()
        self.writer.transport.abort()
        self.kill(self.pid)

    def leave(self) -> None:
        """It is dead, or we stop: then the nameserver is fine and goes on."""
        self.gone = self._is_severed = True
        self._progress.set()
        self.writer.transport.abort()


def _join(earlier: Change, later: Change) -> Change:
    """One change of a zone that has the effect of both."""
    return replace(later, previous=earlier.previous, names={**earlier.names, **later.names})
