"""
One nameserver as the control process sees it: the frames that it was sent, and those that it has acknowledged.

A nameserver that does not read or acknowledge in time is killed here. What else it is sent or killed for is decided in
`publisher`, which explains how the feed works.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import structlog

from responder.dns.zone import Change
from responder.feed.frames import End, Frame, PacketReply, Sandbox, render_frame
from responder.names import Name

ACK_DEADLINE = 3.0
"""Seconds in which a nameserver must acknowledge a change. It needs a millisecond; cert-manager waits 30 s."""

SECONDS_PER_NAME = 0.001
"""More seconds for each name in the change: imports and snapshots have many. It needs a hundredth of this."""

MAX_UNREAD = 1 << 20
"""Octets that may wait for a nameserver when a reply is added: thousands of replies, more than it ever asks for."""

MAX_NAMES = 100
"""Names in one frame. A nameserver needs 0.1 ms to read it, and answers no query in that time."""

_log = structlog.get_logger("feed")


@dataclass(eq=False)
class Peer:
    """
    One nameserver. *sent* and *acknowledged* are numbers of frames.

    *kill* asks the supervisor to kill it. *gone* is whether the supervisor has reported its death, or this process
    stops; until then, changes wait for it. *loaded* is whether it has zones, so that it may answer queries at any time.
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
    _unacknowledged: deque[int] = field(default_factory=deque)  # the number of names in each of those frames
    _credit: float = 0.0  # seconds that it may still be late in reading its snapshot
    _current_from: int = 0
    _loading: asyncio.Task[None] | None = None

    def send(self, frame: Frame) -> None:
        """Send *frame*, unless the connection was given up."""
        self.sent += 1
        self._unacknowledged.append(len(frame.names) if isinstance(frame, Change) else 0)
        if not self._is_severed:
            self.writer.write(render_frame(self.sent, frame))

    def send_reply(self, reply: PacketReply) -> None:
        """
        Send *reply*, unless too much is unread: a nameserver under the control of an attacker could make this process
        keep replies without end. If the nameserver is only busy, the client asks again.
        """
        if self.writer.transport.get_write_buffer_size() <= MAX_UNREAD:
            self.send(reply)

    @property
    def is_current(self) -> bool:
        """Whether it serves a whole snapshot, which means that it has acknowledged all of it."""
        return self.loaded and not self.loading and not self._is_severed and self.acknowledged >= self._current_from

    @property
    def loading(self) -> bool:
        return self._pending is not None

    def send_changes(self, changes: Sequence[Change]) -> bool:
        """
        Send *changes*, now or after the snapshot that is under way.

        Returns whether the nameserver may answer queries now. While it loads a snapshot, it does that only if it had
        zones before, and then it answers from old data.
        """
        for change in changes:
            if self._pending is None:
                self._send_news(change)
            else:
                earlier = self._pending.get(change.apex)
                self._pending[change.apex] = _join(earlier, change) if earlier is not None else change
        return self.loaded

    def begin_loading(self, loading: asyncio.Task[None]) -> None:
        """Keep changes back until the task *loading*, which begins after this, has sent a whole snapshot."""
        self.stop_loading()
        self._pending, self._loading = {}, loading

    def stop_loading(self) -> None:
        if self._loading is not None:
            self._loading.cancel()

    def finish_loading(self, serials: dict[Name, int]) -> None:
        """Send the changes that came meanwhile and are not in the snapshot (*serials*), then have it served."""
        self._serials = serials
        pending, self._pending = self._pending or {}, None
        for change in pending.values():
            self._send_news(change)
        self.send(End())
        self._current_from = self.sent
        self.loaded = True
        self._progress.set()

    def _send_news(self, change: Change) -> None:
        """Send *change* in pieces, unless the nameserver was sent this serial or a later one before."""
        if change.serial > self._serials.get(change.apex, 0):
            self._serials[change.apex] = change.serial
            for piece in change.pieces(MAX_NAMES):
                self.send(piece)

    async def drain(self) -> None:
        """
        Wait until the nameserver has read enough of its snapshot.

        The snapshot holds a transaction of the store open. So there is one limit for the sum of these waits: a
        nameserver cannot extend it by reading a little from time to time. If it is exceeded, the nameserver is killed.
        """
        self._credit += self._unacknowledged[-1] * SECONDS_PER_NAME
        now = asyncio.get_running_loop().time
        began = now()
        try:
            async with asyncio.timeout(ACK_DEADLINE + min(self._credit, 0.0)):
                await self.writer.drain()
        except TimeoutError:
            self.kill_hanging()
            raise ConnectionAbortedError from None
        self._credit -= now() - began

    def acknowledge(self, count: int) -> None:
        """Note that *count* frames are acknowledged. Raises `ValueError` if that is no progress, or not possible."""
        if not self.acknowledged < count <= self.sent:
            raise ValueError("an acknowledgement of nothing")
        for _ in range(count - self.acknowledged):
            self._unacknowledged.popleft()
        self.acknowledged = count
        self._progress.set()

    async def confirm(self) -> None:
        """
        Wait until the nameserver has acknowledged everything that was sent so far, or is dead. A late one is killed.

        There is one deadline for the whole: a nameserver does not get more time by acknowledging single frames.
        """
        while self.loading and not self._is_severed:  # `drain` limits how long that may take
            await self._progresses(self.sent, ACK_DEADLINE)
        target, now = self.sent, asyncio.get_running_loop().time
        deadline = now() + ACK_DEADLINE + sum(self._unacknowledged) * SECONDS_PER_NAME
        while self.acknowledged < target and not self._is_severed:
            await self._progresses(target, deadline - now())
        while self._is_severed and not self.gone:  # it may answer queries until it is dead
            await self._progresses(target, ACK_DEADLINE)

    async def _progresses(self, target: int, seconds: float) -> None:
        """Wait for progress. Without any in time, the nameserver is killed if frames up to *target* are missing."""
        self._progress.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._progress.wait()
        except TimeoutError:
            if self.acknowledged < target or self._is_severed:
                self.kill_hanging()

    def kill_hanging(self) -> None:
        """Have the nameserver killed because it hangs."""
        if not self._is_severed:
            _log.error("nameserver does not acknowledge; killing it so that a new one starts", pid=self.pid)
        self.sever()

    def sever(self) -> None:
        """Have the nameserver killed, and close the connection to it."""
        self._is_severed = True
        self._progress.set()
        self.writer.transport.abort()
        self.kill(self.pid)

    def leave(self) -> None:
        """Stop waiting for the nameserver: it is dead, or this process stops and the nameserver goes on."""
        self.gone = self._is_severed = True
        self._progress.set()
        self.writer.transport.abort()


def _join(earlier: Change, later: Change) -> Change:
    """One change with the effect of both."""
    return replace(later, previous=earlier.previous, names={**earlier.names, **later.names})
