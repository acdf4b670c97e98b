"""
Somebody who tries credentials that are good for nothing, so many a second, each only once.

A process of its own: `python -m tests.bench.scanner PORT RATE` until SIGTERM, then what it was answered on stdout, as
JSON. It comes from another loopback address than the clients that know their token.
"""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import uuid4

from tests.bench.database import random_value
from tests.bench.load import Connection, Request

_ADDRESS = "127.0.0.2"
_CONNECTIONS = 32
_PAUSE = 0.001
"""Seconds between looks at the clock."""
_PATIENCE = 10.0


@dataclass(slots=True)
class Scan:
    """What came of it, once it is over: answers by status, and seconds."""

    statuses: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


@contextmanager
def scanning(port: int, rate: int) -> Iterator[Scan]:
    """Have so many a second tried from when this begins until the block ends."""
    command = [sys.executable, "-m", "tests.bench.scanner", str(port), str(rate)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    scan = Scan()
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield scan
    finally:
        process.terminate()
        report, _ = process.communicate(timeout=_PATIENCE)
    outcome = json.loads(report)
    scan.statuses, scan.seconds = outcome["statuses"], outcome["seconds"]


def main() -> None:
    port, rate = map(int, sys.argv[1:])
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    connections = {c.socket.fileno(): c for c in (Connection(port, _ADDRESS) for _ in range(_CONNECTIONS))}
    epoll = select.epoll()
    for number in connections:
        epoll.register(number, select.EPOLLIN)
    idle = [*connections.values()]
    statuses: Counter[str] = Counter()
    sent = 0
    print(flush=True)
    began = time.monotonic()
    while not ended:
        while idle and sent < (time.monotonic() - began) * rate:
            idle.pop().send(_guess())
            sent += 1
        for number, _ in epoll.poll(_PAUSE):
            if (outcome := connections[number].receive()) is not None:
                statuses[outcome[0]] += 1
                idle.append(connections[number])
    json.dump({"statuses": statuses, "seconds": time.monotonic() - began}, sys.stdout)


def _guess() -> Request:
    body = json.dumps({"subdomain": "_acme-challenge.host0-0", "txt": random_value()})
    head = (
        "POST /update HTTP/1.1",
        "Host: 127.0.0.1",
        f"Content-Length: {len(body)}",
        f"X-Api-User: {uuid4()}",
        f"X-Api-Key: {random_value()[:40]}",
        "Content-Type: application/json",
    )
    return Request("\r\n".join((*head, "", body)).encode(), b"", b"")


if __name__ == "__main__":
    main()
