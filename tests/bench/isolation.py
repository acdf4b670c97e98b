"""
What a flood on one side does to the other: DNS to presents, presents to DNS. Every process may use both cores.

Whoever makes the flood is nice to everybody else: it stands for clients elsewhere, with processors of their own.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench import api, database, servers
from tests.bench.database import Holder
from tests.bench.machine import Cores, percentile
from tests.e2e.service import ZONE, Responder

RATE = 20_000
"""Queries a second at which the latency of DNS is measured."""

_NICE = 19
_PRESENTS = 300
_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Isolation:
    """Seconds: the median of a present, and the p99 of a query, each with and without a flood on the other side."""

    present: float
    present_in_flood: float
    query: float
    query_in_flood: float


def measure(directory: Path, cores: Cores, *, say: Callable[[str], None]) -> Isolation:
    """Fill a database, start the service on it, and flood it from either side."""
    responder = Responder(directory, configuration=servers.CONFIGURATION)
    holders = database.fill(directory / "responder.db", tokens=api.TOKENS, hostnames=api.HOSTNAMES, with_values=True)
    queries = directory / "queries"
    queries.write_text("\n".join(f"{holder.challenge_names[0]} TXT\nnope.{ZONE} A" for holder in holders))
    ours = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cores.measured, cores.other})
    try:
        responder.start()
        say("isolation: presents, without and with a DNS flood; queries, without and with an API flood")
        api.load(responder, "/cleanup", api.values_of(holders, 1), api.CONCURRENCY)  # warms everything up
        present = _present(responder, holders)
        with _dns_flood(responder, queries):
            present_in_flood = _present(responder, holders)
        query = _query(responder, queries)
        with _api_flood(responder, holders):
            query_in_flood = _query(responder, queries)
        return Isolation(present, present_in_flood, query, query_in_flood)
    finally:
        responder.stop()
        os.sched_setaffinity(0, ours)


def _present(responder: Responder, holders: Sequence[Holder]) -> float:
    outcome = api.load(responder, "/present", api.values_of(holders, 1)[:_PRESENTS], 1)
    return percentile(outcome["times"], 0.5)


def _query(responder: Responder, queries: Path) -> float:
    run = _dnsperf(responder, queries, "-v", "-Q", str(RATE), "-l", str(_SECONDS))
    report, _ = run.communicate(timeout=10 * _SECONDS)
    times = [float(time) for time in re.findall(r"^> .* ([\d.]+)$", report, re.MULTILINE)]
    return percentile(times, 0.99)


@contextmanager
def _dns_flood(responder: Responder, queries: Path) -> Iterator[None]:
    """As many queries as go through, for as long as it takes."""
    flood = _dnsperf(responder, queries, "-l", "60", nice=_NICE)
    try:
        yield
    finally:
        flood.terminate()
        flood.communicate()


@contextmanager
def _api_flood(responder: Responder, holders: Sequence[Holder]) -> Iterator[None]:
    """Presents and cleanups, many at a time, until it is enough."""
    enough = threading.Event()

    def flood() -> None:
        while not enough.is_set():
            values = api.values_of(holders, 1)
            for route in ("/present", "/cleanup"):
                api.load(responder, route, values, api.CONCURRENCY, nice=_NICE)

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


def _dnsperf(responder: Responder, queries: Path, *options: str, nice: int = 0) -> subprocess.Popen[str]:
    command = [
        "nice",
        "-n",
        str(nice),
        "dnsperf",
        "-s",
        "127.0.0.1",
        "-p",
        str(responder.dns),
        "-d",
        str(queries),
        "-c",
        "20",
        "-T",
        "1",
    ]
    return subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
