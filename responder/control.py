"""
The control process: builds its parts, starts them in order, stops them in reverse. No logic of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from responder import logs, metrics
from responder.api import Away, Health, Probed, Runner, build_admin, build_api, build_runner
from responder.api.tls import ServerTls
from responder.certificate.files import Files
from responder.challenges import Challenges
from responder.config import ApiSettings, DnsSettings, Endpoint, Settings
from responder.dns.cookies import DAY, daily_keys
from responder.errors import CannotStart, ResponderError, StoreUnavailable
from responder.feed import Publisher, fail
from responder.files.keyfile import NEW_KEY_FILE, read_key
from responder.limits import Limits
from responder.logs import Outage
from responder.nodes import Membership, Myself, Nodes
from responder.nodes.membership import RENEW_INTERVAL
from responder.nodes.staleness import Staleness, asking
from responder.process.child import Lifeline, run
from responder.process.lifeline import Word
from responder.process.listeners import is_here
from responder.process.scheduling import take_short_turns
from responder.store import SchemaState, Sealer, Store
from responder.store.schema import REVISION
from responder.tls.keypair import KeyPair
from responder.tokens.network import is_within
from responder.update import Keyring, Signatures, Updates

if TYPE_CHECKING:
    from responder.certificate.own import OwnCertificateKeeper

SWITCH_INTERVAL = 0.0005
"""Seconds after which a busy thread lets another one go on. A transaction needs that a dozen times; at Python's own
5 ms, presents would wait a tenth of a second when many come at once."""

TURN = 0.0005
"""Seconds of a turn on the processor: longer than a nameserver's, which so goes first, and shorter than an ordinary
one."""

KEY_LOOK = 600.0
"""Seconds after which the keys are handed out anew at the latest."""

OPEN_AGAIN = 1.0
"""Seconds between attempts to open a database that was there before."""

LONE_LEASE, LONE_RENEWAL = 90, 30.0
"""Seconds, for the only node of an SQLite database: nobody waits for it, but `responder node list` shows it."""

DRAIN = 2.0
"""Seconds that requests under way get to finish when the process stops."""

_log = structlog.get_logger("control")


async def main(orders: dict[str, Any], lifeline: Lifeline, stop: asyncio.Event) -> None:
    """The process: *orders* hold the settings and the numbers of its inherited sockets."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    take_short_turns(TURN)
    settings = Settings.model_validate(orders["settings"])
    logs.configure(level=settings.log.level, format=settings.log.format)
    sockets = {
        purpose: [socket.socket(fileno=number) for number in numbers] for purpose, numbers in orders["sockets"].items()
    }
    try:
        async with AsyncExitStack() as stack:
            for sock in chain(*sockets.values()):
                stack.callback(sock.close)
            feed = await _attend_nameservers(settings, lifeline, orders["nameservers"], stack)
            store = await _open_in_time(settings, orders, sockets["admin"], feed, lifeline, stop)
            if store is None:
                return
            feed.stores.append(store)
            writer = await _start(settings, store, feed, sockets, orders, stack)
            lifeline.ready()
            metrics.RESTARTS.labels("control").inc(orders["restarts"])
            _log.info(
                "serving",
                zones=[str(zone.name) for zone in settings.zones],
                dns=[str(e) for e in settings.dns.listen],
                api=[str(e) for e in settings.api.listen],
            )
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait([writer, stopping], return_when=asyncio.FIRST_COMPLETED)
            if writer.done():
                writer.result()  # it never ends by itself: raise what it died of, and be started afresh
    except ResponderError as error:
        _log.critical("the control process cannot go on", reason=str(error))
        raise SystemExit(1) from None


@dataclass(frozen=True, slots=True)
class _Feed:
    """
    What nameservers are given, by *publisher* and by *signatures*, None if there are no DNS updates. *stores* has the
    store that they are given it from, once that is open.
    """

    publisher: Publisher
    signatures: Signatures | None
    stores: list[Store] = field(default_factory=list)

    def decline(self) -> None:
        """From now on, answer updates with a signed SERVFAIL: there is no store that could take them."""
        if self.signatures is not None:
            self.publisher.take_packets_with(self.signatures.decline)

    async def stop(self) -> None:
        await self.publisher.stop()
        for store in self.stores:
            await store.close()


async def _attend_nameservers(
    settings: Settings, lifeline: Lifeline, outlived: Sequence[int], stack: AsyncExitStack
) -> _Feed:
    """
    Take care of nameservers, before there is a store. It is closed last when all is stopped, for it may be being read.
    """
    publisher = Publisher(
        settings.statics,
        nameservers=settings.dns.processes,
        outlived=outlived,
        kill=lifeline.ask_to_kill,
        lost=metrics.RESTARTS.labels("nameserver").inc,
        counted=lambda counted: metrics.count(*counted),
    )
    feed = _Feed(publisher, _signatures(settings))
    if feed.signatures is None:
        publisher.take_packets_with(fail)
    stack.push_async_callback(feed.stop)
    await stack.enter_async_context(_running(_attend(lifeline, publisher)))
    return feed


