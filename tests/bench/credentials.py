"""
What somebody who tries wrong credentials does to those who know theirs: how long their updates take meanwhile.

The control process has a core to itself, as when presents are measured; the limits on failures are the default ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench import api, database, servers
from tests.bench.database import Holder
from tests.bench.load import Outcome
from tests.bench.machine import Cores, percentile, pin
from tests.bench.scanner import scanning
from tests.e2e.service import Responder

RATE = 1_000
"""Wrong credentials a second."""

UPDATES = 500
"""One after the other, each time."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds that half, and all but one in a hundred, of the updates took at most."""

    p50: float
    p99: float

    @classmethod
    def of(cls, outcome: Outcome) -> Latency:
        return cls(percentile(outcome["times"], 0.5), percentile(outcome["times"], 0.99))


@dataclass(frozen=True, slots=True)
class Round:
    """Updates without and with wrong credentials beside them, and what these were answered."""

    alone: Latency
    beside: Latency
    rate: float
    """Wrong credentials that were answered, a second."""
    limited: float
    """The share of 429 among the answers; the rest are 401."""


def measure(directory: Path, cores: Cores, *, rounds: int, say: Callable[[str], None]) -> list[Round]:
    """Fill a database, start the service on it, and do both in turn."""
    responder = Responder(directory, configuration=servers.CONFIGURATION)
    holders = database.fill(directory / "responder.db", tokens=api.TOKENS, hostnames=api.HOSTNAMES, with_values=False)
    say(f"credentials: {rounds} rounds of {UPDATES} updates without and with {RATE:,} wrong credentials a second")
    try:
        responder.start()
        pin([responder.child("control").pid], cores.measured)
        _updates(responder, holders)  # warms everything up
        return [_round(responder, holders) for _ in range(rounds)]
    finally:
        responder.stop()


def _round(responder: Responder, holders: Sequence[Holder]) -> Round:
    alone = _updates(responder, holders)
    with scanning(responder.api, RATE) as scan:
        beside = _updates(responder, holders)
    answers = sum(scan.statuses.values())
    if scan.statuses.keys() - {"401", "429"}:
        raise SystemExit(f"wrong credentials were not always answered with 401 or 429: {scan.statuses}")
    return Round(alone, beside, rate=answers / scan.seconds, limited=scan.statuses.get("429", 0) / answers)


def _updates(responder: Responder, holders: Sequence[Holder]) -> Latency:
    return Latency.of(api.load(responder, "/update", api.values_of(holders, 1)[:UPDATES], 1))
