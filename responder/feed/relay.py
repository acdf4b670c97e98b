"""
The packets that a nameserver has passed on to the control process: who waits for which reply.

Theory of operation
-------------------
Updates and signed messages need a key, and only the control process has keys. So the nameserver passes such a packet
on, with a number, and keeps it until the reply with that number comes:

    client --packet--> pass_on --{"packet": 5, ...}--> control process
    client <--reply--- settle  <--PacketReply(5, ...)-- control process

*Limits.* To check a signature costs the control process far more than it costs a client to send a forged one. So the
number of packets is limited here: at once, in a second, and for each client network. UDP and TCP are counted apart,
because anyone can send UDP packets with a forged address: a flood of those takes no places from clients over TCP. Over
TCP, networks whose packets keep failing count as suspects and share a third of the places.

*Restarts.* A reply that is made here has no signature, and a client that signs does not accept it. So while there is no
control process, packets wait for the next one, and it is also sent what the last one did not answer. In this way an
update may be carried out twice: this is harmless unless another client changed the name in between. A packet is sent
at most three times, because it may be the reason why the control process dies.

*Deadline.* After 9 seconds, or if there is no room, the client gets SERVFAIL without a signature.
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
"""Packets under way, for each transport. The control process takes all that wait into one transaction."""

MAX_WAITING_OF_NETWORK = 32
"""Packets under way of one client network: half, so that no client has all the places."""

MAX_PER_SECOND = 300
"""Packets passed on in a second, for each transport. Forged ones cost the control process 5 % of a core at most."""

MAX_PER_SECOND_OF_NETWORK = 100
"""Packets of one client network in a second: enough for a large cluster that renews everything at once."""

MAX_FAILURES_OF_NETWORK = 20
"""Packets of one client network that failed in a minute, before the network counts as a suspect."""

MAX_SUSPECTS_PER_SECOND = 100
"""Packets of all suspects that are passed on in a second. The rest is for other networks."""

FAILURES = {Rcode.FORMERR, Rcode.REFUSED, Rcode.NOTAUTH}
"""Rcodes of failures: a client with a valid key and a correct clock does not get them."""

DEADLINE = 9.0
"""
Seconds until a packet counts as lost. A start of the control process takes less, and so do the 8 s that an update may
wait for a hanging nameserver and its successor. lego waits 10 s, and an idle TCP connection stays open for longer.
"""

MAX_SENDS = 3
"""How often one packet is sent, each time to another control process: it may be the reason why these die."""

_NOT_READY = extended_error(ExtendedError.NOT_READY, "no signature can be checked at the moment: try again")

Deliver = Callable[[bytes], None]
"""Sends a reply to the client that sent the packet. The client may be gone by then."""


TakePacket = Callable[[Packet, Deliver], None]
"""Takes a packet, and delivers the reply now or later. Never raises, never waits."""


def fail(packet: Packet, deliver: Deliver) -> None:
    """Reply to *packet* with SERVFAIL, because no process can check its signature now."""
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
        Have the control process answer *packet*, as soon as there is one. *deliver* gets the reply, or SERVFAIL if
        none comes in time, or if there is no room to wait for one.
        """
        if not self._lanes[packet.transport].admit(packet.client):
            fail(packet, deliver)
            return
        number = next(self._numbers)
        timer = asyncio.get_running_loop().call_later(DEADLINE, self._give_up, number)
        self._waiting[number] = _Waiting(packet, deliver, timer)
        self._send(number)

    def settle(self, number: int, reply: bytes) -> None:
        """Deliver the *reply* to the packet with that *number*, unless the packet counts as lost already."""
        if number in self._waiting:
            waiting = self._release(number)
            if reply[3] & 0xF in FAILURES:
                self._lanes[waiting.packet.transport].note_failure(waiting.packet.client)
            waiting.deliver(reply)

    def attach(self, writer: asyncio.StreamWriter) -> None:
        """Use *writer* to send to the control process. Packets that wait are sent now, in their order."""
        self._writer = writer
        for number in [*self._waiting]:
            self._send(number)

    def detach(self) -> None:
        """The control process is gone: packets wait for the next one."""
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
    """A packet without a reply so far, and how often it was sent."""

    packet: Packet
    deliver: Deliver
    timer: asyncio.TimerHandle
    sent: int = 0


@dataclass(slots=True)
class _Lane:
    """The packets of one transport. If its addresses can be forged (*is_forgeable*), failures are not counted."""

    clock: Callable[[], float]
    is_forgeable: bool
    of_network: Counter[str | bytes] = field(default_factory=Counter)
    _second: int = 0
    _count: int = 0
    _suspects: int = 0
    _minute: int = 0
    _failures: Counter[str | bytes] = field(default_factory=Counter)  # in this minute; no more than were passed on
    _limit: RateLimit = field(init=False)

    def __post_init__(self) -> None:
        self._limit = RateLimit(per_second=MAX_PER_SECOND_OF_NETWORK, slip=0, exempt=(), clock=self.clock)

    def admit(self, client: str) -> bool:
        """Whether another packet of *client* may be passed on. If so, it is counted."""
        network = network_of(client)
        if self.of_network.total() >= MAX_WAITING or self.of_network[network] >= MAX_WAITING_OF_NETWORK:
            return False
        if self._limit.judge(client) is not Verdict.SEND or self._is_busy(network):
            return False
        self.of_network[network] += 1
        return True

    def release(self, client: str) -> None:
        """A packet of *client* is no longer under way."""
        network = network_of(client)
        self.of_network[network] -= 1
        if not self.of_network[network]:
            del self.of_network[network]

    def note_failure(self, client: str) -> None:
        """A packet of *client* failed."""
        if not self.is_forgeable:
            self._failures[network_of(client)] += 1

    def _is_busy(self, network: str | bytes) -> bool:
        """Whether the limits of this second are reached. If not, one more packet is counted."""
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
