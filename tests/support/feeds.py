"""A feed between a publisher and a nameserver's end of it, handed over as the supervisor does."""

from __future__ import annotations

import os
import socket

from responder.feed import Feeds, Publisher


async def connect(publisher: Publisher, feeds: Feeds, *, pid: int | None = None) -> None:
    """Have *feeds* lead to *publisher*, for which the nameserver is the process *pid*: this one, by default."""
    ours, theirs = socket.socketpair()
    feeds.put(theirs)
    await publisher.admit(pid or os.getpid(), ours)


async def connect_answering(publisher: Publisher, feeds: Feeds) -> None:
    """As `connect`, for a nameserver that answers queries."""
    await connect(publisher, feeds)
    publisher.answers(os.getpid())


def nobody_is_killed(pid: int) -> None:
    """What a publisher gets to kill nameservers with where they live in the process that tests run in."""
