"""
The nameservers as the control process serves them: their feed, their updates, and what the supervisor reports of them.
"""

from __future__ import annotations

import socket
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from responder import metrics
from responder.config import Settings
from responder.control.keys import signatures
from responder.control.tasks import Turn, running
from responder.feed import Publisher, fail
from responder.process.child import Lifeline
from responder.process.lifeline import Word
from responder.process.orders import ControlOrders
from responder.store import Store
from responder.update import Signatures


@dataclass(frozen=True, slots=True)
class Feed:
    """
    What serves the nameservers: the *publisher* of zones, and the *signatures* of DNS updates, None without updates.
    *stores* has the store of the zones once it is open.
    """

    publisher: Publisher
    signatures: Signatures | None
    stores: list[Store] = field(default_factory=list)

    def decline(self) -> None:
        """Reply to updates with a signed SERVFAIL from now on, because there is no store yet."""
        if self.signatures is not None:
            self.publisher.take_packets_with(self.signatures.decline)

    async def stop(self) -> None:
        await self.publisher.stop()
        for store in self.stores:
            await store.close()


async def attend_nameservers(
    settings: Settings, lifeline: Lifeline, orders: ControlOrders, turn: Turn, stack: AsyncExitStack
) -> Feed:
    """Serve the nameservers, before the store is open. The store is closed last, because a snapshot may be read."""
    publisher = Publisher(
        settings.statics,
        nameservers=settings.dns.processes,
        outlived=orders.nameservers,
        elders=orders.elders,
        kill=lifeline.ask_to_kill,
        lost=metrics.RESTARTS.labels("nameserver").inc,
        counted=lambda counted: metrics.count(*counted),
    )
    feed = Feed(publisher, signatures(settings))
    if feed.signatures is None:
        publisher.take_packets_with(fail)
    stack.push_async_callback(feed.stop)
    await stack.enter_async_context(running(_attend(lifeline, publisher, turn)))
    return feed


async def _attend(lifeline: Lifeline, publisher: Publisher, turn: Turn) -> None:
    """Take the messages of the supervisor: a nameserver connects, answers queries or dies; the *turn* comes or ends."""
    while True:
        message = await lifeline.hear()
        if message.word is Word.FEED:
            await publisher.admit(message.number, socket.socket(fileno=message.descriptor))
        elif message.word is Word.SERVE:
            publisher.answers(message.number)
        elif message.word is Word.DIED:
            publisher.bury(message.number)
        elif message.word is Word.TAKE_OVER:
            turn.has_come.set()
        elif message.word is Word.RETIRE:
            turn.end()
