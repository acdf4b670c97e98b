"""
DNS: our nameserver process beside other servers, each alone on the same core, dnsperf on another.

All servers run throughout and take turns, so that whatever else the machine does meets all of them. Another mix of
queries is one more `Workload`.
"""

from __future__ import annotations

import random
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from responder.names import Name
from tests.bench import database, servers
from tests.bench.machine import Cores, Spread, busy_seconds, cpu_seconds, percentile, pin
from tests.bench.servers import Listener
from tests.e2e.service import ZONE, Responder

OURS = "ours"
"""Our name among the servers."""

HOSTNAMES = 10_000
RATE = 20_000
"""Queries a second at which latency is measured: far from what any of the servers can take."""

_QUERIES = 10_000
_SOCKETS = 20
"""Source ports that dnsperf sends from, as several resolvers would."""
_WARM_UP = 1.0
_TOLERANCE = 0.02
"""How far the share of an rcode may be off, as a run seldom ends with the last query of the file."""
_PATIENCE = 60.0
"""Seconds beyond its own time limit after which dnsperf is given up."""


@dataclass(frozen=True, slots=True)
class Workload:
    """
    A mix of queries: *lines* makes them from the challenge names; *options* are more of dnsperf's.

    *absent* is the share of names that do not exist.
    """

    name: str
    lines: Callable[[Sequence[Name], random.Random], list[str]]
    absent: float
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Round:
    """One run of dnsperf: what was answered, and what that cost the server."""

    qps: float
    cpu: float
    """Seconds of CPU time for each answered query."""
    share: float
    """Of its core's time, how much the server had while it was measured."""
    foreign: float
    """Of its core's time, how much anybody else had: it should be next to nothing."""
    lost: int
    rcodes: Mapping[str, float]
    size: float
    """Octets of a reply, on average."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds that half, and all but one in a hundred, of the queries at `RATE` took at most."""

    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Measured:
    """Everything about one server under one workload, round by round."""

    rounds: list[Round] = field(default_factory=list)
    latencies: list[Latency] = field(default_factory=list)

    def spread(self, figure: Callable[[Round], float]) -> Spread:
        return Spread.of(map(figure, self.rounds))

    def ratio(self, ours: Measured, figure: Callable[[Round], float]) -> Spread:
        """Ours to theirs, each of the same round."""
        pairs = zip(ours.rounds, self.rounds, strict=True)
        return Spread.of(figure(mine) / figure(theirs) for mine, theirs in pairs)


Results = dict[str, dict[str, Measured]]
"""By workload, then by server; ours comes first."""


def measure(
    directory: Path, cores: Cores, *, rounds: int, seconds: float, say: Callable[[str], None]
) -> tuple[Results, dict[str, str]]:
    """Measure every server that is installed, and tell the versions of the others."""
    responder = Responder(directory, configuration=servers.CONFIGURATION)
    (holder,) = database.fill(directory / "responder.db", tokens=1, hostnames=HOSTNAMES, with_values=True)
    zone = responder.cli("zone", "show").stdout
    results: Results = {}
    with ExitStack() as stack:
        listeners = [stack.enter_context(servers.ours(responder, OURS))]
        versions = {}
        for server, program in servers.installed(say):
            listeners.append(stack.enter_context(servers.other(server, program, zone, directory / server.name)))
            versions[server.name] = servers.version(server, program)
        for listener in listeners:
            pin(listener.pids, cores.measured)
        for workload in WORKLOADS:
            queries = directory / f"{workload.name}.queries"
            queries.write_text("\n".join(workload.lines(holder.challenge_names, random.Random(1))))
            say(f"DNS, {workload.name}: {rounds} rounds of {seconds:g} s for each of {len(listeners)} servers")
            results[workload.name] = _take_turns(listeners, workload, queries, cores, rounds, seconds)
    return results, versions


def _take_turns(
    listeners: Sequence[Listener], workload: Workload, queries: Path, cores: Cores, rounds: int, seconds: float
) -> dict[str, Measured]:
    measured = {listener.name: Measured() for listener in listeners}
    for listener in listeners:
        check(listener, workload, dnsperf(listener, queries, _WARM_UP, workload.options))
    for _ in range(rounds):
        for listener in listeners:
            measured[listener.name].rounds.append(flood(listener, workload, queries, cores, seconds))
        for listener in listeners:
            measured[listener.name].latencies.append(_pace(listener, workload, queries, seconds))
    return measured


