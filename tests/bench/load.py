"""
The API's load: a process of its own that sends requests made beforehand over kept connections, and times each.

It reads its orders from stdin and writes the outcome to stdout, both JSON. An endless load begins anew with the first
request after the last one, until SIGTERM; an empty line says that it has begun. As lean as Python can be, because it
shares a core with the nameserver: one epoll loop, no parsing but of the status and the length.
"""

from __future__ import annotations

import json
import select
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, takewhile
from typing import TypedDict

_TIMEOUT = 15.0
"""Seconds without any reply after which the run is given up."""

_UDP_SIZE = 1232


@dataclass(frozen=True, slots=True)
class Request:
    """One request, and what makes sure of its effect: a DNS query, and octets that its reply has to hold."""

    octets: bytes
    query: bytes
    wanted: bytes


class Outcome(TypedDict):
    """Statuses with their counts, seconds for everything and for each request, and how many had not taken effect."""

    statuses: dict[str, int]
    seconds: float
    times: list[float]
    stale: int


class Connection:
    """A kept connection, from that loopback address, with at most one request under way."""

    def __init__(self, port: int, source: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), _TIMEOUT, (source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request: Request | None = None
        self._sent = 0.0
        self._reply = b""

    def send(self, request: Request) -> None:
        self.request, self._reply = request, b""
        self._sent = time.perf_counter()
        self.socket.sendall(request.octets)

    def receive(self) -> tuple[str, float] | None:
        """Status and seconds, once the whole reply is here."""
        octets = self.socket.recv(65_536)
        if not octets:
            raise SystemExit("the service closed a connection")
        self._reply += octets
        head, separator, body = self._reply.partition(b"\r\n\r\n")
        if not separator or len(body) < int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0]):
            return None
        return head[9:12].decode(), time.perf_counter() - self._sent


def drive(api: int, dns: int | None, requests: Iterator[Request], concurrency: int) -> Outcome:
    """
    Send *requests*, so many at a time.

    With *dns*, ask that port after each reply whether the request has taken effect; that time does not count.
    """
    statuses: Counter[str] = Counter()
    times: list[float] = []
    stale = 0
    epoll = select.epoll()
    connections = {c.socket.fileno(): c for c in (Connection(api) for _ in range(concurrency))}
    with socket.socket(type=socket.SOCK_DGRAM) as resolver:
        resolver.settimeout(_TIMEOUT)
        if dns is not None:
            resolver.connect(("127.0.0.1", dns))
        began = time.perf_counter()
        for number, connection in connections.items():
            epoll.register(number, select.EPOLLIN)
            connection.send(next(requests))
        under_way = concurrency
        while under_way:
            ready = epoll.poll(_TIMEOUT)
            if not ready:
                raise SystemExit("the service does not reply any more")
            for number, _ in ready:
                connection = connections[number]
                if (outcome := connection.receive()) is None:
                    continue
                statuses[outcome[0]] += 1
                times.append(outcome[1])
                if dns is not None and connection.request is not None:
                    resolver.send(connection.request.query)
                    stale += connection.request.wanted not in resolver.recv(_UDP_SIZE)
                if (request := next(requests, None)) is not None:
                    connection.send(request)
                else:
                    under_way -= 1
        seconds = time.perf_counter() - began
    return Outcome(statuses=dict(statuses), seconds=seconds, times=times, stale=stale)


def main() -> None:
    orders = json.load(sys.stdin)
    requests: Iterator[Request] = iter(
        [Request(r["octets"].encode(), bytes.fromhex(r["query"]), r["wanted"].encode()) for r in orders["requests"]]
    )
    if orders["endless"]:
        ended: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
        requests = takewhile(lambda _: not ended, cycle(requests))
    print(flush=True)
    json.dump(drive(orders["api"], orders["dns"], requests, orders["concurrency"]), sys.stdout)


if __name__ == "__main__":
    main()
