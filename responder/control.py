"""
The control process: builds its parts, starts them in order, and stops them in reverse order.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any

import structlog

from responder import logs, metrics
from responder.api import Away, Health, Probed, Runner, build_admin, build_api, build_runner
from responder.api.tls import ServerTls
from responder.certificate.files import Files
from responder.challenges import Challenges
from responder.config import ApiSettings, DnsSettings, Endpoint, Settings, ZoneSettings
from responder.errors import CannotExamine, CannotStart, ResponderError, StoreUnavailable
from responder.feed import Publisher, fail
from responder.feed.cookiekeys import renew_cookie_keys
from responder.files.keyfile import NEW_KEY_FILE, read_key
from responder.limits import Limits
from responder.logs import Outage
from responder.nodes import Nodes
from responder.nodes.wiring import build_nodes, build_staleness, listen_url
from responder.process.child import Lifeline, run
from responder.process.lifeline import Word
from responder.process.listeners import is_here
from responder.process.scheduling import take_short_turns
from responder.store import Origin, SchemaState, Sealer, Store
from responder.tls.keypair import KeyPair
from responder.tokens.network import is_within
from responder.update import Keyring, Signatures, Updates

if TYPE_CHECKING:
    from responder.certificate.own import OwnCertificateKeeper

SWITCH_INTERVAL = 0.0005
"""
Seconds after which a busy thread lets another one run. A transaction waits for that a dozen times. With 5 ms, Python's
default, presents would wait for a tenth of a second when many of them come at once.
"""

TURN = 0.0005
"""Seconds of a turn on the processor: nameservers have a shorter one, so that they run first; the default is longer."""


OPEN_AGAIN = 1.0
"""Seconds between attempts to open the database."""

DRAIN = 2.0
"""Seconds that open requests have to finish when the process stops."""

GRACE = 1.0
"""Seconds in which clients that keep their connections learn that another process goes on, with their next answers."""

_log = structlog.get_logger("control")


async def main(orders: dict[str, Any], lifeline: Lifeline, stop: asyncio.Event) -> None:
    """Run the process. *orders* has the settings and the numbers of its inherited sockets."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    take_short_turns(TURN)
    settings = Settings.model_validate(orders["settings"])
    logs.configure(level=settings.log.level, format=settings.log.format)
    sockets = {
        purpose: [socket.socket(fileno=number) for number in numbers] for purpose, numbers in orders["sockets"].items()
    }
    turn = _Turn(stop)
    try:
        async with AsyncExitStack() as stack:
            for sock in chain(*sockets.values()):
                stack.callback(sock.close)
            feed = await _attend_nameservers(settings, lifeline, orders, turn, stack)
            if orders["waits"]:
                await _try(settings)
                lifeline.prepared()
                await _first_of(turn.has_come, stop)
            store = await _open_in_time(settings, orders, sockets["admin"], feed, lifeline, stop)
            if store is None:
                return
            feed.stores.append(store)
            essential, api = await _start(settings, store, feed, sockets, orders, turn, stack)
            lifeline.ready()
            metrics.RESTARTS.labels("control").inc(orders["restarts"])
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


@dataclass(slots=True)
class _Turn:
    """
    When this process is the one that works: there may be one before it, and one after it, in a reload. *stop* ends it.
    """

    stop: asyncio.Event
    has_come: asyncio.Event = field(default_factory=asyncio.Event)
    is_over: bool = False

    def end(self) -> None:
        """Let another process go on, for the same instance of the service."""
        self.is_over = True
        self.stop.set()