async def _open(settings: Settings) -> Store:
    database = settings.database
    return await Store.open(database.url, auto_upgrade=database.auto_upgrade, sealer=_sealer(settings))


async def _open_in_time(
    settings: Settings,
    orders: dict[str, Any],
    admin: list[socket.socket],
    feed: _Feed,
    lifeline: Lifeline,
    stop: asyncio.Event,
) -> Store | None:
    """
    The store, once it answers; None if it is time to stop before that. At the first start, a file must open at once.

    The *admin* listeners report the wait: what probes must not end the service for it. When this process is started
    again, nameservers go on with what was in the store, and one that is gone must not be made anew: they would forget
    all of that.
    """
    again, nameservers = orders["restarts"] > 0, len(orders["nameservers"])
    if not again and settings.database.path is not None:
        return await _open(settings)
    meanwhile = "DNS goes on with what is in memory" if again else "DNS is not answered before"
    outage = Outage(_log, f"waiting for the database: {meanwhile}", "the database answers again")
    answering = False
    async with AsyncExitStack() as stack:
        while not stop.is_set():
            try:
                store = await (_reopen(settings) if again else _open(settings))
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
                    "sandbox": feed.publisher.sandbox,
                    "configuration": lambda: _configuration(orders["faults"]),
                    "certificate": Away.condition,
                }
                runner = _admin(settings, Away(), lambda: (nameservers, 0), conditions)
                await _listen(runner, [sock.dup() for sock in admin], None, stack)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), OPEN_AGAIN)
    return None


async def _reopen(settings: Settings) -> Store:
    if await Store.check(settings.database.url) is SchemaState.ABSENT:
        raise StoreUnavailable("it is not there any more: put it back, or restart the service for a new one")
    return await _open(settings)


async def _start(
    settings: Settings,
    store: Store,
    feed: _Feed,
    sockets: dict[str, list[socket.socket]],
    orders: dict[str, Any],
    stack: AsyncExitStack,
) -> asyncio.Task[None]:
    """Start all the rest; what stops it again is pushed on *stack*. Returns the task of the one writer."""
    for warning in await store.warnings():
        _log.warning("the database is not as safe as it should be", reason=warning)
    for zone in await store.unserved(settings.serving, now=_now()):
        _log.warning(
            "a zone of the database is not in the configuration: what its tokens ask for is refused",
            zone=str(zone.apex),
            hostnames=zone.hostnames,
            tokens=zone.tokens,
        )
    origin = await store.origin()
    if (condition := origin.condition(_now())) != "ok":
        _log.warning("the database is new", reason=condition, database=settings.database.shown_url)
    if settings.database.path is not None:  # there is no other node, which could be too old to decrypt them
        with contextlib.suppress(StoreUnavailable):
            await store.certificates.seal()
    statics = settings.statics
    await store.register_zones(settings.digests, now=_now())
    for change in await store.begin_statics(settings.digests, now=_now()):
        _log.info(
            "new serial, as the static records may differ from before", zone=str(change.apex), serial=change.serial
        )
    published = await store.serials()
    publisher = feed.publisher
    publisher.read_from(store.snapshot)
    if settings.dns.cookies:
        await stack.enter_async_context(_running(_renew_cookie_keys(publisher, await store.key("dns cookies"))))
    nodes = Nodes(_membership(settings, store, orders["instance"]), settings.propagation.deadline)
    with contextlib.suppress(StoreUnavailable):  # such as a full disk: DNS starts nevertheless, and it is tried again
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
    stack.push_async_callback(_leave, nodes.membership, publisher)
    await stack.enter_async_context(_running(nodes.run(_listen_url(settings), challenges.look)))
    writer = await stack.enter_async_context(_running(challenges.run()))
    if not nodes.membership.is_alone:
        staleness = _staleness(settings, nodes.membership, challenges, publisher)
        await stack.enter_async_context(_running(staleness.run()))
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
        "sandbox": publisher.sandbox,
        "configuration": lambda: _configuration(orders["faults"]),
        "certificate": lambda: "ok" if tls is None else tls.refusal(now=_now()) or "ok",
    }
    await _listen(_admin(settings, store, publisher.lag, conditions), sockets["admin"], None, stack)
    return writer


async def _attend(lifeline: Lifeline, publisher: Publisher) -> None:
    """Have *publisher* know of each nameserver what the supervisor says: that it is there, answers, or is dead."""
    while True:
        message = await lifeline.hear()
        if message.word is Word.FEED:
            await publisher.admit(message.number, socket.socket(fileno=message.descriptor))
        elif message.word is Word.SERVE:
            publisher.answers(message.number)
        elif message.word is Word.DIED:
            publisher.bury(message.number)


