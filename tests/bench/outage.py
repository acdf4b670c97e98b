"""
What a death costs: the longest that a query waits for its reply when the process that answers is killed.

NSD, whose server process is killed in the same way, is asked beside it.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench import database, pace, servers
from tests.bench.machine import Cores
from tests.e2e.programs import Process, descendants, wait_until
from tests.e2e.service import Responder

RATE = 500
"""Queries a second meanwhile: one every 2 ms, so the figures are no finer than that."""

SIZES = ((4, 25), (1_200, 25))
"""Tokens, and hostnames of each, with one value at each: a small zone, and 30,000 names."""

_SECONDS = 6.0
_KILL_AFTER = 1.0


@dataclass(frozen=True, slots=True)
class Outage:
    """Seconds that the slowest of all queries took, and how many had no reply at all."""

    longest: float
    lost: int


@dataclass(frozen=True, slots=True)
class Size:
    """A zone of so many *names*: a death of ours, and of NSD, None if that is not installed, one for each round."""

    names: int
    ours: list[Outage]
    nsd: list[Outage]


def measure(directory: Path, cores: Cores, *, rounds: int, say: Callable[[str], None]) -> list[Size]:
    """Kill each of them several times, on both zones."""
    os.sched_setaffinity(0, {cores.measured, cores.other})
    return [_size(directory / str(tokens * each), tokens, each, rounds, say) for tokens, each in SIZES]


def _size(directory: Path, tokens: int, hostnames: int, rounds: int, say: Callable[[str], None]) -> Size:
    directory.mkdir()
    responder = Responder(directory, configuration=servers.CONFIGURATION)
    holders = database.fill(directory / "responder.db", tokens=tokens, hostnames=hostnames, with_values=True)
    queries = [f"{name} TXT" for holder in holders for name in holder.challenge_names]
    size = Size(len(queries), [], [])
    say(f"outage: {rounds} deaths with {len(queries):,} names")
    with servers.ours(responder, "ours"):
        for _ in range(rounds):
            size.ours.append(_death(responder.dns, queries, lambda: _ours(responder)))
    if (program := servers.find("nsd")) is not None:
        zone = responder.cli("zone", "show").stdout
        with servers.other(servers.OTHERS[0], program, zone, directory / "nsd") as listener:
            for _ in range(rounds):
                size.nsd.append(_death(listener.port, queries, lambda: _nsd_child(listener.pids[0])))
    return size


def _ours(responder: Responder) -> Process:
    """Our nameserver, once there is a spare."""
    wait_until(responder.spare, "there is a spare")
    return responder.child("nameserver")


def _nsd_child(parent: int) -> Process:
    """The process of NSD that answers: the youngest grandchild."""
    return wait_until(lambda: max(descendants(parent), key=lambda process: process.pid), "nsd has children")


def _death(port: int, queries: Sequence[str], find: Callable[[], Process]) -> Outage:
    """Ask at a steady pace, and kill the process that *find* gives meanwhile."""
    victim = find()
    timer = threading.Timer(_KILL_AFTER, lambda: os.kill(victim.pid, signal.SIGKILL))
    timer.start()
    some = random.sample(queries, min(len(queries), 2_000))
    outcome = pace.outcomes(port, some, rate=RATE, seconds=_SECONDS)
    timer.join()
    answered = [one for one in outcome if one is not None]
    return Outage(max(answered), len(outcome) - len(answered))
