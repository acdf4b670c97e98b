"""A nameserver's sockets: what gets an answer, who has to go, and that nobody can keep the others waiting."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import socket
import struct
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass, field
from unittest.mock import Mock

import dns.message
import dns.rcode
import dns.tsig
import dns.update
import pytest
import pytest_asyncio
import structlog

from responder.dns.exchange import Draft, Elsewhere, Exchange
from responder.dns.wire import Transport
from responder.dns.zone import Change
from responder.feed import Deliver, Feeds, Packet, Publisher, relay
from responder.nameserver import tcp, udp
from responder.nameserver.life import serve
from responder.nameserver.server import MAX_DRAFT, Nameserver, keep_collections_short
from responder.nameserver.tcp import Connections, TCPConnection
from responder.nameserver.udp import drain
from responder.process import lifeline
from responder.process.child import Lifeline
from responder.process.lifeline import Message, Word
from tests.support.feeds import nobody_is_killed
from tests.support.networks import network
from tests.support.processes import PATIENCE, eventually
from tests.support.zones import APEX, CLIENT, SERIAL, SOA, VALUE, challenge, made, static, text, zones

ONE, FULL = challenge("one"), challenge("full")
VALUES = tuple(letter * 255 for letter in "abcdefghijklmnop")
"""As many and as long as one name may hold."""
LOOPBACK = {"IPv4": "127.0.0.1", "IPv6": "::1"}
Address = tuple[str, int]


def query(name: str = "acme.example.com", rrtype: str = "SOA", number: int = 1) -> bytes:
    return dns.message.make_query(name, rrtype, id=number).to_wire()


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


@dataclass
class Client:
    """Somebody at the other end of a TCP connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> dns.message.Message:
        async with asyncio.timeout(PATIENCE):
            length = int.from_bytes(await self.reader.readexactly(2), "big")
            return dns.message.from_wire(await self.reader.readexactly(length))

    async def ask(self) -> dns.message.Message:
        self.send(framed(query()))
        return await self.answer()

    async def is_cut_off(self) -> bool:
        """Wait until the server hangs up without another word."""
        async with asyncio.timeout(PATIENCE):
            try:
                return await self.reader.read() == b""
            except ConnectionError:
                return True

    def close(self) -> None:
        self.writer.transport.abort()

    def reset(self) -> None:
        """Be gone at once: whoever only closes may still read."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


@dataclass
class Service:
    """A nameserver in this process, its feed, and its clients."""

    udp: dict[str, socket.socket]
    tcp: dict[str, socket.socket]
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    loads: int = 0
    task: asyncio.Task[None] | None = None
    clients: list[Client] = field(default_factory=list)
    passed_on: list[tuple[Packet, Deliver]] = field(default_factory=list)

    async def snapshot(self) -> AsyncGenerator[Change, None]:
        self.loads += 1
        await self.gate.wait()
        yield Change(apex=APEX, previous=SERIAL, serial=SERIAL, names={ONE: (VALUE,), FULL: VALUES})

    def __post_init__(self) -> None:
        self.supervisor, theirs = lifeline.pair()
        self.lifeline = Lifeline(theirs)
        self.server = Nameserver(Exchange(updates=True))

    def start(self) -> None:
        sockets = {"udp 1": [*self.udp.values()], "tcp": [*self.tcp.values()]}
        self.lifeline.watch()
        self.task = asyncio.create_task(serve(self.server, sockets, Feeds(), self.lifeline, self.stop))

    async def follow(self, publisher: Publisher) -> None:
        """Have it follow *publisher*, which it shares this process with."""
        ours, theirs = socket.socketpair()
        with theirs:
            lifeline.send(self.supervisor, Message(Word.FEED, os.getpid(), theirs.fileno()))
        await publisher.admit(os.getpid(), ours)

    def give_place(self) -> None:
        """Have it answer, as soon as it can."""
        lifeline.send(self.supervisor, Message(Word.SERVE, 1))

    async def said(self) -> int:
        """What it says next: where it answers."""
        async with asyncio.timeout(PATIENCE):
            said = await asyncio.get_running_loop().sock_recv(self.supervisor, 64)
        return int(said.removeprefix(b"alive "))

    async def close(self) -> None:
        """Have it stop, and close what is left."""
        self.stop.set()
        assert self.task is not None
        await asyncio.wait([self.task])
        self.lifeline.unwatch()
        self.lifeline._socket.close()
        self.supervisor.close()
        for client in self.clients:
            client.close()

    async def connect(self, family: str = "IPv4", source: str | None = None) -> Client:
        local = (source, 0) if source else None
        address = self.tcp[family].getsockname()[:2]
        client = Client(*await asyncio.open_connection(*address, local_addr=local))
        self.clients.append(client)
        return client

    def send(self, message: bytes, family: str = "IPv4") -> socket.socket:
        """A new UDP socket that *message* was sent from."""
        sock = socket.socket(self.udp[family].family, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.connect(self.udp[family].getsockname()[:2])
        sock.send(message)
        return sock

    async def receive(self, sock: socket.socket) -> dns.message.Message:
        with sock:
            async with asyncio.timeout(PATIENCE):
                return dns.message.from_wire(await asyncio.get_running_loop().sock_recv(sock, 65535))

    async def ask(self, family: str = "IPv4") -> dns.message.Message:
        return await self.receive(self.send(query(), family))


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[structlog.typing.EventDict]]:
    """What the log says, kept from the terminal."""
    with structlog.testing.capture_logs() as events:
        yield events


@pytest_asyncio.fixture
async def loading() -> AsyncIterator[Service]:
    """A nameserver whose first snapshot waits for the service's *gate*."""
    with contextlib.ExitStack() as stack:
        service = Service({}, {})
        service.supervisor.setblocking(False)
        for family, host in LOOPBACK.items():
            kind = socket.AF_INET6 if ":" in host else socket.AF_INET
            service.udp[family] = stack.enter_context(socket.socket(kind, socket.SOCK_DGRAM))
            service.tcp[family] = stack.enter_context(socket.socket(kind, socket.SOCK_STREAM))
            for sock in (service.udp[family], service.tcp[family]):
                sock.setblocking(False)
                sock.bind((host, 0))
            service.tcp[family].listen()
        publisher = Publisher([static()], service.snapshot, nameservers=1, kill=nobody_is_killed)
        publisher.take_packets_with(lambda packet, deliver: service.passed_on.append((packet, deliver)))
        service.start()
        await service.follow(publisher)
        await eventually(lambda: service.loads, "it asks for a snapshot")
        yield service
        await service.close()
        await publisher.stop()


