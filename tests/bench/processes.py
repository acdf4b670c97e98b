"""
Two nameserver processes on two cores beside one on one core: what the second is good for.

The flood comes from this very machine. It takes its part of the two cores from two processes, and nothing from one,
whose other core is idle: so twice as many queries a second are not to be had here. CPU time does not suffer from that:
if a query costs as much, and each process gets as many, two cores with nothing else to do answer twice as many.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench import servers
from tests.bench.flood import flooding
from tests.bench.machine import Cores, busy_seconds, cpu_seconds, own_seconds, pin, udp_drops
from tests.e2e.dns_client import serial
from tests.e2e.service import ZONE, Responder

FLOOD = 200_000
"""Queries a second for each process: more than it answers."""

CALM = 50_000
"""Queries a second that leave time to spare, so that a process that gets more has more to do."""


@dataclass(frozen=True, slots=True)
class Run:
    """What was made of a flood: queries a second that were answered, and seconds of CPU time for each."""

    qps: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Round:
    """One process and two, one after the other."""

    one: Run
    two: Run
    least: float
    """Of the CPU time that two had while there was time to spare, the part of the one that had less."""
    foreign: float
    """Of both cores, how much time anybody else had meanwhile: it should be next to nothing."""


def measure(directory: Path, cores: Cores, *, rounds: int, seconds: float, say: Callable[[str], None]) -> list[Round]:
    """Both services run throughout and take turns."""
    ours = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cores.measured, cores.other})
    try:
        with ExitStack() as stack:
            one = stack.enter_context(_running(directory / "one", [cores.measured]))
            two = stack.enter_context(_running(directory / "two", [cores.measured, cores.other]))
            say(f"processes: {rounds} rounds of {seconds:g} s for one nameserver process and for two")
            return [_round(one, two, cores, seconds) for _ in range(rounds)]
    finally:
        os.sched_setaffinity(0, ours)


@dataclass(frozen=True, slots=True)
class _Service:
    port: int
    nameservers: list[int]

    def cpu(self) -> list[float]:
        return [cpu_seconds([pid]) for pid in self.nameservers]


@contextmanager
def _running(directory: Path, cores: list[int]) -> Iterator[_Service]:
    """The service with a nameserver process on each of *cores*."""
    directory.mkdir()
    responder = Responder(directory, configuration=servers.configured(processes=len(cores)))
    try:
        responder.start()
        pids = [process.pid for process in responder.children() if "responder.nameserver" in process.command]
        for pid, core in zip(pids, cores, strict=True):
            pin([pid], core)
        yield _Service(responder.dns, pids)
    finally:
        responder.stop()


def _round(one: _Service, two: _Service, cores: Cores, seconds: float) -> Round:
    began, busy, own = time.monotonic(), _busy(cores), own_seconds()
    alone, both, least = _run(one, seconds), _run(two, seconds), _least(two, seconds)
    elapsed, busy, own = time.monotonic() - began, _busy(cores) - busy, own_seconds() - own
    return Round(one=alone, two=both, least=least, foreign=max(0.0, busy - own) / elapsed / 2)


def _run(service: _Service, seconds: float) -> Run:
    cpu, drops = service.cpu(), udp_drops(service.port)
    with flooding(service.port, FLOOD * len(service.nameservers)) as flood:
        began = time.monotonic()
        time.sleep(seconds)
    serial(service.port, ZONE)  # answered when everything before it is
    elapsed = time.monotonic() - began
    answered = flood.sent - (udp_drops(service.port) - drops)
    return Run(qps=answered / elapsed, cpu=(sum(service.cpu()) - sum(cpu)) / answered)


def _least(service: _Service, seconds: float) -> float:
    before = service.cpu()
    with flooding(service.port, CALM):
        time.sleep(seconds)
    had = [after - before for after, before in zip(service.cpu(), before, strict=True)]
    return min(had) / sum(had)


def _busy(cores: Cores) -> float:
    return busy_seconds(cores.measured) + busy_seconds(cores.other)
