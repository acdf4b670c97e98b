"""
What counting costs: the two statements by which `exchange` counts an ordinary query, against all that a query costs.

The whole is measured in this very process: a batch of datagrams through a real socket, answered as the nameserver does.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from time import process_time
from typing import Any

import dns.message

from responder.dns.exchange import Exchange
from responder.nameserver import udp
from tests.support.zones import APEX, VALUE, challenge, zones

REPEATED = 100_000
"""Queries of a round."""


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds of CPU time for each query."""

    whole: float
    counting: float

    @property
    def share(self) -> float:
        """Of the whole, what counting is."""
        return self.counting / self.whole


def measure(*, rounds: int, say: Callable[[str], None]) -> list[Round]:
    say(f"counting: {rounds} rounds of {REPEATED:,} queries")
    exchange = Exchange(zones({challenge("two"): (VALUE,)}))
    packet = dns.message.make_query(f"_acme-challenge.two.{APEX}", "TXT").to_wire()
    return [Round(_whole(exchange, packet), _counting(exchange, packet)) for _ in range(rounds)]


def _whole(exchange: Exchange, packet: bytes) -> float:
    """A query received, answered and sent."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        client.connect(server.getsockname())
        spent = 0.0
        for _ in range(REPEATED // udp.BATCH):
            for _ in range(udp.BATCH):
                client.send(packet)
            began = process_time()
            udp.drain(exchange.respond, _nowhere, server)
            spent += process_time() - began
            for _ in range(udp.BATCH):
                client.recv(4096)
    return spent / (REPEATED // udp.BATCH * udp.BATCH)


def _nowhere(*_: Any) -> None:
    raise AssertionError("an ordinary query is answered here")


def _counting(exchange: Exchange, packet: bytes) -> float:
    """The same two statements as in `Exchange.respond`, less the loop around them."""
    end = packet.find(0, 12) + 1
    key = packet[end : end + 4]
    answer = exchange.zones.nodes[packet[12:end].lower()].answers[key]

    def count(exchange: Any) -> None:
        for _ in range(REPEATED):
            exchange._types[key] += 1
            answer.count[0] += 1

    def nothing(exchange: Any) -> None:
        for _ in range(REPEATED):
            pass

    return (_time(count, exchange) - _time(nothing, exchange)) / REPEATED


def _time(work: Callable[[Exchange], None], exchange: Exchange) -> float:
    began = process_time()
    work(exchange)
    return process_time() - began