@pytest_asyncio.fixture
async def service(loading: Service) -> Service:
    """A nameserver that answers."""
    loading.gate.set()
    loading.give_place()
    assert [0, 1] == [await loading.said() for _ in range(2)]
    return loading


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[TCPConnection]:
    """The server's ends of all connections that are made from now on."""
    made: list[TCPConnection] = []
    original = TCPConnection.connection_made

    def connection_made(self: TCPConnection, transport: asyncio.BaseTransport) -> None:
        made.append(self)
        original(self, transport)

    monkeypatch.setattr(TCPConnection, "connection_made", connection_made)
    return made


@pytest.mark.parametrize("family", LOOPBACK)
async def test_answers_over_udp(service: Service, family: str) -> None:
    """A query over UDP is answered, over IPv4 and IPv6."""
    assert [SOA] == text((await service.ask(family)).answer)


@pytest.mark.parametrize("family", LOOPBACK)
async def test_answers_over_tcp(service: Service, family: str) -> None:
    """A query over TCP is answered, over IPv4 and IPv6, and so is the next on the same connection."""
    client = await service.connect(family)

    assert [SOA] == text((await client.ask()).answer)
    assert [SOA] == text((await client.ask()).answer)


async def test_nothing_before_the_first_snapshot(loading: Service) -> None:
    """What comes in before there are zones waits, and is answered from them."""
    sock = loading.send(query())
    client = await loading.connect()
    client.send(framed(query()))
    loading.give_place()
    await asyncio.sleep(0)
    for silent in (sock, loading.supervisor):
        with pytest.raises(BlockingIOError):
            silent.recv(1)

    loading.gate.set()

    assert [SOA] == text((await loading.receive(sock)).answer)
    assert [SOA] == text((await client.answer()).answer)


async def test_stop_before_the_first_snapshot(loading: Service) -> None:
    """A nameserver that is told to stop before it has zones has said nothing by then, not even that it is ready."""
    with loading.send(query()) as sock:
        loading.stop.set()
        assert loading.task is not None
        await asyncio.wait_for(loading.task, PATIENCE)

        for silent in (sock, loading.supervisor):
            with pytest.raises(BlockingIOError):
                silent.recv(1)


