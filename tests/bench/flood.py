"""
A flood of DNS queries: more than a server can answer, and next to no work to send.

A process of its own: `python -m tests.bench.flood PORT RATE` says by an empty line that it has begun, and after SIGTERM
how many it has sent.
The kernel cuts each send into many datagrams (UDP_SEGMENT), and nobody reads the replies, so that a flood from this
very machine takes little more from the servers than one from elsewhere would.
"""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle

import dns.message

from tests.bench.machine import COURTEOUS
from tests.e2e.service import ZONE

_PORTS = 512
"""Source ports: a server's processes share a flood by them."""

_AT_ONCE = 32
"""Queries in one send, all of the same length. The kernel takes 64 at most."""

_PAUSE = 0.0005
"""Seconds between looks at the clock: at 200,000 a second, 100 queries are due each time."""

_UDP_SEGMENT = 103  # linux/udp.h; the socket module does not name it


@dataclass(slots=True)
class Flood:
    """How many queries were sent, once it is over."""

    sent: int = 0


@contextmanager
def flooding(port: int, rate: int) -> Iterator[Flood]:
    """Have so many queries a second sent to the port from when this begins until the block ends."""
    command = [*COURTEOUS, sys.executable, "-m", "tests.bench.flood", str(port), str(rate)]
    flood = Flood()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield flood
        finally:
            process.terminate()
            flood.sent = int(process.stdout.read())


def main() -> None:
    port, rate = map(int, sys.argv[1:])
    ended = False

    def end(*_: object) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    flows = cycle([(_connect(port), _queries()) for _ in range(_PORTS)])
    print(flush=True)
    began, sent = time.monotonic(), 0
    while not ended:
        while sent < (time.monotonic() - began) * rate and not ended:
            sock, queries = next(flows)
            sock.send(queries)
            sent += _AT_ONCE
        time.sleep(_PAUSE)
    print(sent)


def _connect(port: int) -> socket.socket:
    sock = socket.socket(type=socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, len(_queries()) // _AT_ONCE)
    sock.connect(("127.0.0.1", port))
    return sock


def _queries() -> bytes:
    """Queries for random names, one behind the other."""
    names = (f"{random.getrandbits(64):016x}.{ZONE}" for _ in range(_AT_ONCE))
    return b"".join(dns.message.make_query(name, "TXT").to_wire() for name in names)


if __name__ == "__main__":
    main()
