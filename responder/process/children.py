"""
A child process as its supervisor sees it: how it is started, what it reports, and when it is started again.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

import structlog

from responder.logs import REMINDER, Seldom
from responder.process.adopted import Adopted, Process
from responder.process.lifeline import Message, Word, pair, receive_text, send, send_orders
from responder.process.users import User

SHORT_LIFE = 1.0
"""Seconds: a child that lived shorter, or was never ready, is restarted with growing delays, any other at once."""

MAX_DELAY = 5.0
"""Seconds between two starts of a child that keeps dying."""

SILENCE = 30.0
"""Seconds without a message after which a child hangs, and is killed. It sends one every second."""

RETIRE_AGAIN = 5.0
"""Seconds for a child that was asked to end by an earlier program of the supervisor."""

HEARD_AT_ONCE = 1000
"""Messages of a child that are read in one go: a child that never stops sending must not occupy the supervisor."""

KEPT_FOR_NAMESERVERS = (
    *("PATH", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "PYTHONHOME", "PYTHONUNBUFFERED"),
    "JOURNAL_STREAM",  # whether stderr is the journal, which wants priorities
)
"""The only environment variables a nameserver process sees."""

_log = structlog.get_logger("supervisor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Heirloom:
    """A child that is handed over to the next program of the supervisor; *lifeline* is a descriptor."""

    name: str
    pid: int
    lifeline: int
    is_ready: bool
    place: int
    answers_at: int
    age: int
    is_retiring: bool


@dataclass(slots=True)
class Child:
    """A child process: how to start it, and how it fared."""

    name: str
    module: str
    sockets: dict[str, list[int]]
    orders: dict[str, Any]
    bare: bool = False
    user: User | None = None
    """Whom it runs as, if not as the supervisor."""
    process: Process | None = None
    is_prepared: bool = False
    """Whether it reported that it has started, and can go on once it is its turn."""
    is_ready: bool = False
    was_ready: bool = False
    is_waiting: bool = False
    """Whether it reported that it waits for something outside before it can be ready."""
    due: float | None = 0.0
    restarts: int = 0
    deaths: Seldom = field(default_factory=lambda: Seldom(REMINDER))
    is_missed: bool = False
    place: int = 0
    """Where it is to answer queries, if it is a nameserver; 0 is nowhere."""
    answers_at: int = 0
    """Where it reports that it does."""
    age: int = 0
    """How many programs of the supervisor have begun since it was started; what has an age only has to retire."""
    _retire_by: float | None = None
    _lifeline: socket.socket | None = None
    _started: float = 0.0
    _heard: float = 0.0
    _delay: float = 0.0

    @property
    def pid(self) -> int:
        """Its process id; 0 if it does not run."""
        return self.process.pid if self.process is not None else 0

    def start(self, **orders: Any) -> None:
        """
        Start it, with nothing open but its sockets and its lifeline; later, if the system has no process to give.

        *orders* are for this life of it.
        """
        self._started, self.due = time.monotonic(), None
        orders = {**self.orders, "sockets": self.sockets, "restarts": self.restarts, **orders}
        try:
            self._lifeline, theirs = pair()
            with theirs:
                _wake_for(self._lifeline)
                send_orders(self._lifeline, orders)
                self.process = self._popen(theirs)
        except OSError as fault:
            _log.error("cannot start a process", process=self.name, reason=fault.strerror)
            self._retire()

    def _popen(self, lifeline: socket.socket) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", self.module],
            stdin=lifeline.fileno(),
            pass_fds=[number for numbers in self.sockets.values() for number in numbers],
            env={k: v for k, v in os.environ.items() if not self.bare or k in KEPT_FOR_NAMESERVERS},
            user=self.user.uid if self.user else None,
            group=self.user.gid if self.user else None,
            extra_groups=[self.user.gid] if self.user else None,  # no empty list: Python 3.11 then keeps all groups
            process_group=0,  # a terminal's Ctrl-C is for the supervisor, which stops all in the right order
        )

    @classmethod
    def adopt(cls, heirloom: Heirloom) -> Self:
        """A child that the program before this one started."""
        child = cls(heirloom.name, "", {}, {}, process=Adopted(heirloom.pid), due=None)
        child.is_ready = child.was_ready = heirloom.is_ready
        child.place, child.answers_at, child.age = heirloom.place, heirloom.answers_at, heirloom.age + 1
        child._lifeline = socket.socket(fileno=heirloom.lifeline)
        child._lifeline.set_inheritable(False)
        child._heard = now = time.monotonic()
        child._retire_by = now + RETIRE_AGAIN if heirloom.is_retiring else None
        return child

    def bequeath(self) -> Heirloom | None:
        """What the next program needs to know of it, with its lifeline left open for that; None if it does not run."""
        if self.process is None or self._lifeline is None:
            return None
        self._lifeline.set_inheritable(True)
        return Heirloom(
            name=self.name,
            pid=self.pid,
            lifeline=self._lifeline.fileno(),
            is_ready=self.is_ready,
            place=self.place,
            answers_at=self.answers_at,
            age=self.age,
            is_retiring=self.is_retiring,
        )

    def retire(self, seconds: float) -> None:
        """Have others do its work from now on, and give it some *seconds* to end. After that it is killed."""
        now = time.monotonic()
        if self._retire_by is None:
            self._retire_by = now + seconds
            self.notify(Message(Word.RETIRE))
        elif now >= self._retire_by:
            _log.error("a process does not stop; killing it", process=self.name)
            self._retire_by = now + seconds
            self.signal(signal.SIGKILL)

    @property
    def is_retiring(self) -> bool:
        return self._retire_by is not None

    def bury(self) -> None:
        """Note that it died, whether it ever was ready, and when it may be started again."""
        self.listen()
        self._retire()

    def _retire(self) -> None:
        if self._lifeline is not None:
            self._lifeline.close()
        short = not self.is_ready or time.monotonic() - self._started < SHORT_LIFE
        self._delay = min(max(2 * self._delay, 0.1), MAX_DELAY) if short else 0.0
        self.due = time.monotonic() + self._delay
        self.restarts += 1
        self.is_prepared = self.is_ready = self.is_waiting = False
        self.place = self.answers_at = 0
        self._lifeline = self.process = None

    def notify(self, message: Message) -> None:
        """Send *message*. A child that takes none any more is killed; one that is gone does not need it."""
        if self._lifeline is None:
            return
        try:
            send(self._lifeline, message)
        except BlockingIOError:
            _log.error("a process reads no messages; killing it", process=self.name)
            self.signal(signal.SIGKILL)
        except OSError:
            return

    def listen(self) -> list[int]:
        """Note that it is ready, where it answers, and that it responds. Returns the processes that it wants killed."""
        wanted = []
        try:
            for message in self._messages():
                if message.word is Word.KILL:
                    wanted.append(message.number)
                elif message.word is Word.WAITING:
                    self.is_waiting = True
                elif message.word is Word.PREPARED:
                    self.is_prepared = True
                else:
                    self.is_ready, self.was_ready, self.is_waiting = True, True, False
                    self.answers_at = message.number if message.number == self.place else 0
                    self._heard = time.monotonic()
        except ValueError:
            _log.error("a process sends invalid messages; killing it", process=self.name)
            self.signal(signal.SIGKILL)
        return wanted

    def _messages(self) -> Iterator[Message]:
        if self._lifeline is None:
            return
        with suppress(OSError):  # there is nothing more for now, or it is gone
            for _ in range(HEARD_AT_ONCE):
                if (message := receive_text(self._lifeline)) is None:
                    return
                yield message

    @property
    def keeps_dying(self) -> bool:
        return self._delay >= MAX_DELAY

    def is_back(self) -> bool:
        """Whether it kept dying, and now lives."""
        return self.is_missed and self.is_ready and time.monotonic() - self._started >= SHORT_LIFE

    def hangs(self) -> bool:
        """Whether it was ready once, and has been silent for too long."""
        return self.is_ready and time.monotonic() - self._heard > SILENCE

    def signal(self, number: int) -> None:
        if self.process is not None:
            self.process.send_signal(number)


def introduce(control: Child, nameserver: Child) -> None:
    """Give both of them an end of a new feed."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        control.notify(Message(Word.FEED, nameserver.pid, ours.fileno()))
        nameserver.notify(Message(Word.FEED, control.pid, theirs.fileno()))


def _wake_for(lifeline: socket.socket) -> None:
    """Have the kernel send us SIGIO when the child reports something (fcntl(2))."""
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
