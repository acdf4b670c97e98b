"""The admin listener: whether the process is running, whether the whole service is ready, and its metrics."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from math import nan
from typing import Any, Protocol
from urllib.parse import urlsplit

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.rcode
from aiohttp import web

from responder import metrics
from responder.api.problems import KIND, ROUTES_HINT, json_response, respond_with_problems
from responder.connections import WITHOUT_CLIENT
from responder.errors import InvalidRequest, ResponderError, StoreUnavailable, Unavailable
from responder.foreign import system_reason
from responder.names import Name
from responder.store import Statistics

PROBE_DEADLINE = 2.0
"""Seconds that the readiness check waits for the nameserver and the store."""

_UNVERIFIED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_UNVERIFIED.check_hostname, _UNVERIFIED.verify_mode = False, ssl.CERT_NONE

STATISTICS_DEADLINE = 5.0
"""Seconds that the metrics wait for the store. Prometheus waits for ten seconds."""


class Health(Protocol):
    """What the admin listener needs from the store."""

    async def ping(self) -> None:
        """Check that the database responds. Raises `StoreUnavailable`."""

    async def statistics(self, *, now: datetime) -> Statistics:
        """The figures for the metrics. Raises `StoreUnavailable`."""


class Away:
    """Stands in for the store until the database is available."""

    REASON = "the service is waiting for its database"

    async def ping(self) -> None:
        raise StoreUnavailable(self.REASON)

    async def statistics(self, *, now: datetime) -> Statistics:
        raise StoreUnavailable(self.REASON)

    @staticmethod
    def condition() -> str:
        """The condition that is reported for everything that needs the database."""
        return f"failed: {Away.REASON}"


@dataclass(frozen=True, slots=True)
class Probed:
    """
    What the readiness check probes from this machine: current addresses of nameservers and URLs of the API.

    A connection to the API from a host that *is_proxy* begins with a header of the PROXY protocol.
    """

    nameservers: Callable[[], Sequence[tuple[str, int]]]
    api: Callable[[], Sequence[str]]
    is_proxy: Callable[[str], bool] = lambda _: False


def build_admin(
    store: Health,
    apex: Name,
    probed: Probed,
    *,
    lag: Callable[[], tuple[int, int]],
    conditions: Mapping[str, Callable[[], str]],
) -> web.Application:
    """
    The application on the admin listener.

    The readiness check queries the nameservers for *apex*, as a resolver does, and requests a route of the API. *lag*
    returns how many nameserver processes respond, and how far the slowest is behind. Each of *conditions* is "ok",
    perhaps followed by a colon and details, or states what is wrong. The check reports the conditions and the API, but
    fails only because of those that the request includes by name.
    """

    async def livez(_: web.Request) -> web.Response:
        return json_response({"alive": True})

    probes: dict[str, Callable[[], Awaitable[str]]] = {
        "store": lambda: _probe("the database", store.ping()),
        "dns_udp": lambda: _probe_all(
            "the nameserver", (_query(dns.asyncquery.udp, apex, *at) for at in probed.nameservers())
        ),
        "dns_tcp": lambda: _probe_all(
            "the nameserver", (_query(dns.asyncquery.tcp, apex, *at) for at in probed.nameservers())
        ),
    }

    async def reported() -> dict[str, str]:
        api = await _probe_all("the API", (_request_api(url, is_proxy=probed.is_proxy) for url in probed.api()))
        return {name: condition() for name, condition in conditions.items()} | {"api": api}

    async def readyz(request: web.Request) -> web.Response:
        # A load balancer must be able to ignore the database: otherwise it would take DNS out of service when only the
        # database is down. For the same reason, what DNS does not need counts only if the request includes it.
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
    """Whether the result of a check is "ok", with or without details after a colon."""
    return result.partition(":")[0] == "ok"


def _named(request: web.Request, **known: Collection[str]) -> list[set[str]]:
    """The checks that a request names in each parameter of *known*. Raises `InvalidRequest` for an unknown check."""
    named = {parameter: {*request.query.getall(parameter, [])} for parameter in known}
    if faults := [
        f"{parameter}: there is no check {name!r}: use one of {', '.join(known[parameter])}"
        for parameter, names in named.items()
        for name in sorted(names - {*known[parameter]})
    ]:
        raise InvalidRequest(faults)
    return [*named.values()]


async def _measure(store: Health) -> None:
    """Set the metrics that come from the database. While it does not respond, they are NaN or absent."""
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


async def _probe_all(whom: str, checks: Iterable[Awaitable[None]]) -> str:
    """ "ok" if all *checks* of *whom* succeed, otherwise the result of the first one that fails."""
    results = await asyncio.gather(*(_probe(whom, check) for check in checks))
    return next((result for result in results if result != "ok"), "ok")


async def _probe(whom: str, check: Awaitable[None]) -> str:
    """The result of a check of *whom*, as a text without confidential details."""
    try:
        async with asyncio.timeout(PROBE_DEADLINE):
            await check
    except ResponderError as error:
        return f"failed: {error}"
    except (OSError, EOFError, dns.exception.DNSException) as error:
        return f"failed: {whom} {_failure(error)}"
    return "ok"


def _failure(error: Exception) -> str:
    """What *error* means, to follow the subject of a sentence."""
    match error:
        case TimeoutError() | dns.exception.Timeout():
            return f"does not answer within {PROBE_DEADLINE:g} seconds"
        case ConnectionRefusedError():
            return "does not accept connections: see the log of the service"
        case EOFError() | ConnectionError():
            return "closes the connection without an answer"
        case OSError():
            return f"cannot be reached: {system_reason(error)}"
        case _:
            return "sends a reply that is malformed, or that does not match the query"


async def _query(query: Any, apex: Name, host: str, port: int) -> None:
    reply = await query(dns.message.make_query(apex.fqdn, "SOA"), host, port=port, timeout=PROBE_DEADLINE)
    if reply.rcode() != dns.rcode.NOERROR or not reply.flags & dns.flags.AA:
        raise Unavailable("the nameserver does not answer queries for the zone")


async def _request_api(url: str, *, is_proxy: Callable[[str], bool]) -> None:
    """Request `/health` without a check of the certificate, which is a condition of its own."""
    place = urlsplit(url)
    host = place.hostname or ""
    reader, writer = await asyncio.open_connection(host, place.port)
    try:
        if is_proxy(host):
            writer.write(WITHOUT_CLIENT)
        if place.scheme == "https":
            await writer.start_tls(_UNVERIFIED)
        writer.write(b"GET /health HTTP/1.0\r\n\r\n")
        words = (await reader.readline()).decode("latin-1").split()
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    if len(words) < 2:
        raise Unavailable("the API does not respond")
    if words[1] != "200":
        raise Unavailable(f"the API responds with status {words[1]}")
