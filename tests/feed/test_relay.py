"""What a nameserver passes on: how much of it at once, and that nobody waits for a reply for ever."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from unittest.mock import Mock

import dns.edns
import dns.message
import dns.rcode
import dns.update
import pytest

from responder.dns.wire import Transport
from responder.feed import Packet, Relay, relay
from responder.feed.frames import parse_packet
from tests.support.processes import eventually

UPDATE = b"\x12\x34\x28\0" + bytes(8)
SERVFAIL = b"\x12\x34\xa8\2" + bytes(8)
REPLY = b"\x12\x34\xa8\0" + bytes(8)


class Control:
    """A relay, and what it sends to a control process."""

    def __init__(self, *, away: bool = False, clock: Callable[[], float] = lambda: 1.0) -> None:
        self.relay = Relay(clock)
        self.writer = Mock(spec=asyncio.StreamWriter)
        if not away:
            self.relay.attach(self.writer)
        self.replies: list[bytes] = []

    @property
    def sent(self) -> list[tuple[int, Packet]]:
        return [parse_packet(json.loads(call.args[0][4:])) for call in self.writer.write.call_args_list]

    def pass_on(self, client: str = "192.0.2.7", transport: Transport = Transport.UDP) -> None:
        self.relay.pass_on(Packet(UPDATE, transport, client, b"draft"), self.replies.append)


async def test_reply_finds_its_packet() -> None:
    """What comes back goes to whoever sent the packet, once."""
    control = Control()
    first, second = list[bytes](), list[bytes]()
    control.relay.pass_on(Packet(UPDATE, Transport.UDP, "192.0.2.7", b""), first.append)
    control.relay.pass_on(Packet(UPDATE, Transport.TCP, "2001:db8::7", b"draft"), second.append)

    for number, packet in reversed(control.sent):
        control.relay.settle(number, packet.client.encode())
        control.relay.settle(number, b"again")

    assert [b"192.0.2.7"] == first
    assert [b"2001:db8::7"] == second
    assert Packet(UPDATE, Transport.TCP, "2001:db8::7", b"draft") == control.sent[1][1]


async def test_control_process_away() -> None:
    """What comes while it is away, and what it did not answer, is sent to the next one, in the order of arrival."""
    control = Control(away=True)
    clients = [f"192.0.2.{number}" for number in range(1, 6)]
    for client in clients[:2]:
        control.pass_on(client)
    control.relay.attach(control.writer)
    for client in clients[2:4]:
        control.pass_on(client)
    control.relay.settle(control.sent[2][0], REPLY)
    control.relay.detach()
    control.pass_on(clients[4])
    assert [REPLY] == control.replies
    assert clients[:4] == [packet.client for _, packet in control.sent]

    control.writer.write.reset_mock()
    control.relay.attach(control.writer)

    assert [*clients[:2], *clients[3:]] == [packet.client for _, packet in control.sent]
    for number, _ in control.sent:
        control.relay.settle(number, REPLY)
    assert [REPLY] * 5 == control.replies


async def test_a_packet_that_nobody_survives() -> None:
    """What was sent to several control processes, none of which answered, may be what they died of: it is given up."""
    control = Control(away=True)
    control.pass_on()
    for _ in range(relay.MAX_SENDS):
        control.relay.attach(control.writer)
        control.relay.detach()
    assert [] == control.replies

    control.relay.attach(control.writer)

    assert [SERVFAIL] == control.replies
    assert relay.MAX_SENDS == len(control.sent)


async def test_places_while_the_control_process_is_away() -> None:
    """As many wait for it as would be on their way to it; more get SERVFAIL at once."""
    control = Control(away=True)
    for _ in range(relay.MAX_WAITING_OF_NETWORK + 3):
        control.pass_on()

    assert [SERVFAIL] * 3 == control.replies


async def test_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that can take it gets the reason with its SERVFAIL, and its own zone section and OPT."""
    monkeypatch.setattr(relay, "DEADLINE", 0.01)
    update = dns.update.UpdateMessage("acme.example.com", id=0x1234)
    update.use_edns(0)
    control = Control(away=True)

    control.relay.pass_on(Packet(update.to_wire(), Transport.UDP, "192.0.2.7", b""), control.replies.append)

    await eventually(lambda: control.replies, "it is given up")
    reply = dns.message.from_wire(control.replies[0])
    assert update.is_response(reply)
    assert (dns.rcode.SERVFAIL, update.question) == (reply.rcode(), reply.question)
    (why,) = reply.options
    assert isinstance(why, dns.edns.EDEOption)
    assert (14, "no signature can be checked at the moment: try again") == (why.code, why.text)


