"""
The API of acme-dns: updates made durable and served, and TXT queries, a second; ours, and beside us acme-dns itself.

Whoever has its turn has one core for all that it consists of, HTTP, database and DNS; the load has the other. Names
hold two values, which is all that acme-dns keeps.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import acmedns, api, database, dns, servers
from tests.bench.api import Burst, Presented
from tests.bench.database import Holder
from tests.bench.machine import Cores, family, pin
from tests.bench.servers import Listener
from tests.e2e.service import Responder

VALUES = 2
"""At each name."""

_TXT = dns.Workload("TXT", lambda names, _: [f"{name} TXT" for name in names], absent=0.0)

_WARM_UP = 1.0


@dataclass(frozen=True, slots=True)
class Measured:
    """Everything about one of the two, round by round."""

    updates: list[Burst] = field(default_factory=list)
    queries: list[dns.Round] = field(default_factory=list)


Results = dict[str, Measured]
"""Ours comes first."""


@dataclass(slots=True)
class _Party:
    """One of the two, its accounts, a file with queries for a name of each, and the values that it serves now."""

    listener: Listener
    api: int
    holders: Sequence[Holder]
    queries: Path
    cleans_up: bool
    """Whether an old value stays until it is cleaned up; otherwise a new one takes its place."""
    served: list[Presented] = field(default_factory=list)

    @property
    def dns(self) -> int:
        return self.listener.port


def measure(directory: Path, cores: Cores, *, rounds: int, seconds: float, say: Callable[[str], None]) -> Results:
    """Run both if there are both, and have them take turns."""
    with ExitStack() as stack:
        parties = [stack.enter_context(_ours(directory))]
        if (program := acmedns.find()) is not None:
            parties.append(stack.enter_context(_theirs(program, directory / acmedns.NAME)))
        else:
            say(f"without {acmedns.NAME}: it is neither on PATH nor where Go installs programs")
        for party in parties:
            pin(party.listener.pids, cores.measured)
        say(f"update: {rounds} rounds of {VALUES} updates for each name, and of {seconds:g} s of queries")
        return _take_turns(parties, cores, rounds, seconds)


def _take_turns(parties: Sequence[_Party], cores: Cores, rounds: int, seconds: float) -> Results:
    results = {party.listener.name: Measured() for party in parties}
    for party in parties:  # warm up
        _update(party, cores)
        dns.check(party.listener, _TXT, dns.dnsperf(party.listener, party.queries, _WARM_UP, _TXT.options))
    for _ in range(rounds):
        for party in parties:
            results[party.listener.name].updates.append(_update(party, cores))
        for party in parties:
            queries = dns.flood(party.listener, _TXT, party.queries, cores, seconds)
            results[party.listener.name].queries.append(queries)
    return results


def _update(party: _Party, cores: Cores) -> Burst:
    """Give every name new values in place of the old ones."""
    if party.cleans_up and party.served:
        api.load(party, "/cleanup", party.served, api.CONCURRENCY)
    party.served = api.values_of(party.holders, VALUES)
    return api.burst(party, "/update", party.served, party.listener.pids, cores)


@contextmanager
def _ours(directory: Path) -> Iterator[_Party]:
    responder = Responder(directory, configuration=servers.CONFIGURATION)
    holders = database.fill(directory / "responder.db", tokens=api.TOKENS, hostnames=api.HOSTNAMES, with_values=False)
    try:
        responder.start()
        listener = Listener(dns.OURS, responder.dns, tuple(family(responder.supervisor.pid)))
        yield _Party(listener, responder.api, holders, _queries(directory, dns.OURS, holders), cleans_up=True)
    finally:
        responder.stop()


@contextmanager
def _theirs(program: str, directory: Path) -> Iterator[_Party]:
    with acmedns.serving(program, directory) as server:
        holders = [server.register() for _ in range(api.TOKENS)]
        listener = Listener(acmedns.NAME, server.dns, server.pids)
        yield _Party(listener, server.api, holders, _queries(directory, acmedns.NAME, holders), cleans_up=False)


def _queries(directory: Path, name: str, holders: Sequence[Holder]) -> Path:
    names = [holder.challenge_names[0] for holder in holders]
    path = directory / f"{name}.queries"
    path.write_text("\n".join(_TXT.lines(names, random.Random(1))))
    return path
