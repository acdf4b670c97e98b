"""
Response rate limiting: how many UDP replies a network gets in a second, as in BIND, NSD and Knot.

The source address of a datagram can be forged, so every reply may go to a victim. Above the limit most replies are
dropped, and some are cut to their question with TC set. A real resolver then asks again over TCP; a victim gets no more
octets than were sent in its name. Whole networks are counted, and all counts are cleared every second, so memory is
bounded.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from enum import Enum
from ipaddress import ip_address

from responder.addresses import Network

MAX_NETWORKS = 100_000
"""Networks that are counted in one second. More networks are not limited: a flood from so wide a range harms none."""


class Verdict(Enum):
    """Whether a reply is sent, cut (slip), or dropped."""

    SEND = "send"
    SLIP = "slip"
    DROP = "drop"


class RateLimit:
    """
    Counts replies by client network: /24 for IPv4, /56 for IPv6.

    Each network gets *per_second* replies. Of the replies above that, every Nth one is cut, where N is *slip*, and the
    others are dropped; with 0, all are dropped. Clients in one of *exempt* are not limited. *clock* gives monotonic
    seconds.
    """

    def __init__(self, *, per_second: int, slip: int, exempt: Iterable[Network], clock: Callable[[], float]) -> None:
        self._per_second = per_second
        self._slip = slip
        self._exempt = tuple(exempt)
        self._clock = clock
        self._counts: dict[str | bytes, int] = {}
        self._second = 0

    def judge(self, client: str) -> Verdict:
        """Count one reply to *client*, and decide whether it is sent."""
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
    """A key for the network of the address *client*: its /24 or /56."""
    return client.rpartition(".")[0] or socket.inet_pton(socket.AF_INET6, client.partition("%")[0])[:7]