def _membership(settings: Settings, store: Store, instance: str) -> Membership:
    """The lease of this node. With SQLite there is one node, which has nobody to report to often."""
    is_alone = settings.database.path is not None
    myself = Myself(
        name=settings.node.name,
        instance=instance,
        address=settings.node.address or settings.dns.listen[0].host,
        version=version("acme-responder"),
        schema_min=REVISION,
        schema_max=REVISION,
        statics=settings.digests,
        lease=timedelta(seconds=LONE_LEASE if is_alone else settings.node.lease),
    )
    return Membership(store, myself, interval=LONE_RENEWAL if is_alone else RENEW_INTERVAL, is_alone=is_alone)


def _staleness(settings: Settings, membership: Membership, challenges: Challenges, publisher: Publisher) -> Staleness:
    """What compares this node with the other nameservers of its zones, at the port that its own address has there."""
    ours = {endpoint.host: endpoint.port for endpoint in settings.dns.listen}
    servers = {
        zone.name: [str(address) for addresses in zone.nameservers.values() for address in addresses]
        for zone in settings.zones
    }
    named = [address for addresses in servers.values() for address in addresses if address in ours]
    return Staleness(
        membership=membership,
        published=lambda: challenges.published,
        catch_up=challenges.follow,
        servers={apex: [each for each in addresses if each not in ours] for apex, addresses in servers.items()},
        ask=asking(ours[named[0]] if named else settings.dns.listen[0].port),
        vouch=publisher.vouch,
    )


async def _leave(membership: Membership, publisher: Publisher) -> None:
    """Have no other node wait for this one: from now on its nameservers answer for no value."""
    if not membership.is_alone:
        publisher.vouch(0.0)
        await publisher.check()
    await membership.leave()


def _listen_url(settings: Settings) -> str | None:
    """As `Store.hints` takes it."""
    return {"": None, "off": ""}.get(settings.database.listen_url, settings.database.listen_url)


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
    """Where this machine reaches what listens, without addresses that may come later and are not here now."""
    return [each.reachable for each in section.listen if not section.free_bind or is_here(each.host)]


def _configuration(faults: Sequence[str]) -> str:
    """Whether the service runs with its configuration, for the readiness check."""
    return (
        f"not in use, but the one of an earlier start, because it has faults: {'; '.join(faults)}" if faults else "ok"
    )


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
    """What checks the signatures of DNS updates, if they are on."""
    path = settings.tsig_key_file
    if not settings.dns.update.enabled or path is None:
        return None
    try:
        master = _master(path)
    except CannotStart as fault:
        # It was there when the service started. All but updates, which get SERVFAIL, is better than nothing.
        _log.error("no DNS updates until the next start", reason=str(fault))
        return None
    return Signatures(Keyring(master, settings.dns.update.algorithms), clock=_now)


def _master(path: Path) -> bytes:
    """What the key file at *path* holds. Raises `CannotStart`."""
    return read_key(path, on_new=lambda: _log.warning("the key file is new", path=str(path), reason=NEW_KEY_FILE))


def _sealer(settings: Settings) -> Sealer | None:
    """What encrypts the private keys in the database, if there is a key file, and keys of our own."""
    path = settings.tsig_key_file
    if settings.api.tls != "acme" or path is None:
        return None
    try:
        return Sealer(_master(path))
    except CannotStart as fault:
        _log.error("private keys in the database are neither encrypted nor decrypted", reason=str(fault))
        return None


async def _start_tls(
    settings: Settings, store: Store, challenges: Challenges, stack: AsyncExitStack
) -> ServerTls | None:
    """What the API needs to speak TLS, and who keeps its certificate; the API answers whether there is one or not."""
    if settings.api.tls == "off":
        return None
    tls = ServerTls(KeyPair.self_signed(settings.api.hostname, now=_now()), settings.api.hostname)
    keeper: Files | OwnCertificateKeeper
    if settings.api.tls == "files":
        keeper = Files(settings.api, tls.use)
    else:
        from responder.certificate.own import OwnCertificateKeeper

        keeper = OwnCertificateKeeper(store, challenges, settings, tls.use, clock=_now)
    await keeper.load()
    await stack.enter_async_context(_running(keeper.run()))
    await stack.enter_async_context(_running(tls.watch(_now)))
    return tls


@asynccontextmanager
async def _running(work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """*work* as a task, for as long as somebody may still need it."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _renew_cookie_keys(publisher: Publisher, master: bytes) -> None:
    """Hand out the keys of the day, every day anew."""
    while True:
        now = time.time()
        publisher.rekey(daily_keys(master, now))
        await asyncio.sleep(min(DAY - now % DAY + 1, KEY_LOOK))  # a clock that is set does not wake a sleeper


def _now() -> datetime:
    return datetime.now(UTC)


if __name__ == "__main__":
    run(main)
