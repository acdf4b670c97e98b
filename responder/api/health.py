"""The admin listener: whether the process lives, whether the whole service is ready to do its work, and its metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import nan
from typing import Any, Protocol

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.rcode
from aiohttp import ClientError, ClientSession, web

from responder import metrics
from responder.api.problems import KIND, ROUTES_HINT, json_response, respond_with_problems
from responder.errors import InvalidRequest, ResponderError, StoreUnavailable, Unavailable
from responder.names import Name
from responder.store import Statistics

PROBE_DEADLINE = 2.0
"""Seconds the readiness check gives the nameserver and the store."""

STATISTICS_DEADLINE = 5.0
"""Seconds the metrics give the store: Prometheus waits for ten."""


class Health(Protocol):
    """What the admin listener asks of the store."""

    async def ping(self) -> None:
        """Raises `StoreUnavailable`."""

    async def statistics(self, *, now: datetime) -> Statistics:
        """Raises `StoreUnavailable`."""


class Away:
    """In the place of a store that does not answer yet."""

    REASON = "the service is waiting for its database"

    async def ping(self) -> None:
        raise StoreUnavailable(self.REASON)

    async def statistics(self, *, now: datetime) -> Statistics:
        raise StoreUnavailable(self.REASON)

    @staticmethod
    def condition() -> str:
        """Of everything that is known only with a database."""
        return f"failed: {Away.REASON}"


@dataclass(frozen=True, slots=True)
class Places:
    """Where this machine itself reaches what the service serves now: addresses of nameservers, URLs of the API."""

    nameservers: Callable[[], Sequence[tuple[str, int]]]
    api: Callable[[], Sequence[str]]


def build_admin(
    store: Health,
    apex: Name,
    places: Places,
    *,
    lag: Callable[[], tuple[int, int]],
    conditions: Mapping[str, Callable[[], str]],
) -> web.Application:
    """
    The application on the admin listener.

    The readiness check asks the nameservers for *apex* as a resolver would, and the API as its clients do. *lag* is how
    many nameserver processes answer, and how far the slowest is behind. *conditions* are "ok", perhaps with details
    behind a colon, or what is wrong: the check reports them, and the API, and fails for those that the request includes
    by name.
    """

    async def livez(_: web.Request) -> web.Response:
        return json_response({"alive": True})

    probes: dict[str, Callable[[], Awaitable[str]]] = {
        "store": lambda: _probe(store.ping()),
        "dns_udp": lambda: _probe_all(_ask(dns.asyncquery.udp, apex, *place) for place in places.nameservers()),
        "dns_tcp": lambda: _probe_all(_ask(dns.asyncquery.tcp, apex, *place) for place in places.nameservers()),
    }

    async def reported() -> dict[str, str]:
        api = await _probe_all(_ask_api(url) for url in places.api())
        return {name: condition() for name, condition in conditions.items()} | {"api": api}

    async def readyz(request: web.Request) -> web.Response:
        # A load balancer that asks for the database's health, too, would end DNS when only the database is gone. For
        # the same reason, what DNS does not need at all counts only if somebody asks for it.
        excluded, included = _named(request, exclude=probes, include=(*conditions, "api"))
        asked = [name for name in probes if name not in excluded]
        probing = asyncio.gather(*(probes[name]() for name in asked))
        shown, outcomes = await asyncio.gather(reported(), probing)
        results = dict(zip(asked, outcomes, strict=True))
        counted = [*results.values(), *(shown[name] for name in included)]
        response = json_response(results | shown, status=200 if all(map(is_ok, counted)) else 503)
        if response.status == 503:
            response[KIND] = "not-ready"
        return response

    async def measured(_: web.Request) -> web.Response:
        await _measure(store)
        answering, behind = lag()
        metrics.NAMESERVERS.set(answering)
        metrics.LAG.set(behind)
        for name, condition in (await reported()).items():
            metrics.CONDITION.labels(name).set(is_ok(condition))
        return web.Response(body=metrics.expose(), headers={"Content-Type": metrics.CONTENT_TYPE})

    app = web.Application(middlewares=[respond_with_problems])
    app[ROUTES_HINT] = "use /livez, /readyz or /metrics"
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", measured)
    return app


def is_ok(result: str) -> bool:
    """Whether the result of a check, which may have details behind a colon, is that all is well."""
    return result.partition(":")[0] == "ok"


def _named(request: web.Request, **known: Collection[str]) -> list[set[str]]:
    """The checks that a request names, for each parameter of those that are *known*. Raises `InvalidRequest`."""
    named = {parameter: {*request.query.getall(parameter, [])} for parameter in known}
    if faults := [
        f"{parameter}: there is no check {name!r}, but {', '.join(known[parameter])}"
        for parameter, names in named.items()
        for name in sorted(names - {*known[parameter]})
    ]:
        raise InvalidRequest(faults)
    return [*named.values()]


async def _measure(store: Health) -> None:
    """What only the database knows. While it does not answer that is no number, and all the rest is told."""
    now = datetime.now(UTC)
    try:
        async with asyncio.timeout(STATISTICS_DEADLINE):
            statistics = await store.statistics(now=now)
    except (Unavailable, TimeoutError):
        metrics.DATABASE.set(0)
        metrics.VALUES.set(nan)
        metrics.OLDEST.set(nan)
        metrics.TOKENS.clear()
        return
    metrics.DATABASE.set(1)
    metrics.VALUES.set(statistics.values)
    metrics.OLDEST.set((now - statistics.oldest).total_seconds() if statistics.oldest else 0)
    for expires, count in statistics.tokens.items():
        metrics.TOKENS.labels(expires).set(count)


async def _probe_all(checks: Iterable[Awaitable[None]]) -> str:
    """How it went at every address, or at the first where it went wrong."""
    results = await asyncio.gather(*map(_probe, checks))
    return next((result for result in results if result != "ok"), "ok")


async def _probe(check: Awaitable[None]) -> str:
    """How a check went, in words that give nothing away."""
    try:
        async with asyncio.timeout(PROBE_DEADLINE):
            await check
    except (ResponderError, OSError, EOFError, TimeoutError, dns.exception.DNSException, ClientError) as error:
        return f"failed: {error}" if isinstance(error, ResponderError) else f"failed: {type(error).__name__}"
    return "ok"


async def _ask(query: Any, apex: Name, host: str, port: int) -> None:
    reply = await query(dns.message.make_query(apex.fqdn, "SOA"), host, port=port, timeout=PROBE_DEADLINE)
    if reply.rcode() != dns.rcode.NOERROR or not reply.flags & dns.flags.AA:
        raise Unavailable("the nameserver does not answer for the zone")


async def _ask_api(url: str) -> None:
    async with ClientSession() as session, session.get(f"{url}/health", ssl=False) as response:
        if response.status != 200:
            raise Unavailable(f"the API answers with status {response.status}")
