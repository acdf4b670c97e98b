"""
The API: how many presents a second are made durable and served, and how long one alone takes.

The control process has a core to itself; the nameserver and the load share the other. A round presents every value
once, then makes sure by DNS that all of them are served, then cleans them up.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import dns.message

from responder.names import Name
from tests.bench import database
from tests.bench.database import Holder, random_value
from tests.bench.load import Outcome
from tests.bench.machine import COURTEOUS, URGENT, Cores, busy_seconds, cpu_seconds, percentile, pin, sync_times
from tests.bench.servers import CONFIGURATION
from tests.e2e.dns_client import values
from tests.e2e.service import ZONE, Responder

CONCURRENCY = 64
TOKENS = 64
HOSTNAMES = 25
"""Of each token."""
VALUES = 4
"""At each name, so that no name comes near the most that it may hold."""
ALONE = 500
"""Presents one after the other."""
_PATIENCE = 120.0
_LOAD = (sys.executable, "-m", "tests.bench.load")


class Service(Protocol):
    """Whoever is loaded: its ports."""

    @property
    def api(self) -> int: ...

    @property
    def dns(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Presented:
    """One value for one name, and who presents it."""

    holder: Holder
    name: Name
    value: str


@dataclass(frozen=True, slots=True)
class Burst:
    """What came of presenting many values, `CONCURRENCY` at a time."""

    rate: float
    """Values a second."""
    p50: float
    """Seconds that half of the requests took at most."""
    p99: float
    cpu: float
    """Seconds of CPU time for each value, of the processes that have the core to themselves."""
    foreign: float
    """Of that core's time, how much anybody else had: it should be next to nothing."""
    missing: int
    """Values that were acknowledged but not served."""


@dataclass(frozen=True, slots=True)
class Round:
    """What came of presenting all values, and how many a second were cleaned up then."""

    presents: Burst
    cleanups: float


@dataclass(frozen=True, slots=True)
class Alone:
    """One present after the other: seconds each took, and how many were not served when acknowledged."""

    p50: float
    p99: float
    stale: int


@dataclass(frozen=True, slots=True)
class Results:
    """Everything about the API, and the seconds that the disk takes to keep one page."""

    rounds: list[Round]
    alone: Alone
    sync: float


def measure(directory: Path, cores: Cores, *, rounds: int, say: Callable[[str], None]) -> Results:
    """Fill a database, start the service on it, and load it."""
    responder = Responder(directory, configuration=CONFIGURATION)
    holders = database.fill(directory / "responder.db", tokens=TOKENS, hostnames=HOSTNAMES, with_values=False)
    say(f"API: {rounds} rounds of {TOKENS * HOSTNAMES * VALUES} presents, then {ALONE} one by one")
    try:
        responder.start()
        control = responder.child("control").pid
        pin([control], cores.measured)
        load(responder, "/cleanup", values_of(holders, 1), CONCURRENCY)  # warms everything up, changes nothing
        measured = [_round(responder, control, values_of(holders, VALUES), cores) for _ in range(rounds)]
        alone = load(responder, "/present", values_of(holders, 1)[:ALONE], 1, check=True)
        return Results(
            measured,
            Alone(percentile(alone["times"], 0.5), percentile(alone["times"], 0.99), alone["stale"]),
            percentile(sync_times(directory), 0.5),
        )
    finally:
        responder.stop()


def _round(responder: Responder, control: int, presented: Sequence[Presented], cores: Cores) -> Round:
    presents = burst(responder, "/present", presented, [control], cores)
    cleaned = load(responder, "/cleanup", presented, CONCURRENCY)
    return Round(presents, len(presented) / cleaned["seconds"])


