"""
The socket between the supervisor and a child: first it carries the child's orders, then messages both ways.

It keeps messages apart (SOCK_SEQPACKET), and the child finds its end on descriptor 0. When one end is closed, the
process there is gone.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Any

from responder.process import parcel
from responder.process.parcel import pair as pair

_LONGEST = 64
"""Octets of a message at most: a word and a number of 19 digits. What is cut here makes no sense any more."""


class Word(StrEnum):
    """What a message is about. Its number is the id of a process, or a place."""

    FEED = auto()
    """To either end of a feed, with a descriptor: the feed that leads to that process."""
    DIED = auto()
    """To the control process: that nameserver is no more."""
    SERVE = auto()
    """To a nameserver: answer at that place. To the control process: that nameserver does so now."""
    ALIVE = auto()
    """From a child that is ready, again and again: it answers at that place, which is 0 for none."""
    WAITING = auto()
    """From the control process, again and again: it waits for something outside, and is not ready before."""
    KILL = auto()
    """From the control process: make an end of that nameserver."""
    PREPARED = auto()
    """From a child: it has started, and can go on once it is its turn."""
    TAKE_OVER = auto()
    """To a control process that waits for its turn: the one before it has ended."""
    RETIRE = auto()
    """To a child: others do its work from now on. It finishes what was begun, and ends."""


@dataclass(frozen=True, slots=True)
class Message:
    """A word, a number, and perhaps a descriptor."""

    word: Word
    number: int = 0
    descriptor: int | None = None


def send_orders(lifeline: socket.socket, orders: Any) -> None:
    """Send *orders*, a JSON document. Never blocks, even if the child never reads them. Raises `OSError`."""
    parcel.send(lifeline, orders, [])


def receive_orders(lifeline: socket.socket) -> Any:
    """The orders; None if the supervisor went away instead. Blocks until there is either."""
    received = parcel.receive(lifeline)
    return None if received is None else received[0]


def send(lifeline: socket.socket, message: Message) -> None:
    """Raises `BlockingIOError` if the other end does not listen, another `OSError` if it is gone."""
    descriptors = [] if message.descriptor is None else [message.descriptor]
    socket.send_fds(lifeline, [f"{message.word} {message.number}".encode()], descriptors, socket.MSG_DONTWAIT)


def receive(lifeline: socket.socket) -> Message | None:
    """The next message, for a child; None at the end. Raises `BlockingIOError` if there is none yet."""
    flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
    octets, descriptors, _, _ = socket.recv_fds(lifeline, _LONGEST, 1, flags)
    return _parse(octets, descriptors[0] if descriptors else None) if octets else None


def receive_text(lifeline: socket.socket) -> Message | None:
    """As `receive`, for the supervisor, which takes no descriptors. Raises `ValueError` for what makes no sense."""
    octets = lifeline.recv(_LONGEST, socket.MSG_DONTWAIT)
    return _parse(octets, None) if octets else None


def _parse(octets: bytes, descriptor: int | None) -> Message:
    word, _, number = octets.decode().partition(" ")
    return Message(Word(word), int(number), descriptor)
