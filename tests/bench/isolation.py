"""
What a flood on one side does to the other: DNS to presents, presents to DNS. Every process may use both cores.

Clients stand for machines elsewhere, with processors of their own. So those that flood take only what nobody else
wants, and (if we are root, or the figures are worse than what is measured) those that measure wait for nobody.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench import api, database, flood, servers
from tests.bench.api import Presented
from tests.bench.machine import URGENT, Cores, busy_seconds, cpu_seconds, own_seconds, percentile
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
    nameserver: float
    """Of one core, how much the nameserver had in the flood of DNS: all of it, or it was no flood."""
    control: float
    """Of one core, how much the control process had in the flood of presents."""
    foreign: float
    """Of both cores, how much time anybody else had meanwhile: it should be next to nothing."""


def measure(directory: Path, cores: Cores, *, rounds: int, say: Callable[[str], None]) -> list[Round]:
    """Fill a database, start the service on it, and flood it from either side."""
    responder = Responder(directory, configuration=servers.CONFIGURATION)
    holders = database.fill(directory / "responder.db", tokens=api.TOKENS, hostnames=api.HOSTNAMES, with_values=True)
    queries = directory / "queries"
    queries.write_text("\n".join(f"{holder.challenge_names[0]} TXT\nnope.{ZONE} A" for holder in holders))
    ours = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cores.measured, cores.other})
    try:
        responder.start()
        say(f"isolation: {rounds} rounds of presents without and with a DNS flood, then queries, with one of the API")
        values = api.values_of(holders, 1)
        api.load(responder, "/cleanup", values, api.CONCURRENCY)  # warms everything up, changes nothing
        return [_round(responder, values, queries, cores) for _ in range(rounds)]
    finally:
        responder.stop()
        os.sched_setaffinity(0, ours)


def _round(responder: Responder, values: Sequence[Presented], queries: Path, cores: Cores) -> Round:
    nameserver, control = (responder.child(module).pid for module in ("nameserver", "control"))
    began, busy, own = time.monotonic(), _busy(cores), own_seconds()
    present = _present(responder, values)
    with flood.flooding(responder.dns, FLOOD):
        present_in_flood, nameserver_share = _beside(nameserver, lambda: _present(responder, values))
    serial(responder.dns, ZONE)  # what the flood has left in the socket is answered before this is
    query = _query(responder, queries)
    with api.flooding(responder, values):
        query_in_flood, control_share = _beside(control, lambda: _query(responder, queries))
    elapsed, busy, own = time.monotonic() - began, _busy(cores) - busy, own_seconds() - own
    return Round(
        present=present,
        present_in_flood=present_in_flood,
        query=query,
        query_in_flood=query_in_flood,
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


def _query(responder: Responder, queries: Path) -> float:
    command = ("dnsperf", "-s", "127.0.0.1", "-p", str(responder.dns), "-d", str(queries))
    options = ("-l", str(_SECONDS), "-c", "20", "-T", "1", "-v", "-Q", str(RATE))
    # Into a file: were it a pipe, reading it would take time from what is measured.
    path = queries.with_suffix(".report")
    with path.open("wb") as report:
        subprocess.run([*URGENT, *command, *options], stdout=report, check=True, timeout=10 * _SECONDS)
    times = [float(line.rpartition(" ")[2]) for line in path.read_text().splitlines() if line.startswith("> ")]
    return percentile(times, 0.99)
