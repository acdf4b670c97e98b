"""
A nameserver at the other end of the feed, as the control process sees it: what it was sent, what it has acknowledged,
and a hold on its process. It is put down where it takes nothing any more; otherwise that is for the `publisher` to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import structlog

from responder.dns.zone import Change
from responder.feed.frames import End, Frame, Reply, render_frame
from responder.names import Name

ACK_DEADLINE = 3.0
"""Seconds a serving nameserver may take to acknowledge a change. It needs a millisecond; cert-manager waits 30 s."""

SECONDS_PER_NAME = 0.001
"""Seconds that it may take on top for each name in it: imports and snapshots have many. It needs a hundredth of it."""

MAX_UNREAD = 1 << 20
"""Octets that may wait for a nameserver when a reply joins them: thousands of replies; it never asks for as many."""

MAX_NAMES = 100
"""Names in one frame: to read it takes a nameserver 0.1 ms, in which it answers nobody."""

_log = structlog.get_logger("feed")


@dataclass(eq=False)
class Peer:
    """One connected nameserver: what it was sent and what it has acknowledged, both counted in frames."""

    pid: int
    writer: asyncio.StreamWriter
    serving: bool
    sent: int = 0
    acknowledged: int = 0
    gone: bool = False
    leaving: bool = False
    _serials: dict[Name, int] = field(default_factory=dict)
    _pending: dict[Name, Change] | None = field(default_factory=dict)
    _progress: asyncio.Event = field(default_factory=asyncio.Event)
    _unacknowledged: deque[int] = field(default_factory=deque)  # the names in each of those frames
    _credit: float = 0.0  # seconds that it has taken less for its snapshot than it may
    _served_from: int = 0
    _pidfd: int = -1

    def __post_init__(self) -> None:
        self._pidfd = hold(self.pid)

    def send(self, frame: Frame) -> None:
        self.sent += 1
        self._unacknowledged.append(len(frame.names) if isinstance(frame, Change) else 0)
        self.writer.write(render_frame(self.sent, frame))

    def send_reply(self, reply: Reply) -> None:
        """
        Send *reply*, unless the nameserver is gone, or reads so little that it would have us keep replies for ever: it
        may not be itself any more. One that is only busy lets its client ask again.
        """
        if not self.gone and self.writer.transport.get_write_buffer_size() <= MAX_UNREAD:
            self.send(reply)

    @property
    def answers(self) -> bool:
        """Whether it answers queries from all that it was told to serve."""
        return self.serving and not self.loading and not self.gone and self.acknowledged >= self._served_from

    @property
    def loading(self) -> bool:
        return self._pending is not None

    def send_changes(self, changes: Sequence[Change]) -> bool:
        """
        Send *changes*, now or behind the snapshot. Returns whether the nameserver answers queries meanwhile.

        One that is loading answers only if it outlived an earlier control process, and then from old data.
        """
        for change in changes:
            if self._pending is None:
                self._send_news(change)
            else:
                earlier = self._pending.get(change.apex)
                self._pending[change.apex] = _join(earlier, change) if earlier is not None else change
        return self.serving

    def finish_loading(self, serials: dict[Name, int]) -> None:
        """Send what came while the snapshot went out and is not part of it, and only then let it be served."""
        self._serials = serials
        pending, self._pending = self._pending or {}, None
        for change in pending.values():
            self._send_news(change)
        self.send(End())
        self._served_from = self.sent
        self.serving = True
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
        """Raises `ValueError` for what cannot be: whoever repeats itself would keep everybody waiting for ever."""
        if not self.acknowledged < count <= self.sent:
            raise ValueError("an acknowledgement of nothing")
        for _ in range(count - self.acknowledged):
            self._unacknowledged.popleft()
        self.acknowledged = count
        self._progress.set()

    async def confirm(self) -> None:
        """
        Wait until it has acknowledged everything sent so far, or make an end of it.

        There is one deadline for all of that: acknowledging it frame by frame does not buy more time.
        """
        while self.loading and not self.gone:  # `drain` says how long that may take
            await self._progresses(self.sent, ACK_DEADLINE)
        target, now = self.sent, asyncio.get_running_loop().time
        deadline = now() + ACK_DEADLINE + sum(self._unacknowledged) * SECONDS_PER_NAME
        while self.acknowledged < target and not self.gone:
            await self._progresses(target, deadline - now())

    async def _progresses(self, target: int, seconds: float) -> None:
        """Wait for any progress, and make an end of it if there is none in time and it owes some up to *target*."""
        self._progress.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._progress.wait()
        except TimeoutError:
            if self.acknowledged < target and not self.gone:
                self.put_down()

    def put_down(self) -> None:
        """Kill it because it hangs."""
        _log.error("nameserver does not acknowledge; killing it so that it starts afresh", pid=self.pid)
        self.kill()

    def kill(self) -> None:
        kill(self.pid, self._pidfd)
        self.abandon()

    def leave(self) -> None:
        """Hang up because *we* stop: the nameserver is fine and goes on."""
        self.leaving = True
        self.abandon()

    def abandon(self) -> None:
        self.gone = True
        self._progress.set()
        self.writer.transport.abort()

    def close(self) -> None:
        self.abandon()
        let_go(self._pidfd)
        self._pidfd = -1


_DEAD = -2


def hold(pid: int) -> int:
    """
    A hold on a process, which cannot mean a stranger that got the same id later.

    A number below 0 if there is none to be had: `_DEAD` for a process that has ended, or else -1, so that only the id
    is left to go by.
    """
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return _DEAD
    except (OSError, AttributeError):
        return -1


def kill(pid: int, pidfd: int) -> None:
    with contextlib.suppress(OSError):
        if pidfd >= 0:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        elif pidfd != _DEAD:
            os.kill(pid, signal.SIGKILL)


def let_go(pidfd: int) -> None:
    if pidfd >= 0:
        os.close(pidfd)


def _join(earlier: Change, later: Change) -> Change:
    """One change of a zone that has the effect of both."""
    return replace(later, previous=earlier.previous, names={**earlier.names, **later.names})
