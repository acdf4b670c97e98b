"""
The database at the start: opened, waited for, and reported.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from contextlib import AsyncExitStack

import structlog

from responder.api import Away
from responder.config import Settings
from responder.control.http import admin_runner, configuration, listen
from responder.control.keys import sealer
from responder.control.nameservers import Feed
from responder.control.tasks import now
from responder.errors import ResponderError, StoreUnavailable
from responder.logs import Outage
from responder.process.child import Lifeline
from responder.process.orders import ControlOrders
from responder.store import Origin, SchemaState, Store

_log = structlog.get_logger("control")


OPEN_AGAIN = 1.0
"""Seconds between attempts to open the database."""


async def _open(settings: Settings, *, must_exist: bool) -> Store:
    database = settings.database
    if must_exist and await Store.check(database.url) is SchemaState.ABSENT:
        raise StoreUnavailable("the database is missing: put it back, or restart the service to create a new one")
    return await Store.open(database.url, auto_upgrade=database.auto_upgrade, sealer=sealer(settings))


async def rehearse(settings: Settings) -> None:
    """
    Open the database once, so that all that this takes is imported: then less has to be done when it is our turn. What
    fails now is tried again then.
    """
    with contextlib.suppress(ResponderError):
        await (await _open(settings, must_exist=True)).close()


async def open_in_time(
    settings: Settings,
    orders: ControlOrders,
    admin: list[socket.socket],
    feed: Feed,
    lifeline: Lifeline,
    stop: asyncio.Event,
) -> Store | None:
    """
    Return the store once it can be opened; None if *stop* is set before. At the first start, an SQLite file must open
    at once.

    The *admin* listeners answer meanwhile, so that probes do not end the service while it waits. When this process is
    started again, a missing database is not created: the nameservers would lose the values that they still serve.
    """
    again, nameservers = orders.again or orders.restarts > 0, len(orders.nameservers)
    if not again and settings.database.path is not None:
        return await _open(settings, must_exist=False)
    meanwhile = "DNS goes on with what is in memory" if again else "DNS is not answered before"
    outage = Outage(_log, f"waiting for the database: {meanwhile}", "the database answers again")
    answering = False
    async with AsyncExitStack() as stack:
        while not stop.is_set():
            try:
                store = await _open(settings, must_exist=again)
            except StoreUnavailable as fault:
                outage.goes_on(str(fault))
                lifeline.waiting()
            else:
                outage.is_over()
                return store
            if not answering:
                answering = True
                feed.decline()
                unknown = dict.fromkeys(("writing", "database", "nodes", "clock", "certificate"), Away.condition)
                known = {"sandbox": feed.publisher.sandbox, "configuration": lambda: configuration(orders.faults)}
                conditions = unknown | known
                runner = admin_runner(settings, Away(), lambda: (nameservers, 0), conditions)
                await listen(runner, [sock.dup() for sock in admin], None, stack)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(OPEN_AGAIN):
                    await stop.wait()
    return None


async def report_database(settings: Settings, store: Store) -> Origin:
    """Log what an administrator should know about the database, and return its origin."""
    for warning in await store.warnings():
        _log.warning("the database is not as safe as it should be", reason=warning)
    for zone in await store.unserved(settings.serving, now=now()):
        _log.warning(
            "a zone of the database is not in the configuration: requests with its tokens are refused",
            zone=str(zone.apex),
            hostnames=zone.hostnames,
            tokens=zone.tokens,
        )
    origin = await store.origin()
    if (condition := origin.condition(now())) != "ok":
        _log.warning("the database is new", reason=condition, database=settings.database.shown_url)
    return origin
