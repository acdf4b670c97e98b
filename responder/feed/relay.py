"""
What a nameserver holds of the packets that the control process is to answer: who waits for which reply.

It is here that strangers are kept from the control process, which has better things to do than to look at signatures
that do not hold: so many packets at once, so many in a second, so many of one network. UDP, where anybody can send in
anybody's name, is counted apart from TCP. There, networks whose packets came to nothing share a third of the places.

No key is here, so no reply that is made here is signed, and a client that signs has no reason to believe it. So packets
wait for a control process that is away, and what it did not answer when it died is sent to its successor.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from responder.dns.ratelimit import RateLimit, Verdict, network_of
from responder.dns.wire import ExtendedError, Rcode, Transport, extended_error, refusal
from responder.feed.frames import Packet, render_packet

MAX_WAITING = 64
"""Packets under way, of each transport. The control process takes all that wait into one transaction."""

MAX_WAITING_OF_NETWORK = 32
"""Those of one client network: half, so that nobody has them all to himself."""

MAX_PER_SECOND = 300
"""Packets passed on in a second, of each transport: if all are forged, the control process loses some 5 % of a core."""

MAX_PER_SECOND_OF_NETWORK = 100
"""Those of one client network: a large cluster that renews everything at once."""

MAX_FAILURES_OF_NETWORK = 20
"""Packets of one client network that came to nothing in a minute, before it counts as a suspect."""

MAX_SUSPECTS_PER_SECOND = 100
"""Packets of all suspects that are passed on in a second; the rest is for others. Suspects alone are hardly refused."""

FAILURES = {Rcode.FORMERR, Rcode.REFUSED, Rcode.NOTAUTH}
"""What the control process says to packets that whoever holds a good key and a right clock does not send."""

DEADLINE = 9.0
"""
Seconds until a packet counts as lost: more than a start of the control process takes, and than the 8 s that an update
may wait for a hanging nameserver and its successor; less than lego's patience of 10 s, and than an idle TCP connection.
"""

MAX_SENDS = 3
"""Control processes that are sent one packet: should it be what they die of, there is an end to it."""

_NOT_READY = extended_error(ExtendedError.NOT_READY, "no signature can be checked at the moment: try again")

Deliver = Callable[[bytes], None]
"""Sends a reply where the packet came from; it may be too late for that."""


Answer = Callable[[Packet, Deliver], None]
"""Answers a packet, now or later. Never raises, never waits."""


def fail(packet: Packet, deliver: Deliver) -> None:
    """Answer *packet* with SERVFAIL: nobody is there who could do better."""
    deliver(refusal(packet.octets, Rcode.SERVFAIL, _NOT_READY))


class Relay:
    """The packets of one nameserver process. *clock* gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._writer: asyncio.StreamWriter | None = None
        self._lanes = {transport: _Lane(clock, is_forgeable=transport is Transport.UDP) for transport in Transport}
        self._waiting: dict[int, _Waiting] = {}
        self._numbers = itertools.count(1)

    def pass_on(self, packet: Packet, deliver: Deliver) -> None:
        """
        Have *packet* answered by the control process, as soon as there is one. *deliver* gets SERVFAIL if there is no
        answer in time, or no room to wait for one.
        """
        if not self._lanes[packet.transport].admit(packet.client):
            fail(packet, deliver)
            return
        number = next(self._numbers)
        timer = asyncio.get_running_loop().call_later(DEADLINE, self._give_up, number)
        self._waiting[number] = _Waiting(packet, deliver, timer)
        self._send(number)

    def settle(self, number: int, reply: bytes) -> None:
        """Deliver the *reply* to the packet of that *number*, unless it counts as lost already."""
        if number in self._waiting:
            waiting = self._release(number)
            if reply[3] & 0xF in FAILURES:
                self._lanes[waiting.packet.transport].note_failure(waiting.packet.client)
            waiting.deliver(reply)

    def attach(self, writer: asyncio.StreamWriter) -> None:
        """From now on, *writer* leads to the control process. All that waits is sent, in the order in which it came."""
        self._writer = writer
        for number in [*self._waiting]:
            self._send(number)

    def detach(self) -> None:
        """The control process is away: what it was to answer waits for the next one."""
        self._writer = None

    def _send(self, number: int) -> None:
        """Send a packet to the control process, if there is one."""
        waiting = self._waiting[number]
        if self._writer is None:
            return
        if waiting.sent >= MAX_SENDS:
            self._give_up(number)
            return
        waiting.sent += 1
        self._writer.write(render_packet(number, waiting.packet))

    def _give_up(self, number: int) -> None:
        waiting = self._release(number)
        fail(waiting.packet, waiting.deliver)

    def _release(self, number: int) -> _Waiting:
        waiting = self._waiting.pop(number)
        waiting.timer.cancel()
        self._lanes[waiting.packet.transport].release(waiting.packet.client)
        return waiting


@dataclass(slots=True)
class _Waiting:
    """A packet without an answer so far, and how many times it was sent."""

    packet: Packet
    deliver: Deliver
    timer: asyncio.TimerHandle
    sent: int = 0


@dataclass(slots=True)
class _Lane:
    """What is under way of one transport. Where addresses *is_forgeable*, failures would be held against others."""

    clock: Callable[[], float]
    is_forgeable: bool
    of_network: Counter[str | bytes] = field(default_factory=Counter)
    _second: int = 0
    _count: int = 0
    _suspects: int = 0
    _minute: int = 0
    _failures: Counter[str | bytes] = field(default_factory=Counter)  # a minute's, of no more than were passed on
    _limit: RateLimit = field(init=False)

    def __post_init__(self) -> None:
        self._limit = RateLimit(per_second=MAX_PER_SECOND_OF_NETWORK, slip=0, exempt=(), clock=self.clock)

    def admit(self, client: str) -> bool:
        """Count one more from *client*, if there may be one more."""
        network = network_of(client)
        if self.of_network.total() >= MAX_WAITING or self.of_network[network] >= MAX_WAITING_OF_NETWORK:
            return False
        if self._limit.judge(client) is not Verdict.SEND or self._is_busy(network):
            return False
        self.of_network[network] += 1
        return True

    def release(self, client: str) -> None:
        """One of *client* is no longer under way."""
        network = network_of(client)
        self.of_network[network] -= 1
        if not self.of_network[network]:
            del self.of_network[network]

    def note_failure(self, client: str) -> None:
        """One of *client* came to nothing."""
        if not self.is_forgeable:
            self._failures[network_of(client)] += 1

    def _is_busy(self, network: str | bytes) -> bool:
        """Count one more of this second, if there may be one more."""
        self._turn_over()
        is_suspect = self._failures[network] >= MAX_FAILURES_OF_NETWORK
        if self._count >= MAX_PER_SECOND or (is_suspect and self._suspects >= MAX_SUSPECTS_PER_SECOND):
            return True
        self._count += 1
        self._suspects += is_suspect
        return False

    def _turn_over(self) -> None:
        second = int(self.clock())
        if second != self._second:
            self._second, self._count, self._suspects = second, 0, 0
        if second // 60 != self._minute:
            self._minute = second // 60
            self._failures.clear()
