"""
What a flood on one side does to the other: DNS to presents, presents to DNS. Every process may use both cores.

NSD, which has no part in it, is asked in the flood of presents too: what its answers take longer is how this machine
shares itself out among processes.

Clients stand for machines elsewhere, with processors of their own. So those that flood take only what nobody else
wants, and (if we are root, or the figures are worse than what is measured) those that measure wait for nobody.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench import api, database, flood, pace, servers
from tests.bench.api import Presented
from tests.bench.machine import Cores, busy_seconds, cpu_seconds, own_seconds, percentile
from tests.bench.servers import Listener
from tests.e2e.dns_client import serial
from tests.e2e.service import ZONE, Responder

FLOOD = 200_000
"""Queries a second in a flood of DNS: more than a nameserver process answers."""

RATE = 2_000
"""Queries a second whose latency is measured: more than a service like this ever sees, and little work to ask."""

_PRESENTS = 200
_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds: the median of a present, and the p99 of a query, each with and without a flood on the other side."""

    present: float
    present_in_flood: float
    query: float
    query_in_flood: float
    nsd: float | None
    """As `query`, of NSD; None if it is not installed."""
    nsd_in_flood: float | None
    nameserver: float
    """Of one core, how much the nameserver had in the flood of DNS: all of it, or it was no flood."""
    control: float
    """Of one core, how much the control process had in the flood of presents."""
    foreign: float
    """Of both cores, how much time anybody else had meanwhile: it should be next to nothing."""


def measure(
    directory: Path, cores: Cores, *, rounds: int, say: Callable[[str], None], realtime: bool = False
) -> list[Round]:
    """Fill a database, start the service on it, and flood it from either side."""
    directory.mkdir()
    responder = Responder(directory, configuration=servers.configured(realtime=realtime))
    holders = database.fill(directory / "responder.db", tokens=api.TOKENS, hostnames=api.HOSTNAMES, with_values=True)
    queries = [f"{holder.challenge_names[0]} TXT" for holder in holders] + [f"nope.{ZONE} A"] * len(holders)
    ours = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cores.measured, cores.other})
    try:
        with ExitStack() as stack:
            nsd = _nsd(stack, directory / "nsd", responder.cli("zone", "show").stdout, say)
            listener = stack.enter_context(servers.ours(responder, "ours"))
            say(f"isolation: {rounds} rounds of presents, alone and in a DNS flood, and of queries, in one of the API")
            values = api.values_of(holders, 1)
            api.load(responder, "/cleanup", values, api.CONCURRENCY)  # warms everything up, changes nothing
            return [_round(responder, listener, nsd, values, queries, cores) for _ in range(rounds)]
    finally:
        os.sched_setaffinity(0, ours)


def _nsd(stack: ExitStack, directory: Path, zone: str, say: Callable[[str], None]) -> Listener | None:
    server = servers.OTHERS[0]
    if (program := servers.find(server.name)) is None:
        say(f"without {server.name}: it is not installed")
        return None
    return stack.enter_context(servers.other(server, program, zone, directory))


def _round(
    responder: Responder,
    listener: Listener,
    nsd: Listener | None,
    values: Sequence[Presented],
    queries: Sequence[str],
    cores: Cores,
) -> Round:
    (nameserver,), control = listener.pids, responder.child("control").pid
    began, busy, own = time.monotonic(), _busy(cores), own_seconds()
    present = _present(responder, values)
    with flood.flooding(responder.dns, FLOOD):
        present_in_flood, nameserver_share = _beside(nameserver, lambda: _present(responder, values))
    serial(responder.dns, ZONE)  # what the flood has left in the socket is answered before this is
    query, others = _query(listener, queries), _query(nsd, queries) if nsd else None
    with api.flooding(responder, values):
        query_in_flood, control_share = _beside(control, lambda: _query(listener, queries))
        others_in_flood = _query(nsd, queries) if nsd else None
    elapsed, busy, own = time.monotonic() - began, _busy(cores) - busy, own_seconds() - own
    return Round(
        present=present,
        present_in_flood=present_in_flood,
        query=query,
        query_in_flood=query_in_flood,
        nsd=others,
        nsd_in_flood=others_in_flood,
        nameserver=nameserver_share,
        control=control_share,
        foreign=max(0.0, busy - own) / elapsed / 2,
    )


def _beside(pid: int, work: Callable[[], float]) -> tuple[float, float]:
    """What *work* gives, and how much of a core the process had meanwhile."""
    began, cpu = time.monotonic(), cpu_seconds([pid])
    outcome = work()
    return outcome, (cpu_seconds([pid]) - cpu) / (time.monotonic() - began)


def _busy(cores: Cores) -> float:
    return busy_seconds(cores.measured) + busy_seconds(cores.other)


def _present(responder: Responder, values: Sequence[Presented]) -> float:
    some = [replace(one, value=database.random_value()) for one in values[:_PRESENTS]]
    outcome = api.load(responder, "/present", some, 1, urgent=True)
    api.load(responder, "/cleanup", some, api.CONCURRENCY)  # a name holds so many values only
    return percentile(outcome["times"], 0.5)


def _query(listener: Listener, queries: Sequence[str]) -> float:
    return percentile(pace.times(listener.port, queries, rate=RATE, seconds=_SECONDS), 0.99)