async def test_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A packet that is not answered in time gets SERVFAIL, and its place is free again: also while nobody is there."""
    monkeypatch.setattr(relay, "DEADLINE", 0.01)
    control = Control()
    for away in (False, False, True):
        if away:
            control.relay.detach()
        control.replies.clear()
        for _ in range(relay.MAX_WAITING_OF_NETWORK):
            control.pass_on()
        await eventually(lambda: len(control.replies) == relay.MAX_WAITING_OF_NETWORK, "all are given up")

    assert len(control.sent) == 2 * relay.MAX_WAITING_OF_NETWORK


async def test_so_many_of_one_network() -> None:
    """One network cannot have all places; those that it gave back it can have again."""
    control = Control()
    for host in range(relay.MAX_WAITING_OF_NETWORK + 5):
        control.pass_on(f"192.0.2.{host}")
    assert [SERVFAIL] * 5 == control.replies

    control.pass_on("198.51.100.7")
    control.relay.settle(control.sent[0][0], REPLY)
    control.pass_on("192.0.2.1")

    assert [*[SERVFAIL] * 5, REPLY] == control.replies
    assert relay.MAX_WAITING_OF_NETWORK + 2 == len(control.sent)


async def test_so_many_at_once() -> None:
    """All networks together have a limit, too; what fills it over UDP takes nothing from TCP."""
    control = Control()
    for net in range(relay.MAX_WAITING + 5):
        control.pass_on(f"2001:db8:0:{net:x}00::1")

    control.pass_on("192.0.2.1", Transport.TCP)

    assert [SERVFAIL] * 5 == control.replies
    assert relay.MAX_WAITING + 1 == len(control.sent)


@pytest.mark.parametrize("networks", [1, 250])
async def test_so_many_in_a_second(networks: int) -> None:
    """However quickly they are answered, so many are passed on in a second, and as many in the next."""
    now = [1.0]
    control = Control(clock=lambda: now[0])
    allowed = relay.MAX_PER_SECOND_OF_NETWORK if networks == 1 else relay.MAX_PER_SECOND
    for second in (1, 2):
        now[0] = float(second)
        for n in range(allowed + 50):
            control.pass_on(f"192.0.{n % networks}.1")
            for number in [*control.relay._waiting]:
                control.relay.settle(number, REPLY)

    assert 2 * allowed == len(control.sent) == control.replies.count(REPLY)
    assert 100 == control.replies.count(SERVFAIL)


NOTAUTH = b"\x12\x34\xa8\x09" + bytes(8)


def _fail(control: Control, client: str, transport: Transport) -> None:
    """As many packets of *client* as make it a suspect come to nothing."""
    for _ in range(relay.MAX_FAILURES_OF_NETWORK):
        control.pass_on(client, transport)
        control.relay.settle(control.sent[-1][0], NOTAUTH)


async def test_forgers_leave_room_for_others() -> None:
    """Over TCP, networks whose signatures do not hold get a share of every second, for a minute; others the rest."""
    now = 60.0
    control = Control(clock=lambda: now)
    suspects = [f"192.0.{network}.7" for network in range(5)]
    for client in suspects:
        _fail(control, client, Transport.TCP)
    now += 1
    control.writer.write.reset_mock()
    for _ in range(50):
        for client in suspects:
            control.pass_on(client, Transport.TCP)
            control.relay.settle(control.sent[-1][0], REPLY)
    assert relay.MAX_SUSPECTS_PER_SECOND == len(control.sent)
    for _ in range(50):
        control.pass_on("198.51.100.7", Transport.TCP)
        control.relay.settle(control.sent[-1][0], REPLY)
    assert relay.MAX_SUSPECTS_PER_SECOND + 50 == len(control.sent)

    now += 60
    control.writer.write.reset_mock()
    for client in suspects[:3]:
        for _ in range(50):
            control.pass_on(client, Transport.TCP)
            control.relay.settle(control.sent[-1][0], REPLY)
    assert 150 == len(control.sent)


async def test_nothing_is_held_against_forged_addresses() -> None:
    """Over UDP, anybody could make a suspect of anybody."""
    now = 60.0
    control = Control(clock=lambda: now)
    victims = [f"192.0.{network}.7" for network in range(3)]
    for client in victims:
        _fail(control, client, Transport.UDP)
    now += 1
    control.writer.write.reset_mock()
    for client in victims:
        for _ in range(50):
            control.pass_on(client)
            control.relay.settle(control.sent[-1][0], REPLY)
    assert 150 == len(control.sent)


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"packet": 1},
        {"packet": "1", "octets": "00", "transport": "udp", "client": "192.0.2.7", "draft": ""},
        {"packet": 1, "octets": "0", "transport": "udp", "client": "192.0.2.7", "draft": ""},
        {"packet": 1, "octets": "00", "transport": "udp6", "client": "192.0.2.7", "draft": ""},
        {"packet": 1, "octets": "00", "transport": "udp", "client": "nobody", "draft": ""},
        {"packet": 1, "octets": "00", "transport": "udp", "client": "192.0.2.7", "draft": "x"},
    ],
)
def test_no_packet(message: dict[str, object]) -> None:
    """What is no packet is refused, and with it whoever sent it: a nameserver may not be itself any more."""
    with pytest.raises(ValueError, match=r"."):
        parse_packet(message)