async def _first_of(*events: asyncio.Event) -> None:
    """Return when one of *events* is set."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()


@dataclass(frozen=True, slots=True)
class _Feed:
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


async def _attend_nameservers(
    settings: Settings, lifeline: Lifeline, orders: dict[str, Any], turn: _Turn, stack: AsyncExitStack
) -> _Feed:
    """Serve the nameservers, before the store is open. The store is closed last, because a snapshot may be read."""
    publisher = Publisher(
        settings.statics,
        nameservers=settings.dns.processes,
        outlived=orders["nameservers"],
        elders=orders["elders"],
        kill=lifeline.ask_to_kill,
        lost=metrics.RESTARTS.labels("nameserver").inc,
        counted=lambda counted: metrics.count(*counted),
    )
    feed = _Feed(publisher, _signatures(settings))
    if feed.signatures is None:
        publisher.take_packets_with(fail)
    stack.push_async_callback(feed.stop)
    await stack.enter_async_context(_running(_attend(lifeline, publisher, turn)))
    return feed


async def _open(settings: Settings, *, must_exist: bool) -> Store:
    database = settings.database
    if must_exist and await Store.check(database.url) is SchemaState.ABSENT:
        raise StoreUnavailable("the database is missing: put it back, or restart the service to create a new one")
    return await Store.open(database.url, auto_upgrade=database.auto_upgrade, sealer=_sealer(settings))


async def _try(settings: Settings) -> None:
    """
    Open the database once, so that all that this takes is imported: then less has to be done when it is our turn. What
    fails now is tried again then.
    """
    with contextlib.suppress(ResponderError):
        await (await _open(settings, must_exist=True)).close()


async def _open_in_time(
    settings: Settings,
    orders: dict[str, Any],
    admin: list[socket.socket],
    feed: _Feed,
    lifeline: Lifeline,
    stop: asyncio.Event,
) -> Store | None:
    """
    Return the store once it can be opened; None if *stop* is set before. At the first start, an SQLite file must open
    at once.

    The *admin* listeners answer meanwhile, so that probes do not end the service while it waits. When this process is
    started again, a missing database is not created: the nameservers would lose the values that they still serve.
    """
    again, nameservers = orders["again"] or orders["restarts"] > 0, len(orders["nameservers"])
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
                conditions = {
                    "writing": Away.condition,
                    "database": Away.condition,
                    "nodes": Away.condition,
                    "clock": Away.condition,
                    "sandbox": feed.publisher.sandbox,
                    "configuration": lambda: _configuration(orders["faults"]),
                    "certificate": Away.condition,
                }
                runner = _admin(settings, Away(), lambda: (nameservers, 0), conditions)
                await _listen(runner, [sock.dup() for sock in admin], None, stack)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), OPEN_AGAIN)
    return None


async def _start(
    settings: Settings,
    store: Store,
    feed: _Feed,
    sockets: dict[str, list[socket.socket]],
    orders: dict[str, Any],
    turn: _Turn,
    stack: AsyncExitStack,
) -> tuple[list[asyncio.Task[None]], Runner]:
    """
    Start all other parts, and push on *stack* what stops them.

    Returns the API, and the essential tasks: the writer, the one that renews the lease, and the one that detects a
    stale node.
    """
    origin = await _report_database(settings, store)
    if settings.database.path is not None:  # the only node; other nodes could be too old to decrypt the keys
        with contextlib.suppress(StoreUnavailable):
            await store.certificates.seal()
    statics = settings.statics
    await store.register_zones(settings.digests, now=_now())
    for change in await store.begin_statics(settings.digests, now=_now()):
        _log.info(
            "new serial, because the static records may have changed", zone=str(change.apex), serial=change.serial
        )
    published = await store.serials()
    publisher = feed.publisher
    publisher.read_from(store.snapshot)
    if settings.dns.cookies:
        await stack.enter_async_context(_running(renew_cookie_keys(publisher, await store.key("dns cookies"))))
    nodes = build_nodes(settings, store, orders["instance"])
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
        clock=_now,
    )
    limits = Limits(settings.api)
    stack.push_async_callback(_leave, nodes, publisher, turn)
    essential = [await stack.enter_async_context(_running(nodes.run(listen_url(settings), challenges.look)))]
    essential.append(await stack.enter_async_context(_running(challenges.run())))
    if not nodes.membership.is_alone:
        staleness = build_staleness(
            settings,
            nodes.membership,
            published=lambda: challenges.published,
            catch_up=challenges.follow,
            vouch=publisher.vouch,
        )
        essential.append(await stack.enter_async_context(_running(staleness.run())))
    await stack.enter_async_context(_running(store.keep_pruned(_now)))
    if feed.signatures is not None:
        apexes = [static.apex for static in statics]
        updates = Updates(store, challenges, feed.signatures, limits, apexes=apexes, clock=_now)
        publisher.take_packets_with(updates.receive)
        stack.push_async_callback(updates.stop)
    api = build_api(
        store,
        challenges,
        limits,
        settings.api,
        apex=statics[0].apex,
        serving=settings.serving,
        max_lifetime=timedelta(seconds=settings.values.max_lifetime),
    )
    tls = await _start_tls(settings, store, challenges, stack)
    runner, context = build_runner(api, name="api", drain=DRAIN), tls.context if tls else None
    await _listen(runner, sockets["api"], context, stack, is_proxy=_recognition(settings.api))
    conditions = {
        "writing": lambda: challenges.condition,
        "database": lambda: origin.condition(_now()),
        "nodes": lambda: nodes.membership.condition,
        "clock": lambda: nodes.membership.clock_condition,
        "sandbox": publisher.sandbox,
        "configuration": lambda: _configuration(orders["faults"]),
        "certificate": lambda: "ok" if tls is None else tls.refusal(now=_now()) or "ok",
    }
    await _listen(_admin(settings, store, publisher.lag, conditions), sockets["admin"], None, stack)
    return essential, runner


async def _attend(lifeline: Lifeline, publisher: Publisher, turn: _Turn) -> None:
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


async def _report_database(settings: Settings, store: Store) -> Origin:
    """Log what an administrator should know about the database, and return its origin."""
    for warning in await store.warnings():
        _log.warning("the database is not as safe as it should be", reason=warning)
    for zone in await store.unserved(settings.serving, now=_now()):
        _log.warning(
            "a zone of the database is not in the configuration: requests with its tokens are refused",
            zone=str(zone.apex),
            hostnames=zone.hostnames,
            tokens=zone.tokens,
        )
    origin = await store.origin()
    if (condition := origin.condition(_now())) != "ok":
        _log.warning("the database is new", reason=condition, database=settings.database.shown_url)
    return origin


async def _leave(nodes: Nodes, publisher: Publisher, turn: _Turn) -> None:
    """End the lease, but not in a reload: the nameservers continue, and the next process renews the lease."""
    if not turn.is_over:
        await nodes.leave(publisher)


def _admin(
    settings: Settings, store: Health, lag: Callable[[], tuple[int, int]], conditions: Mapping[str, Callable[[], str]]
) -> Runner:
    scheme = "http" if settings.api.tls == "off" else "https"
    places = Probed(
        lambda: [(place.host, place.port) for place in _here(settings.dns)],
        lambda: [f"{scheme}://{place}" for place in _here(settings.api)],
        _recognition(settings.api) or (lambda _: False),
    )
    admin = build_admin(store, settings.statics[0].apex, places, lag=lag, conditions=conditions)
    return build_runner(admin, name="admin", drain=DRAIN)


def _here(section: DnsSettings | ApiSettings) -> list[Endpoint]:
    """Return the endpoints of *section* as this machine reaches them, without addresses that it does not have yet."""
    return [each.reachable for each in section.listen if not section.free_bind or is_here(each.host)]


def _configuration(faults: Sequence[str]) -> str:
    """Return the condition of the configuration for the readiness check."""
    return f"it has faults, so that of an earlier start is in use: {'; '.join(faults)}" if faults else "ok"


async def _listen(
    runner: Runner,
    sockets: list[socket.socket],
    tls: ssl.SSLContext | None,
    stack: AsyncExitStack,
    *,
    is_proxy: Callable[[str], bool] | None = None,
) -> None:
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    for sock in sockets:
        await runner.listen(sock, tls, is_proxy=is_proxy)


def _recognition(api: ApiSettings) -> Callable[[str], bool] | None:
    """What recognizes the proxies that speak the PROXY protocol; None if it is not spoken."""
    return (lambda address: is_within(address, api.trusted_proxies)) if api.proxy_protocol else None


def _signatures(settings: Settings) -> Signatures | None:
    """Return what checks the signatures of DNS updates; None without updates or without a key file."""
    # Without its key file, the service goes on: only DNS updates fail, with SERVFAIL.
    missing = "DNS updates are disabled until the next start"
    master = _master(settings, missing) if settings.dns.update.enabled else None
    return None if master is None else Signatures(Keyring(master, settings.dns.update.algorithms), clock=_now)


def _sealer(settings: Settings) -> Sealer | None:
    """Return what encrypts our private keys in the database; None without such keys or without a key file."""
    missing = "private keys in the database can be neither encrypted nor decrypted"
    master = _master(settings, missing) if settings.api.tls == "acme" else None
    return None if master is None else Sealer(master)


def _master(settings: Settings, missing: str) -> bytes | None:
    """Return the content of the key file; None if none is configured, or if it cannot be read, which logs *missing*."""
    if (path := settings.tsig_key_file) is None:
        return None
    try:
        return read_key(path, on_new=lambda: _log.warning("the key file is new", path=str(path), reason=NEW_KEY_FILE))
    except CannotStart as fault:
        _log.error(missing, reason=str(fault))
        return None


async def _start_tls(
    settings: Settings, store: Store, challenges: Challenges, stack: AsyncExitStack
) -> ServerTls | None:
    """Start TLS of the API and what renews its certificate; None without TLS. There may be no issued one yet."""
    if settings.api.tls == "off":
        return None
    tls = ServerTls(KeyPair.self_signed(settings.api.hostname, now=_now()), settings.api.hostname)
    keeper: Files | OwnCertificateKeeper
    if settings.api.tls == "files":
        keeper = Files(settings.api, tls.use)
    else:
        from responder.certificate.own import OwnCertificateKeeper

        look = _look_at_delegation(settings.api.acme.resolver)
        keeper = OwnCertificateKeeper(store, challenges, settings, tls.use, clock=_now, undelegated=look)
    await keeper.load()
    await stack.enter_async_context(_running(keeper.run()))
    await stack.enter_async_context(_running(tls.watch(_now)))
    return tls


def _look_at_delegation(resolver: str) -> Callable[[ZoneSettings], Awaitable[str]] | None:
    """What reports why a zone is certainly not delegated, according to *resolver*; None if nothing may be asked."""
    if resolver == "none":
        return None

    async def look(zone: ZoneSettings) -> str:
        from responder.doctor import system_resolvers, undelegated

        try:
            return await undelegated([resolver] if resolver else system_resolvers(), zone)
        except CannotExamine:
            return ""

    return look


@asynccontextmanager
async def _running(work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """Run *work* as a task, and cancel it at the end of the context."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _now() -> datetime:
    return datetime.now(UTC)


if __name__ == "__main__":
    run(main)
