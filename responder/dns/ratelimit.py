"""
Response rate limiting: how many UDP replies a network may get in a second (as BIND, NSD and Knot do it).

A datagram's sender can be forged, so every reply may go to a victim. Above the limit most replies are dropped and
some are cut to their question with TC set: a real resolver then comes back over TCP, a victim gets no more octets
than were sent in its name. It counts whole networks and forgets them every second, so its memory has a ceiling.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from enum import Enum
from ipaddress import ip_address

from responder.addresses import Network

MAX_NETWORKS = 100_000
"""Networks counted in one second. A flood from more of them hits none of them hard, and is let through."""


class Verdict(Enum):
    """What becomes of a reply."""

    SEND = "send"
    SLIP = "slip"
    DROP = "drop"


class RateLimit:
    """
    Counts replies by client network: /24 for IPv4, /56 for IPv6.

    *per_second* replies are sent to each network; of those above, every *slip*-th is cut, the others are dropped (with
    0, all are). Clients in one of *exempt* are never limited. *clock* gives monotonic seconds.
    """

    def __init__(self, *, per_second: int, slip: int, exempt: Iterable[Network], clock: Callable[[], float]) -> None:
        self._per_second = per_second
        self._slip = slip
        self._exempt = tuple(exempt)
        self._clock = clock
        self._counts: dict[str | bytes, int] = {}
        self._second = 0

    def judge(self, client: str) -> Verdict:
        """Count one reply to *client*. Returns what becomes of it."""
        second = int(self._clock())
        if second != self._second:
            self._second = second
            self._counts.clear()
        network = network_of(client)
        count = self._counts.get(network, 0) + 1
        if count > 1 or len(self._counts) < MAX_NETWORKS:
            self._counts[network] = count
        if count <= self._per_second or self._is_exempt(client):
            return Verdict.SEND
        return Verdict.SLIP if self._slip and count % self._slip == 0 else Verdict.DROP

    def _is_exempt(self, client: str) -> bool:
        return bool(self._exempt) and any(ip_address(client.partition("%")[0]) in network for network in self._exempt)


def network_of(client: str) -> str | bytes:
    """What distinguishes the /24 or /56 of the address *client* from others."""
    return client.rpartition(".")[0] or socket.inet_pton(socket.AF_INET6, client.partition("%")[0])[:7]
