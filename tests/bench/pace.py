"""
Queries at a steady pace, each timed from when it leaves to when its reply leaves the server.

A process of its own: `python -m tests.bench.pace PORT RATE SECONDS`. The queries come on stdin, a name and a type on
each line; the times go to stdout, as JSON. The kernel notes when a reply arrives (SO_TIMESTAMPNS), and nobody waits for
one, so that this process neither times its own waiting nor takes the server's core away at every reply, as one that is
woken by them does: clients stand for machines elsewhere.
"""

from __future__ import annotations

import json
import random
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence

import dns.message

from tests.bench.machine import URGENT

_SO_TIMESTAMPNS = 35  # asm-generic/socket.h; the socket module does not name it
_TIMESPEC = struct.Struct("@qq")
_BUFFER = 1 << 20
"""Octets of replies that may wait to be read: far more than come meanwhile."""

_LAST_REPLIES = 0.5
"""Seconds after the last query in which replies still count."""


def times(port: int, queries: Sequence[str], *, rate: int, seconds: float) -> list[float]:
    """Seconds that the reply to each query took. Queries without one end the benchmark."""
    outcome = outcomes(port, queries, rate=rate, seconds=seconds)
    answered = [one for one in outcome if one is not None]
    if len(answered) < len(outcome):
        raise SystemExit(f"{len(outcome) - len(answered)} of {len(outcome)} queries were not answered")
    return answered


def outcomes(port: int, queries: Sequence[str], *, rate: int, seconds: float) -> list[float | None]:
    """As `times`, and None for each query without a reply."""
    command = (*URGENT, sys.executable, "-m", "tests.bench.pace", str(port), str(rate), str(seconds))
    run = subprocess.run(
        command, input="\n".join(queries), stdout=subprocess.PIPE, text=True, check=True, timeout=10 * seconds
    )
    outcome: list[float | None] = json.loads(run.stdout)
    return outcome


def main() -> None:
    port, rate, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    questions = [dns.message.make_query(*line.split()).to_wire()[2:] for line in sys.stdin]
    packets = [number.to_bytes(2, "big") + random.choice(questions) for number in range(int(rate * seconds))]
    sent, back = [0] * len(packets), [0] * len(packets)
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        sock.connect(("127.0.0.1", port))
        sock.setblocking(False)
        began = time.monotonic()
        for number, packet in enumerate(packets):
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
            sent[number] = time.time_ns()
            sock.send(packet)
            _read(sock, back)
        time.sleep(_LAST_REPLIES)
        _read(sock, back)
    print(json.dumps([(late - early) / 1e9 if late else None for early, late in zip(sent, back, strict=True)]))


def _read(sock: socket.socket, back: list[int]) -> None:
    """Note when each reply that is here arrived, by the number of its query, in nanoseconds since the epoch."""
    while True:
        try:
            reply, ((_, _, arrived), *_), _, _ = sock.recvmsg(4096, socket.CMSG_SPACE(_TIMESPEC.size))
        except BlockingIOError:
            return
        seconds, nanoseconds = _TIMESPEC.unpack(arrived)
        back[int.from_bytes(reply[:2], "big")] = seconds * 10**9 + nanoseconds


if __name__ == "__main__":
    main()
