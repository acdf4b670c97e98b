"""
What `responder serve` does in a reload, before the running service gives anything up: see whether this program, with
the configuration that is there now, could go on in its place.

It reports to the supervisor (`process.candidate`) and starts nothing.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import asdict, replace
from importlib import import_module
from itertools import chain
from pathlib import Path

from responder import logs
from responder.cli.starting import check_pair, keep, plan_of, prepare_key_file, warn
from responder.config import Kept, Settings, Sources
from responder.errors import InvalidConfiguration, ResponderError, StoreUnavailable, faults_of
from responder.process.candidate import Offer, accept, receive_offer, refuse
from responder.process.listeners import Sockets, close_all
from responder.process.plan import Plan, program

PROGRAMS = ("responder.control.__main__", "responder.nameserver.__main__", "responder.process.supervisor")
"""What will run, and so has to be there, with all that it imports."""


def stand(path: Path | None, descriptor: int) -> int:
    """Answer through *descriptor* whether the service can go on from here; the exit status has the same answer."""
    sock, offer = receive_offer(descriptor)
    with sock:
        if offer is None:
            refuse(sock, ["this version cannot take over from the one that runs: restart the service"])
            return 1
        os.dup2(offer.log, 2)
        os.close(offer.log)
        logs.configure(level="info", format="auto")  # until the configuration is read
        try:
            sources = Sources.read(path, os.environ)
            plan, sockets = _prepare(sources.load(), offer)
        except ResponderError as fault:
            refuse(sock, faults_of(fault))
            return 1
        except Exception as fault:  # noqa: BLE001  # the edge of a program that may lack a part
            refuse(sock, [f"the new program is incomplete: {type(fault).__name__}: {fault}"])
            return 1
        keep(Kept.of(os.environ), sources)
        accept(sock, program(), asdict(plan), [*chain(*sockets.values())])
        close_all(sockets)
    return 0


def _prepare(settings: Settings, offer: Offer) -> tuple[Plan, Sockets]:
    """What to run, and all of its sockets. Raises what keeps it from running."""
    logs.configure(level=settings.log.level, format=settings.log.format)
    for module in PROGRAMS:
        import_module(module)
    check_pair(settings.api)
    asyncio.run(_try_database(settings.database.url))
    prepare_key_file(settings)
    plan = plan_of(settings)
    sockets, faults = plan.bind(offer.sockets)
    if faults:
        close_all(sockets)
        raise InvalidConfiguration(faults)
    warn(settings)
    return replace(plan, sockets={purpose: len(group) for purpose, group in sockets.items()}), sockets


async def _try_database(url: str) -> None:
    """
    See that the service can use it as it is, also for changes. Nothing is changed but the row that proves it, because
    the running service uses it, too. Raises `StoreUnavailable` or `StoreOutdated`.
    """
    from responder.store import SchemaState, Store

    if await Store.check(url) is SchemaState.ABSENT:
        raise StoreUnavailable("there is no database: put it back, or make a new one with responder db upgrade")
    store = await Store.open(url)
    try:
        await store.prove_writable()
    finally:
        await store.close()
