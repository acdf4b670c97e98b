"""
A million granted names: what a nameserver process with them costs beside one with a hundred, and what a reload does.

Both processes get their names over a real feed, as a control process gives them, and answer the same kind of question.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from responder.config.settings import DnsSettings, RateLimitSettings
from responder.dns.zone import Change
from responder.feed import Publisher
from responder.names import Name
from tests.bench.dns import Measured, Workload, check, dnsperf, figure, flood
from tests.bench.machine import Cores, percentile, pin
from tests.bench.servers import Listener
from tests.support.nameservers import start, wait_until_it_answers
from tests.support.zones import APEX, static

FEW, MANY = 100, 1_000_000
"""Granted names."""

_CHUNK = 500
"""Names in a piece of the snapshot, as the store makes them."""

_QUERIES = 10_000
_PATIENCE = 120.0
_CALM = 2_000
"""Queries a second while a snapshot streams in."""


@dataclass(frozen=True, slots=True)
class Scale:
    """What was measured: seconds, octets for each name, and questions."""

    load: float
    octets: float
    few: Measured
    many: Measured
    reload: float
    lost: int
    p99: float


@dataclass(frozen=True, slots=True)
class _Nameserver:
    """A nameserver process and the feed that it follows."""

    names: int
    listener: Listener
    load: float
    publisher: Publisher
    loop: asyncio.AbstractEventLoop

    def reload(self) -> float:
        """Seconds that a new snapshot takes, from the first name to the last one served."""
        began = time.monotonic()
        asyncio.run_coroutine_threadsafe(self.publisher.reload(), self.loop).result(_PATIENCE)
        return time.monotonic() - began


def measure(directory: Path, cores: Cores, *, rounds: int, seconds: float, say: Callable[[str], None]) -> Scale:
    """Both processes take turns on one core."""
    with ExitStack() as stack:
        say(f"scale: loading {FEW} and {MANY:,} names")
        few, many = (stack.enter_context(_running(directory / str(n), n, cores)) for n in (FEW, MANY))
        octets = (_resident(many) - _resident(few)) / (MANY - FEW)
        measured = {FEW: Measured(), MANY: Measured()}
        for server in (few, many):
            queries = directory / f"{server.names}.queries"
            queries.write_text("\n".join(_queries(server.names)))
            check(server.listener, _WORKLOAD, dnsperf(server.listener, queries, 1.0, ()))
        for _ in range(rounds):
            for server in (few, many):
                queries = directory / f"{server.names}.queries"
                measured[server.names].rounds.append(flood(server.listener, _WORKLOAD, queries, cores, seconds))
        took, lost, p99 = _reload(many, directory, say)
    return Scale(many.load, octets, measured[FEW], measured[MANY], took, lost, p99)


def _reload(server: _Nameserver, directory: Path, say: Callable[[str], None]) -> tuple[float, int, float]:
    """A new snapshot streams in while the old one answers at a calm rate."""
    say("scale: answering while a new snapshot streams in")
    took: list[float] = []
    thread = threading.Thread(target=lambda: took.append(server.reload()))
    thread.start()
    report = dnsperf(server.listener, directory / f"{MANY}.queries", server.load, ("-v", "-Q", str(_CALM)))
    thread.join()
    times = [float(line.rpartition(" ")[2]) for line in report.splitlines() if line.startswith("> ")]
    return took[0], int(figure(report, r"Queries lost: +(\d+)")), percentile(times, 0.99)


@contextmanager
def _running(directory: Path, names: int, cores: Cores) -> Iterator[_Nameserver]:
    directory.mkdir(parents=True)
    with ExitStack() as stack:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        udp, tcp = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)), stack.enter_context(socket.socket())
        udp.bind(("127.0.0.1", 0))
        tcp.bind(udp.getsockname())
        for sock in (udp, tcp):
            sock.setblocking(False)
        settings = DnsSettings(rate_limit=RateLimitSettings(replies_per_second=0))
        began = time.monotonic()
        process, supervisor, feed = start(stack, udp, tcp, settings)
        pin([process.pid], cores.measured)
        publisher = asyncio.run_coroutine_threadsafe(_publish(process.pid, feed, names), loop).result()
        wait_until_it_answers(supervisor, _PATIENCE)
        load = time.monotonic() - began
        listener = Listener(f"{names} names", udp.getsockname()[1], (process.pid,))
        yield _Nameserver(names, listener, load, publisher, loop)
        asyncio.run_coroutine_threadsafe(publisher.stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _publish(pid: int, feed: socket.socket, names: int) -> Publisher:
    async def snapshot() -> AsyncGenerator[Change, None]:
        for at in range(0, names, _CHUNK):
            some = {_challenge_name(number): () for number in range(at, min(at + _CHUNK, names))}
            yield Change(apex=APEX, previous=1, serial=1, names=some)

    publisher = Publisher([static()], snapshot, nameservers=1, kill=lambda pid: os.kill(pid, signal.SIGKILL))
    await publisher.admit(pid, feed)
    publisher.answers(pid)
    return publisher


def _challenge_name(number: int) -> Name:
    return Name.parse(f"_acme-challenge.host{number:07}.acme.example.com")


def _queries(names: int) -> list[str]:
    rng = random.Random(1)
    return [f"{_challenge_name(rng.randrange(names))} TXT" for _ in range(_QUERIES)]


def _resident(server: _Nameserver) -> int:
    (pid,) = server.listener.pids
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096


_WORKLOAD = Workload("granted names", lambda _names, _rng: [], absent=0.0)