async def test_stop_hangs_up(service: Service) -> None:
    """A nameserver that stops closes its connections, and leaves its sockets to the supervisor."""
    client = await service.connect()
    await client.ask()

    service.stop.set()

    assert await client.is_cut_off()


async def test_others_have_its_place(service: Service) -> None:
    """
    A nameserver whose place others have, too, closes each connection behind its next answer, one that had none yet
    included, and an idle one after a while; it answers over UDP meanwhile, and ends.
    """
    idle, new = await service.connect(), await service.connect()
    await idle.ask()
    lifeline.send(service.supervisor, Message(Word.RETIRE))
    await eventually(lambda: service.server.connections.is_draining, "it is on its way to its end")

    assert [SOA] == text((await new.ask()).answer)
    assert b"" == await new.reader.read()
    assert [SOA] == text((await service.receive(service.send(query()))).answer)
    assert b"" == await idle.reader.read()
    assert service.task is not None
    await service.task


async def test_a_spare_answers_nobody(loading: Service) -> None:
    """
    A spare has loaded and says so, but reads nothing: what comes in waits for whoever has the place. When it gets
    that, it answers what waits.
    """
    loading.gate.set()
    assert 0 == await loading.said()
    sock = loading.send(query())
    client = await loading.connect()
    client.send(framed(query()))
    await asyncio.sleep(0.01)
    assert query() == loading.udp["IPv4"].recv(4096, socket.MSG_PEEK)

    loading.give_place()

    assert [SOA] == text((await loading.receive(sock)).answer)
    assert [SOA] == text((await client.answer()).answer)
    assert 1 == await loading.said()


async def test_a_feed_gone_mad_ends_the_process() -> None:
    """A fault in following the feed comes out, so that the log has it and the supervisor starts a new process."""
    service = Service({}, {})
    service.start()
    control, theirs = socket.socketpair()
    with control, theirs:
        lifeline.send(service.supervisor, Message(Word.FEED, 1, theirs.fileno()))
        control.send(b"\0\0\0\x04null")
        assert service.task is not None
        with pytest.raises(ValueError, match="not a feed message"):
            await asyncio.wait_for(service.task, PATIENCE)
    await service.close()


@pytest.mark.parametrize("count", [2, 5, 1000])
async def test_many_queries_in_one_segment(service: Service, count: int) -> None:
    """However many queries come at once, each is answered, in order."""
    client = await service.connect()

    client.send(b"".join(framed(query(number=number)) for number in range(count)))

    assert [*range(count)] == [(await client.answer()).id for _ in range(count)]
    assert [SOA] == text((await client.ask()).answer)


