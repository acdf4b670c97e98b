"""
All parts of the control process that need the database: built, and started in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import timedelta

import structlog

from responder.api import Runner, build_api, build_runner
from responder.challenges import Challenges
from responder.config import Settings
from responder.control.certificate import start_tls
from responder.control.database import report_database
from responder.control.http import DRAIN, admin_runner, configuration, listen, recognition
from responder.control.nameservers import Feed
from responder.control.tasks import Turn, now, running
from responder.errors import StoreUnavailable
from responder.feed import Publisher
from responder.feed.cookiekeys import renew_cookie_keys
from responder.limits import Limits
from responder.names import Name
from responder.nodes import Nodes
from responder.nodes.wiring import build_nodes, build_staleness, listen_url
from responder.process.orders import ControlOrders
from responder.store import Store
from responder.update import Updates

_log = structlog.get_logger("control")


async def start(
    settings: Settings,
    store: Store,
    feed: Feed,
    sockets: dict[str, list[socket.socket]],
    orders: ControlOrders,
    turn: Turn,
    stack: AsyncExitStack,
) -> tuple[list[asyncio.Task[None]], Runner]:
    """
    Start all other parts, and push on *stack* what stops them.

    Returns the API, and the essential tasks: the writer, the one that renews the lease, and the one that detects a
    stale node.
    """
    origin = await report_database(settings, store)
    publisher = feed.publisher
    published = await _publish(settings, store, publisher, stack)
    nodes = build_nodes(settings, store, orders.instance)
    with contextlib.suppress(StoreUnavailable):  # such as a full disk: DNS starts all the same, and `run` tries again
        await nodes.membership.join()
    challenges = Challenges(
        store,
        publisher,
        nodes,
        require_all=settings.propagation.require == "live",
        serving=settings.serving,
        published=published,
        lifetime=timedelta(seconds=settings.values.lifetime),
        clock=now,
    )
    limits = Limits(settings.api)
    stack.push_async_callback(_leave, nodes, publisher, turn)
    essential = await _start_writing(settings, nodes, challenges, publisher, stack)
    await stack.enter_async_context(running(store.keep_pruned(now)))
    _take_updates(settings, store, challenges, feed, limits, stack)
    api = build_api(
        store,
        challenges,
        limits,
        settings.api,
        apex=settings.statics[0].apex,
        serving=settings.serving,
        max_lifetime=timedelta(seconds=settings.values.max_lifetime),
    )
    tls = await start_tls(settings, store, challenges, stack)
    runner, context = build_runner(api, name="api", drain=DRAIN), tls.context if tls else None
    await listen(runner, sockets["api"], context, stack, is_proxy=recognition(settings.api))
    conditions = {
        "writing": lambda: challenges.condition,
        "database": lambda: origin.condition(now()),
        "nodes": lambda: nodes.membership.condition,
        "clock": lambda: nodes.membership.clock_condition,
        "sandbox": publisher.sandbox,
        "configuration": lambda: configuration(orders.faults),
        "certificate": lambda: "ok" if tls is None else tls.refusal(now=now()) or "ok",
    }
    await listen(admin_runner(settings, store, publisher.lag, conditions), sockets["admin"], None, stack)
    return essential, runner


async def _publish(settings: Settings, store: Store, publisher: Publisher, stack: AsyncExitStack) -> Mapping[Name, int]:
    """Let the nameservers have the zones of the database. Returns the serials that they get, by apex."""
    if settings.database.path is not None:  # the only node; other nodes could be too old to decrypt the keys
        with contextlib.suppress(StoreUnavailable):
            await store.certificates.seal()
    await store.register_zones(settings.digests, now=now())
    for change in await store.begin_statics(settings.digests, now=now()):
        _log.info(
            "new serial, because the static records may have changed", zone=str(change.apex), serial=change.serial
        )
    published = await store.serials()
    publisher.read_from(store.snapshot)
    if settings.dns.cookies:
        await stack.enter_async_context(running(renew_cookie_keys(publisher, await store.key("dns cookies"))))
    return published


async def _start_writing(
    settings: Settings, nodes: Nodes, challenges: Challenges, publisher: Publisher, stack: AsyncExitStack
) -> list[asyncio.Task[None]]:
    """Start the tasks that the process cannot go on without: what follows other nodes, the writer, and staleness."""
    work = [nodes.run(listen_url(settings), challenges.look), challenges.run()]
    if not nodes.membership.is_alone:
        staleness = build_staleness(
            settings,
            nodes.membership,
            published=lambda: challenges.published,
            catch_up=challenges.follow,
            vouch=publisher.vouch,
        )
        work.append(staleness.run())
    return [await stack.enter_async_context(running(each)) for each in work]


def _take_updates(
    settings: Settings, store: Store, challenges: Challenges, feed: Feed, limits: Limits, stack: AsyncExitStack
) -> None:
    """Take DNS updates from the nameservers, if they are enabled and there is a key file."""
    if feed.signatures is None:
        return
    apexes = [static.apex for static in settings.statics]
    updates = Updates(store, challenges, feed.signatures, limits, apexes=apexes, clock=now)
    feed.publisher.take_packets_with(updates.receive)
    stack.push_async_callback(updates.stop)


async def _leave(nodes: Nodes, publisher: Publisher, turn: Turn) -> None:
    """End the lease, but not in a reload: the nameservers continue, and the next process renews the lease."""
    if not turn.is_over:
        await nodes.leave(publisher)