def burst(service: Service, route: str, presented: Sequence[Presented], pids: Sequence[int], cores: Cores) -> Burst:
    """Present it all by that route, while *pids* have their core to themselves, and ask for all of it by DNS then."""
    cpu, busy = cpu_seconds(pids), busy_seconds(cores.measured)
    outcome = load(service, route, presented, CONCURRENCY)
    cpu, busy = cpu_seconds(pids) - cpu, busy_seconds(cores.measured) - busy
    return Burst(
        rate=len(presented) / outcome["seconds"],
        p50=percentile(outcome["times"], 0.5),
        p99=percentile(outcome["times"], 0.99),
        cpu=cpu / len(presented),
        foreign=max(0.0, busy - cpu) / outcome["seconds"],
        missing=_missing(service.dns, presented),
    )


def values_of(holders: Sequence[Holder], each: int) -> list[Presented]:
    """So many new values for *each* name; neighbours have different tokens and names."""
    return [
        Presented(holder, name, random_value())
        for _ in range(each)
        for names in zip(*(holder.challenge_names for holder in holders), strict=True)
        for holder, name in zip(holders, names, strict=True)
    ]


def _missing(port: int, presented: Sequence[Presented]) -> int:
    expected = defaultdict(set)
    for one in presented:
        expected[one.name].add(one.value)
    return sum(len(wanted - values(port, str(name))) for name, wanted in expected.items())


def load(
    service: Service,
    route: str,
    presented: Sequence[Presented],
    concurrency: int,
    *,
    check: bool = False,
    urgent: bool = False,
) -> Outcome:
    """Have the other process send it all; anything but success ends the benchmark."""
    requests = [_request(route, one) for one in presented]
    orders = _orders(service, requests, concurrency, check=check)
    run = subprocess.run(
        [*(URGENT if urgent else ()), *_LOAD],
        input=orders,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=_PATIENCE,
    )
    return _outcome(run.stdout)


@contextmanager
def flooding(responder: Responder, presented: Sequence[Presented]) -> Iterator[None]:
    """Have all of it presented and cleaned up again and again, from when this begins until the block ends."""
    requests = [_request(route, one) for route in ("/present", "/cleanup") for one in presented]
    orders = _orders(responder, requests, CONCURRENCY, endless=True)
    with subprocess.Popen([*COURTEOUS, *_LOAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(orders)
        process.stdin.close()
        process.stdout.readline()
        try:
            yield
        finally:
            process.terminate()
            report = process.stdout.read()
    _outcome(report)


def _orders(
    service: Service, requests: Sequence[object], concurrency: int, *, check: bool = False, endless: bool = False
) -> str:
    orders = {
        "api": service.api,
        "dns": service.dns if check else None,
        "concurrency": concurrency,
        "requests": requests,
        "endless": endless,
    }
    return json.dumps(orders)


def _outcome(report: str) -> Outcome:
    outcome: Outcome = json.loads(report)
    if outcome["statuses"].keys() != {"200"}:
        raise SystemExit(f"the API did not always answer with 200: {outcome['statuses']}")
    return outcome


def _request(route: str, one: Presented) -> dict[str, str]:
    """A request as lego sends it, and the query that shows whether it has taken effect."""
    body, credentials = _as_acme_dns(one) if route == "/update" else _as_httpreq(one)
    head = (
        f"POST {route} HTTP/1.1",
        "Host: 127.0.0.1",
        "User-Agent: responder-bench",
        f"Content-Length: {len(body)}",
        "Accept: application/json",
        *credentials,
        "Content-Type: application/json",
        "Accept-Encoding: gzip",
    )
    return {
        "octets": "\r\n".join((*head, "", body)),
        "query": dns.message.make_query(one.name.fqdn, "TXT").to_wire().hex(),
        "wanted": one.value,
    }


def _as_httpreq(one: Presented) -> tuple[str, tuple[str, ...]]:
    return json.dumps({"fqdn": one.name.fqdn, "value": one.value}), (f"Authorization: Bearer {one.holder.secret}",)


def _as_acme_dns(one: Presented) -> tuple[str, tuple[str, ...]]:
    body = json.dumps({"subdomain": str(one.name).removesuffix(f".{ZONE}"), "txt": one.value})
    return body, (f"X-Api-User: {one.holder.token_id}", f"X-Api-Key: {one.holder.secret}")
