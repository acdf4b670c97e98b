"""
From one program of the supervisor to the next, in the same process: what is handed over, and how the elders retire.

Elders are the children that an earlier program started. They go on until their successors can do their work: first
the old control process ends, which lets the new one begin; then nameservers that have loaded from the new one answer
at every place; then the old nameservers end. If a successor cannot start, the elders stay.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from responder.process.candidate import FORM
from responder.process.children import Child, Heirloom
from responder.process.lifeline import Message, Word
from responder.process.parcel import memory_file, read_memory_file

RETIRE_CONTROL = 15.0
"""Seconds that an old control process has: its clients get some to take note, and requests under way to finish."""

RETIRE_NAMESERVER = 5.0
"""Seconds that an old nameserver has for its connections."""

CONTROL = "control"
"""The name of the control process; all others are nameservers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estate:
    """What a supervisor hands over: descriptors of the *sockets* that the plan counts, the *instance*, the children."""

    sockets: Sequence[int]
    instance: str
    children: Sequence[Heirloom]
    form: int = FORM

    def write(self) -> int:
        """The descriptor of an anonymous file that holds it."""
        return memory_file(asdict(self))

    @classmethod
    def read(cls, number: int) -> Self:
        document: dict[str, Any] = read_memory_file(number)
        children = [Heirloom(**heirloom) for heirloom in document.pop("children")]
        return cls(children=children, **document)

    def by_purpose(self, counts: dict[str, int]) -> dict[str, list[socket.socket]]:
        """The sockets, of which there are as many for each purpose as *counts* has."""
        numbers = iter(self.sockets)
        sockets = {purpose: [socket.socket(fileno=next(numbers)) for _ in range(n)] for purpose, n in counts.items()}
        for sock in (sock for group in sockets.values() for sock in group):
            sock.set_inheritable(False)
        return sockets


@dataclass(slots=True)
class Elders:
    """The children of earlier programs that still run, none after an ordinary start."""

    children: list[Child] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.children)

    @property
    def controls(self) -> list[Child]:
        return [child for child in self.children if child.name == CONTROL]

    @property
    def nameservers(self) -> list[Child]:
        return [child for child in self.children if child.name != CONTROL]

    def retire(self, *, control: bool, nameservers: bool) -> None:
        """Have these end now. Those that were asked to already are killed when their time is over."""
        for child in self.children:
            is_control = child.name == CONTROL
            if child.is_retiring or (control if is_control else nameservers):
                child.retire(RETIRE_CONTROL if is_control else RETIRE_NAMESERVER)

    def reap(self) -> Iterator[tuple[Child, int, int]]:
        """Those that have ended, with their process ids and exit statuses. A place that becomes free is filled."""
        for child in [*self.children]:
            if child.process is None or (status := child.process.poll()) is None:
                continue
            pid, place = child.pid, child.place
            child.bury()
            self.children.remove(child)
            if child.name != CONTROL:
                self._notify(child.age, Message(Word.DIED, pid))
            if place and child.name != CONTROL and not child.is_retiring:
                self._fill(place, child.age)
            yield child, pid, status

    def listen(self) -> None:
        """Take their reports; those of one age know each other."""
        for child in self.children:
            was_answering = child.answers_at
            wanted = child.listen()
            if child.name == CONTROL:
                for nameserver in self.nameservers:
                    if nameserver.age == child.age and nameserver.pid in wanted:
                        nameserver.signal(signal.SIGKILL)
            elif child.answers_at and not was_answering:
                self._notify(child.age, Message(Word.SERVE, child.pid))

    def _notify(self, age: int, message: Message) -> None:
        for control in self.controls:
            if control.age == age:
                control.notify(message)

    def _fill(self, place: int, age: int) -> None:
        """Give a place of elders to one of them that stands by: their successors have others."""
        spares = (each for each in self.nameservers if each.age == age and each.is_ready and not each.place)
        if (spare := next(spares, None)) is not None:
            spare.place = place
            spare.notify(Message(Word.SERVE, place))


def bequeath(children: Iterable[Child]) -> list[Heirloom]:
    """What the next program needs to know of the *children* that run."""
    return [heirloom for child in children if (heirloom := child.bequeath()) is not None]


def inheritable(numbers: Sequence[int], *, on: bool) -> None:
    """Let the next program have these descriptors, or not."""
    for number in numbers:
        os.set_inheritable(number, on)