def flood(listener: Listener, workload: Workload, queries: Path, cores: Cores, seconds: float) -> Round:
    """As many queries as go through."""
    began, cpu, busy = time.monotonic(), cpu_seconds(listener.pids), busy_seconds(cores.measured)
    report = dnsperf(listener, queries, seconds, workload.options)
    cpu, busy = cpu_seconds(listener.pids) - cpu, busy_seconds(cores.measured) - busy
    elapsed = time.monotonic() - began
    answered = figure(report, r"Queries completed: +(\d+)")
    return Round(
        qps=figure(report, r"Queries per second: +([\d.]+)"),
        cpu=cpu / answered,
        share=cpu / seconds,
        foreign=max(0.0, busy - cpu) / elapsed,
        lost=int(figure(report, r"Queries lost: +(\d+)")),
        rcodes=_rcodes(report),
        size=figure(report, r"response (\d+)"),
    )


def _pace(listener: Listener, workload: Workload, queries: Path, seconds: float) -> Latency:
    """A moderate rate, each query timed: dnsperf 2.10 has no histogram, but reports every reply if asked."""
    report = dnsperf(listener, queries, seconds, (*workload.options, "-v", "-Q", str(RATE)))
    times = [float(line.rpartition(" ")[2]) for line in report.splitlines() if line.startswith("> ")]
    return Latency(percentile(times, 0.5), percentile(times, 0.99))


def dnsperf(listener: Listener, queries: Path, seconds: float, options: Sequence[str]) -> str:
    target = ("-s", "127.0.0.1", "-p", str(listener.port), "-d", str(queries))
    load = ("-l", str(seconds), "-c", str(_SOCKETS), "-T", "1", *options)
    # Into a file: were it a pipe, reading it would take time from dnsperf, on whose core we are.
    path = queries.with_suffix(".report")
    with path.open("wb") as report:
        subprocess.run(["dnsperf", *target, *load], stdout=report, check=True, timeout=seconds + _PATIENCE)
    return path.read_text()


def check(listener: Listener, workload: Workload, report: str) -> None:
    """See that the server answers as all of them should: otherwise there is nothing to compare."""
    rcodes = _rcodes(report)
    absent = rcodes.get("NXDOMAIN", 0.0)
    if rcodes.keys() - {"NOERROR", "NXDOMAIN"} or abs(absent - workload.absent) > _TOLERANCE:
        raise SystemExit(f"{listener.name} does not answer {workload.name} queries as expected: {rcodes}")


def _rcodes(report: str) -> dict[str, float]:
    """The share of each rcode among the answers."""
    return {rcode: float(share) / 100 for rcode, share in re.findall(r"([A-Z]+) \d+ \(([\d.]+)%\)", report)}


def figure(report: str, pattern: str) -> float:
    match = re.search(pattern, report)
    if match is None:
        raise SystemExit(f"dnsperf reports nothing like {pattern!r}:\n{report[-2000:]}")
    return float(match[1])


def _ordinary(names: Sequence[Name], rng: random.Random) -> list[str]:
    """What a CA and the curious ask: mostly values, some names that do not exist, some of the apex."""
    lines = [f"{name} TXT" for name in names[: _QUERIES * 90 // 100]]
    lines += _absent(_QUERIES * 5 // 100, rng)
    lines += [f"{ZONE} {rrtype}" for _ in range(_QUERIES * 5 // 200) for rrtype in ("SOA", "NS")]
    rng.shuffle(lines)
    return lines


def _random_names(_: Sequence[Name], rng: random.Random) -> list[str]:
    """A random-subdomain attack: ten times as many names as exist, none of which do."""
    return list(_absent(_QUERIES * 10, rng))


def _as_a_resolver(names: Sequence[Name], rng: random.Random) -> list[str]:
    """The ordinary mix, every letter's case at random (0x20)."""
    return ["".join(rng.choice((c.lower(), c.upper())) for c in line) for line in _ordinary(names, rng)]


def _absent(count: int, rng: random.Random) -> Iterator[str]:
    return (f"{rng.getrandbits(64):016x}.{ZONE} TXT" for _ in range(count))


WORKLOADS = (
    Workload("ordinary", _ordinary, absent=0.05),
    Workload("NXDOMAIN", _random_names, absent=1.0),
    # Random case, EDNS with DO, and a client cookie (RFC 7873): what Unbound and BIND send.
    Workload("resolver", _as_a_resolver, absent=0.05, options=("-D", "-E", "10:0011223344556677")),
)