async def test_nobody_holds_the_loop(
    service: Service, connections: list[TCPConnection], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Clients that send thousands of queries at once get a batch per turn of the event loop answered, all of them
    together; meanwhile nothing more is read from them.
    """
    answered, longest, buffered = 0, 0, 0
    size = len(framed(made(Exchange(zones()).respond(query(), Transport.TCP, CLIENT))))
    original = Exchange.respond

    def reply(self: Exchange, packet: bytes, transport: Transport, client: str) -> bytes | Elsewhere | None:
        nonlocal answered, buffered
        answered += 1
        buffered = max(buffered, *(len(connection._buffer) for connection in connections))
        return original(self, packet, transport, client)

    async def watch() -> None:
        nonlocal longest
        while True:
            before = answered
            await asyncio.sleep(0)
            longest = max(longest, answered - before)

    async def flood() -> None:
        client = await service.connect()
        client.send(framed(query()) * 1000)
        await asyncio.wait_for(client.reader.readexactly(1000 * size), PATIENCE)

    monkeypatch.setattr(Exchange, "respond", reply)
    monkeypatch.setattr(tcp, "MAX_UNSENT", 1 << 30)
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch())
        await asyncio.gather(*(group.create_task(flood()) for _ in range(4)))
        watching.cancel()

    assert 4 * 1000 == answered
    assert longest <= tcp.BATCH + 4
    assert buffered <= tcp.RECEIVE + 2 + 65535


async def test_a_byte_at_a_time(service: Service) -> None:
    """A query may come in as many segments as it has octets."""
    client = await service.connect()
    sock = client.writer.get_extra_info("socket")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    for octet in framed(query()):
        client.send(bytes((octet,)))
        await asyncio.sleep(0)

    assert [SOA] == text((await client.answer()).answer)


async def test_half_close(service: Service) -> None:
    """A client that sends its queries and closes its sending side gets all answers, and then the end."""
    client = await service.connect()

    client.send(framed(query(number=1)) + framed(query(number=2)) * 98 + framed(query(number=100)))
    client.writer.write_eof()

    assert [1, *[2] * 98, 100] == [(await client.answer()).id for _ in range(100)]
    assert await client.is_cut_off()


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0",
        framed(b"\0\1"),
        framed(query()[:11]),
        framed(query()[:2] + b"\x80" + query()[3:]),
    ],
    ids=["empty", "two octets", "eleven octets", "a response"],
)
async def test_garbage_ends_a_connection(service: Service, data: bytes) -> None:
    """Whoever sends over TCP what deserves no answer is cut off, also behind a good query."""
    client, other = await service.connect(), await service.connect()

    client.send(data)
    other.send(framed(query()) + data + framed(query()))

    assert await client.is_cut_off()
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        assert [SOA] == text((await other.answer()).answer)
    assert await other.is_cut_off()


async def test_silent_clients_are_cut_off(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new connection without a query does not live long."""
    monkeypatch.setattr(tcp, "FIRST_MESSAGE", 0.02)

    client = await service.connect()

    assert await client.is_cut_off()


@pytest.mark.parametrize("queries", [0, 1])
async def test_slow_clients_are_cut_off(service: Service, monkeypatch: pytest.MonkeyPatch, queries: int) -> None:
    """A query that trickles in does not buy more time with every octet, be it the first or a later one."""
    client = await service.connect()
    for _ in range(queries):
        await client.ask()
    monkeypatch.setattr(tcp, "FIRST_MESSAGE", 0.05)
    client.send(b"\xff\xff")

    async with asyncio.timeout(PATIENCE):
        while not client.reader.at_eof() and client.reader.exception() is None:
            client.send(b"x")
            await asyncio.sleep(0.001)


async def test_idle_clients_are_cut_off(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that had its answers is closed after a while, in the way that is no error to a client."""
    monkeypatch.setattr(tcp, "IDLE", 0.02)
    client = await service.connect()
    await client.ask()

    async with asyncio.timeout(PATIENCE):
        assert b"" == await client.reader.read()


async def test_idle_clients_that_left_answers_unread(
    service: Service, monkeypatch: pytest.MonkeyPatch, connections: list[TCPConnection]
) -> None:
    """One that does not read is cut off instead: nothing is kept for it, neither here nor by the kernel."""
    monkeypatch.setattr(tcp, "IDLE", 0.02)
    monkeypatch.setattr(tcp, "MAX_UNSENT", 16 << 20)
    client = await service.connect()
    assert isinstance(client.writer.transport, asyncio.Transport)
    client.writer.transport.pause_reading()
    client.send(framed(query(str(FULL), "TXT")) * 2000)
    await eventually(lambda: connections and connections[0]._transport, "it is connected")
    served = connections[0]._transport
    assert served is not None
    await eventually(served.is_closing, "it is cut off")
    client.writer.transport.resume_reading()

    async with asyncio.timeout(PATIENCE):
        with pytest.raises(ConnectionError):
            await client.reader.read()


async def test_connections_of_one_address(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """One address has so many connections; for one more, the one of its own goes that is idle for longest."""
    monkeypatch.setattr(tcp, "MAX_CONNECTIONS_PER_CLIENT", 3)
    stranger = await service.connect(source="127.0.0.2")
    await stranger.ask()
    clients = [await service.connect() for _ in range(3)]
    for client in (clients[1], clients[2], clients[0]):
        await client.ask()

    fourth = await service.connect()
    await fourth.ask()

    assert await clients[1].is_cut_off()
    for client in (clients[0], clients[2], fourth, stranger):
        assert [SOA] == text((await client.ask()).answer)


async def test_connections_of_one_ipv6_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has a /64 has no more connections than who has one address, wherever in it they come from."""
    monkeypatch.setattr(tcp, "MAX_CONNECTIONS_PER_CLIENT", 3)
    own = [f"2001:db8::{number}:1" for number in range(4)]
    with network(["2001:db8:ffff::53", "2001:db8:0:1::1", *own]) as elsewhere:
        listener = elsewhere.socket("2001:db8:ffff::53")
        server = Nameserver(Exchange(zones()))
        connections = Connections()
        listening = await tcp.listen(server.reply, server.pass_on, listener, connections)
        address = listener.getsockname()[:2]

        async def client(source: str) -> Client:
            sock = elsewhere.socket(source)
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, address)
            return Client(*await asyncio.open_connection(sock=sock))

        clients = []
        for source in ("2001:db8:0:1::1", *own):
            clients.append(await client(source))
            await clients[-1].ask()

        assert await clients[1].is_cut_off()
        for number in (0, 2, 3, 4):
            assert [SOA] == text((await clients[number].ask()).answer)
        for one in clients:
            one.close()
        listening.close()
        connections.close()


async def test_connections_in_all(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are so many connections in all; for one more, the one goes that is idle for longest."""
    monkeypatch.setattr(service.server.connections, "_most", 3)
    clients = [await service.connect(source=f"127.0.0.{number}") for number in (2, 3, 4)]
    for client in (clients[1], clients[2], clients[0]):
        await client.ask()

    fourth = await service.connect(source="127.0.0.5")
    await fourth.ask()

    assert await clients[1].is_cut_off()
    for client in (clients[0], clients[2], fourth):
        assert [SOA] == text((await client.ask()).answer)


async def test_a_rush_stays_within_bounds(
    service: Service, connections: list[TCPConnection], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections that come in all at once are counted like any others."""
    monkeypatch.setattr(service.server.connections, "_most", 5)
    await asyncio.gather(*(service.connect(source=f"127.0.0.{number}") for number in range(2, 42)))
    await eventually(lambda: len(connections) == 40, "all were accepted")
    await asyncio.sleep(0)

    assert 5 == sum(not (c._transport is None or c._transport.is_closing()) for c in connections)


async def test_idle_connections_keep_nobody_out(service: Service) -> None:
    """Three hundred connections that do nothing do not keep out one that asks, though it is of the same address."""
    for _ in range(300):
        await service.connect()

    client = await service.connect()

    assert [SOA] == text((await client.ask()).answer)


async def test_clients_that_never_read(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that asks and asks and reads nothing is cut off before its answers fill the memory."""
    monkeypatch.setattr(tcp, "MAX_UNSENT", 4096)
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await loop.sock_connect(sock, service.tcp["IPv4"].getsockname())

        async def ask_for_ever() -> None:
            while True:
                await loop.sock_sendall(sock, framed(query("big.acme.example.com", "TXT")) * 100)

        with pytest.raises(ConnectionError):
            await asyncio.wait_for(ask_for_ever(), PATIENCE)

    assert [SOA] == text((await service.ask()).answer)


async def test_clients_that_reset(service: Service, connections: list[TCPConnection]) -> None:
    """A client that goes away with its queries half answered costs nothing."""
    client = await service.connect()
    client.send(framed(query()) * 5000)
    await client.answer()

    client.close()

    await eventually(lambda: connections[0] not in connections[0]._connections._by_idleness, "it is forgotten")
    assert {} == connections[0]._connections._by_client
    assert [SOA] == text((await service.ask()).answer)


async def test_udp_clients_that_are_gone(service: Service) -> None:
    """An answer that nobody is there to receive, and the ICMP message that says so, harm nothing."""
    for family in LOOPBACK:
        for _ in range(5):
            service.send(query(), family).close()
        assert [SOA] == text((await service.ask(family)).answer)


@pytest.mark.parametrize(
    "message", [b"", b"\0", query()[:11], query()[:2] + b"\x80" + query()[3:], query() + bytes(4096)]
)
async def test_datagrams_without_an_answer(service: Service, message: bytes) -> None:
    """What is no query, or larger than any, is not answered, and the next is."""
    with service.send(message) as sock:
        assert [SOA] == text((await service.ask()).answer)

        with pytest.raises(BlockingIOError):
            sock.recv(1)


def answer_all(sock: Mock) -> None:
    """Answer what *sock* gives."""
    server = Nameserver(Exchange(zones()))
    drain(server.reply, server.pass_on, sock)


def test_a_batch_of_datagrams() -> None:
    """A flood over UDP lets the event loop turn after a batch."""
    sock = Mock(spec=socket.socket)
    sock.recvfrom.return_value = (query(), (CLIENT, 1024))

    answer_all(sock)

    assert udp.BATCH == sock.recvfrom.call_count == sock.sendto.call_count


def test_faults_of_the_udp_socket() -> None:
    """An error that an earlier answer came back with, or one in sending, costs no other query its answer."""
    sock = Mock(spec=socket.socket)
    good = (query(), (CLIENT, 1024))
    refused, full = OSError(errno.ECONNREFUSED, "refused"), OSError(errno.ENOBUFS, "full")
    sock.recvfrom.side_effect = [refused, good, good, BlockingIOError]
    sock.sendto.side_effect = [full, None]

    answer_all(sock)

    assert 2 == sock.sendto.call_count


def test_nobody_is_at_port_zero() -> None:
    """A query that claims to come from port 0 is not answered: no client is there, but a reflection might be."""
    sock = Mock(spec=socket.socket)
    sock.recvfrom.side_effect = [(query(), (CLIENT, 0)), BlockingIOError]

    answer_all(sock)

    sock.sendto.assert_not_called()


async def test_tcp_answers_in_one_piece() -> None:
    """An answer and its length go out in one write, so that they fit into one segment (RFC 7766, section 8)."""
    transport = Mock(spec=asyncio.Transport)
    transport.is_closing.return_value = False
    transport.get_extra_info.return_value = None
    connections = Connections()
    server = Nameserver(Exchange(zones()))
    connection = TCPConnection(server.reply, server.pass_on, connections)
    connection.connection_made(transport)

    message = framed(query())
    connection.get_buffer(-1)[: len(message)] = message
    connection.buffer_updated(len(message))

    (sent,) = transport.write.call_args.args
    assert 1 == transport.write.call_count
    assert [SOA] == text(dns.message.from_wire(sent[2:]).answer)
    connection.connection_lost(None)
    connection.connection_lost(None)


def test_connections_lost_before_they_were_made() -> None:
    """A connection that is given up before the loop came to it is no reason to stumble."""
    connection = TCPConnection(Nameserver().reply, Nameserver().pass_on, Connections())

    connection.abort()
    connection.connection_lost(None)

    assert not connection.answer()


async def test_a_fault_costs_one_answer(
    service: Service, monkeypatch: pytest.MonkeyPatch, logged: list[structlog.typing.EventDict]
) -> None:
    """A packet that brings out a fault of ours is logged, once for many, and gets SERVFAIL; nobody else notices."""
    original = Exchange.respond

    def respond(self: Exchange, packet: bytes, transport: Transport, client: str) -> bytes | Elsewhere | None:
        if packet[:2] == b"\xde\xad":
            raise ZeroDivisionError
        return original(self, packet, transport, client)

    monkeypatch.setattr(Exchange, "respond", respond)
    client = await service.connect()
    client.send(framed(query(number=0xDEAD)))
    with service.send(query(number=0xDEAD)):
        assert dns.rcode.SERVFAIL == (await client.answer()).rcode()
        assert [SOA] == text((await client.ask()).answer)
        assert [SOA] == text((await service.ask()).answer)

    assert ["unhandled exception while answering a packet"] == [event["event"] for event in logged]


async def test_values_from_the_feed(service: Service) -> None:
    """What is answered is what the feed brought."""
    message = await service.receive(service.send(query(str(ONE), "TXT")))

    assert dns.rcode.NOERROR == message.rcode()
    assert [f'{ONE.fqdn} 1 IN TXT "{VALUE}"'] == text(message.answer)


@pytest.mark.parametrize(("family", "host", "other"), [("IPv4", "0.0.0.0", "127.0.0.9"), ("IPv6", "::", "::1")])
async def test_replies_leave_from_the_address_that_was_asked(
    service: Service, family: str, host: str, other: str
) -> None:
    """A socket bound to every address answers each query from where it came to, as resolvers demand."""
    kind = socket.AF_INET6 if family == "IPv6" else socket.AF_INET
    with socket.socket(kind, socket.SOCK_DGRAM) as everywhere, socket.socket(kind, socket.SOCK_DGRAM) as client:
        for sock in (everywhere, client):
            sock.setblocking(False)
            sock.bind((host, 0))
        server = Nameserver(Exchange(zones()))
        udp.watch(server.reply, server.pass_on, everywhere)
        client.sendto(query(), (other, everywhere.getsockname()[1]))
        async with asyncio.timeout(PATIENCE):
            reply, source = await asyncio.get_running_loop().sock_recvfrom(client, 65535)
        asyncio.get_running_loop().remove_reader(everywhere)

    assert other == source[0]
    assert [SOA] == text(dns.message.from_wire(reply).answer)


def test_faults_of_a_socket_bound_everywhere() -> None:
    """What cannot be received or sent costs no other query its answer there either."""
    sock = Mock(spec=socket.socket)
    good: tuple[object, ...] = (query(), [], 0, (CLIENT, 1024))
    sock.recvmsg.side_effect = [OSError(errno.ECONNREFUSED, "refused"), good, good, BlockingIOError]
    sock.sendmsg.side_effect = [OSError(errno.ENOBUFS, "full"), None]

    server = Nameserver(Exchange(zones()))
    udp.drain_any(server.reply, server.pass_on, sock)

    assert 2 == sock.sendmsg.call_count


def test_connections_fit_the_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """With few descriptors there are few connections; with many, no more than are wanted."""
    monkeypatch.setattr("resource.getrlimit", lambda _: (64, 64))
    assert 8 == tcp.most_connections()
    monkeypatch.setattr("resource.getrlimit", lambda _: (1 << 20, 1 << 20))
    assert tcp.MAX_CONNECTIONS == tcp.most_connections()


# What the control process answers


def update(number: int = 7) -> bytes:
    """An update as somebody with a key would send it."""
    message = dns.update.UpdateMessage("acme.example.com", id=number)
    message.use_tsig(dns.tsig.Key("key.", b"secret"))
    message.add(str(ONE), 60, "TXT", VALUE)
    return message.to_wire()


def reply_to(packet: bytes, rcode: int = dns.rcode.NOERROR) -> bytes:
    return packet[:2] + bytes((packet[2] | 0x80, rcode)) + bytes(8)


@pytest.mark.parametrize("family", LOOPBACK)
async def test_update_over_udp(service: Service, family: str) -> None:
    """An update goes to the control process as it came, with where it came from; its reply goes back there."""
    sent = update()  # once, because it is signed with the time
    with service.send(sent, family) as sock:
        source = sock.getsockname()[:2]
        await eventually(lambda: service.passed_on, "it is passed on")
        ((packet, deliver),) = service.passed_on
        assert [SOA] == text((await service.ask(family)).answer)
        deliver(reply_to(sent, dns.rcode.NXRRSET))

        assert dns.rcode.NXRRSET == (await service.receive(sock)).rcode()
    assert Packet(sent, Transport.UDP, source[0], b"") == packet


@pytest.mark.parametrize(("family", "host", "other"), [("IPv4", "0.0.0.0", "127.0.0.9"), ("IPv6", "::", "::1")])
async def test_replies_to_updates_leave_from_the_address_that_was_asked(
    service: Service, family: str, host: str, other: str
) -> None:
    """Also when they took their time, and others were answered meanwhile."""
    passed_on: list[Deliver] = []
    kind = socket.AF_INET6 if family == "IPv6" else socket.AF_INET
    with socket.socket(kind, socket.SOCK_DGRAM) as everywhere, socket.socket(kind, socket.SOCK_DGRAM) as client:
        for sock in (everywhere, client):
            sock.setblocking(False)
            sock.bind((host, 0))
        server = Nameserver(Exchange(zones(), updates=True))
        udp.watch(server.reply, lambda _p, _t, _c, deliver: passed_on.append(deliver), everywhere)
        client.sendto(update(), (other, everywhere.getsockname()[1]))
        await eventually(lambda: passed_on, "it is passed on")
        passed_on[0](reply_to(update()))
        async with asyncio.timeout(PATIENCE):
            reply, source = await asyncio.get_running_loop().sock_recvfrom(client, 65535)
        asyncio.get_running_loop().remove_reader(everywhere)
    passed_on[0](reply_to(update()))  # far too late, and nobody minds

    assert other == source[0]
    assert reply_to(update()) == reply


async def test_updates_over_tcp_in_any_order(service: Service) -> None:
    """Over TCP, what is answered elsewhere holds up neither queries behind it nor other updates (RFC 7766, 6.2.1.1)."""
    client = await service.connect()
    client.send(framed(update(1)) + framed(update(2)) + framed(query(number=3)))

    assert 3 == (await client.answer()).id
    await eventually(lambda: len(service.passed_on) == 2, "both are passed on")
    for (packet, deliver), number in zip(reversed(service.passed_on), (2, 1), strict=True):
        assert Transport.TCP is packet.transport
        deliver(reply_to(update(number)))
        assert number == (await client.answer()).id


async def test_update_and_end_of_sending(service: Service) -> None:
    """A client that closes its sending side still gets the reply, and only then the end of the connection."""
    client = await service.connect()
    client.send(framed(update()))
    client.writer.write_eof()
    await eventually(lambda: service.passed_on, "it is passed on")
    assert [SOA] == text((await service.ask()).answer)

    service.passed_on[0][1](reply_to(update()))

    assert 7 == (await client.answer()).id
    assert await client.is_cut_off()


async def test_update_of_a_client_that_is_gone(service: Service, connections: list[TCPConnection]) -> None:
    """A reply that finds nobody is dropped."""
    client = await service.connect()
    client.send(framed(update()))
    await eventually(lambda: service.passed_on, "it is passed on")
    client.reset()
    await eventually(lambda: connections[0]._transport is None or connections[0]._transport.is_closing(), "it is gone")

    service.passed_on[0][1](reply_to(update()))

    assert [SOA] == text((await service.ask()).answer)


async def test_signed_query(service: Service) -> None:
    """A signed query takes the same way, with the answer that is to be signed."""
    signed = dns.message.make_query("acme.example.com", "SOA", id=7)
    plain = signed.to_wire()
    signed.use_tsig(dns.tsig.Key("key.", b"secret"))
    client = await service.connect()
    client.send(framed(signed.to_wire()))
    await eventually(lambda: service.passed_on, "it is passed on")

    ((packet, deliver),) = service.passed_on
    deliver(packet.draft)
    answer = await client.answer()

    assert [SOA] == text(answer.answer)
    client.send(framed(plain))
    assert answer == await client.answer()


async def test_signed_query_with_a_long_answer(service: Service) -> None:
    """It is as long over TCP as an answer to a query without a signature."""
    signed = dns.message.make_query(str(FULL), "TXT", id=7)
    plain = signed.to_wire()
    signed.use_tsig(dns.tsig.Key("key.", b"secret"))
    client = await service.connect()
    client.send(framed(signed.to_wire()))
    await eventually(lambda: service.passed_on, "it is passed on")

    ((packet, deliver),) = service.passed_on
    deliver(packet.draft)
    answer = await client.answer()

    client.send(framed(plain))
    assert answer == await client.answer()
    assert len(VALUES) == len(answer.answer[0])


async def test_no_control_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the control process stays away, updates get SERVFAIL, unsigned, in the end."""
    monkeypatch.setattr(relay, "DEADLINE", 0.01)
    server = Nameserver(Exchange(zones(), updates=True))
    replies: list[bytes] = []

    server.pass_on(update(), Transport.UDP, CLIENT, replies.append)

    assert [] == replies
    await eventually(lambda: replies, "it is given up")
    zone_section = update()[12 : update().index(0, 12) + 5]
    assert [update()[:2] + b"\xa8\2\0\1" + bytes(6) + zone_section] == replies


def test_a_fault_in_a_draft(monkeypatch: pytest.MonkeyPatch, logged: list[structlog.typing.EventDict]) -> None:
    """A fault of ours on that way costs one answer, too; and a draft longer than any may be is not sent."""
    server, replies = Nameserver(Exchange(zones(), updates=True)), list[bytes]()
    monkeypatch.setattr(Exchange, "draft", lambda *_: 1 // 0)
    server.pass_on(update(), Transport.UDP, CLIENT, replies.append)
    monkeypatch.setattr(Exchange, "draft", lambda *_: Draft(bytes(MAX_DRAFT + 1), [0]))
    server.pass_on(update(), Transport.UDP, CLIENT, replies.append)

    assert [reply_to(update(), dns.rcode.SERVFAIL)] * 2 == replies
    assert ["unhandled exception while answering a packet"] == [event["event"] for event in logged]
    assert ("replies", ("none", "SERVFAIL"), 2) in server.exchange.take_counts()


class Ring:
    """What only the garbage collector frees."""

    def __init__(self) -> None:
        self.itself = self


def test_collections_stay_short() -> None:
    """The garbage collector frees what is garbage, and walks what is not once only."""
    table = {number: [number] for number in range(1_000)}
    garbage = weakref.ref(Ring())
    keep_collections_short()
    try:
        gc.collect()
        walked = gc.get_objects()
    finally:
        gc.callbacks.pop()
        gc.unfreeze()

    assert garbage() is None
    assert {id(each) for each in table.values()}.isdisjoint(map(id, walked))
    assert {id(each) for each in table.values()} <= set(map(id, gc.get_objects()))
