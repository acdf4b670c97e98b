"""
The control process: starts its parts in order, and stops them in reverse order.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from contextlib import AsyncExitStack
from itertools import chain
from typing import Any

import structlog

from responder import logs, metrics
from responder.config import Settings
from responder.control.database import open_in_time, rehearse
from responder.control.nameservers import attend_nameservers
from responder.control.parts import start
from responder.control.tasks import Turn, first_of
from responder.errors import ResponderError
from responder.process.child import Lifeline, run
from responder.process.orders import ControlOrders
from responder.process.scheduling import take_short_slices

SWITCH_INTERVAL = 0.0005
"""
Seconds after which a busy thread lets another one run. A transaction waits for that a dozen times. With 5 ms, Python's
default, presents would wait for a tenth of a second when many of them come at once.
"""


SLICE = 0.0005
"""Seconds of a time slice: nameservers have a shorter one, so that they run first; the default is longer."""


GRACE = 1.0
"""Seconds in which clients that keep their connections learn that another process goes on, with their next answers."""


_log = structlog.get_logger("control")


async def main(document: dict[str, Any], lifeline: Lifeline, stop: asyncio.Event) -> None:
    """Run the process by the orders in *document*."""
    orders = ControlOrders(**document)
    sys.setswitchinterval(SWITCH_INTERVAL)
    take_short_slices(SLICE)
    settings = Settings.model_validate(orders.settings)
    logs.configure(level=settings.log.level, format=settings.log.format)
    sockets = {
        purpose: [socket.socket(fileno=number) for number in numbers] for purpose, numbers in orders.sockets.items()
    }
    turn = Turn(stop)
    try:
        async with AsyncExitStack() as stack:
            for sock in chain(*sockets.values()):
                stack.callback(sock.close)
            feed = await attend_nameservers(settings, lifeline, orders, turn, stack)
            if orders.waits:
                await rehearse(settings)
                lifeline.prepared()
                await first_of(turn.has_come, stop)
            store = await open_in_time(settings, orders, sockets["admin"], feed, lifeline, stop)
            if store is None:
                return
            feed.stores.append(store)
            essential, api = await start(settings, store, feed, sockets, orders, turn, stack)
            lifeline.ready()
            metrics.RESTARTS.labels("control").inc(orders.restarts)
            _log.info(
                "serving",
                zones=[str(zone.name) for zone in settings.zones],
                dns=[str(e) for e in settings.dns.listen],
                api=[str(e) for e in settings.api.listen],
            )
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait([*essential, stopping], return_when=asyncio.FIRST_COMPLETED)
            if turn.is_over and not any(task.done() for task in essential):
                await api.retire(GRACE)
            for task in essential:
                if task.done():
                    task.result()  # it ends only by an exception: raise it, so that the supervisor starts a new process
    except ResponderError as error:
        _log.critical("the control process cannot go on", reason=str(error))
        raise SystemExit(1) from None


if __name__ == "__main__":
    run(main)
