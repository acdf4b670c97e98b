"""
Hostile clients against a real nameserver process: whatever they send, others are served.

After each attack the process lives, answers a well-behaved client elsewhere, has no more memory than before but for a
fixed allowance, and has logged neither a traceback nor more than a few lines. Nothing here measures time.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import resource
import select
import socket
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import pytest
import structlog

from responder.dns.cookies import Cookies
from responder.dns.exchange import Exchange
from responder.dns.identity import Identity
from responder.dns.ratelimit import RateLimit
from responder.dns.wire import TCP_CEILING, UDP_CEILING, Transport
from responder.dns.zone import Zones
from responder.nameserver.server import Nameserver
from responder.nameserver.tcp import MAX_CONNECTIONS, MAX_CONNECTIONS_PER_CLIENT
from responder.nameserver.udp import MAX_QUERY
from tests.support import nameservers
from tests.support.nameservers import frame, new_source, opt, packet, receive, resolve, running
from tests.support.processes import PATIENCE, wait_until
from tests.support.zones import APEX, CLIENT, challenge, made, zones

ALLOWANCE = 32 << 20
"""Octets that an attack may leave behind in the nameserver's memory: buffers, tables with a ceiling, fragments."""

LOG_ALLOWANCE = 4096
"""Octets that an attack may add to the log: a few lines."""

BATCH = 25
"""
Datagrams sent before asking whether they were all taken: few enough that none is lost in the socket's buffer. As Linux
comes, that one has room for 50 of `MAX_QUERY` octets.
"""

FLOOD = 20_000


@pytest.fixture(scope="module")
def nameserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[nameservers.Nameserver]:
    """One nameserver for all attacks: what an earlier one left behind meets the later ones."""
    with running(tmp_path_factory.mktemp("nameserver")) as started:
        yield started


@pytest.fixture
def attacked(nameserver: nameservers.Nameserver) -> Iterator[nameservers.Nameserver]:
    """The nameserver, which is examined when the attack is over."""
    resolve(nameserver)
    memory, logged = nameserver.resident(), nameserver.log.stat().st_size
    yield nameserver
    expect_good_service(nameserver)
    assert nameserver.resident() <= memory + ALLOWANCE
    assert nameserver.log.stat().st_size <= logged + LOG_ALLOWANCE
    assert b"Traceback" not in nameserver.log.read_bytes()


def expect_good_service(nameserver: nameservers.Nameserver) -> None:
    """It lives, and answers a client that has nothing to do with the attack: positive, NODATA, NXDOMAIN, over TCP."""
    assert nameserver.is_alive()
    assert 1 == len(resolve(nameserver).answer)
    assert 1 == len(resolve(nameserver, str(challenge("two")), "TXT").answer)
    assert dns.rcode.NOERROR == resolve(nameserver, str(challenge("none")), "TXT").rcode()
    assert dns.rcode.NXDOMAIN == resolve(nameserver, "nope.acme.example.com", "TXT").rcode()
    assert 6 == len(resolve(nameserver, "big.acme.example.com", "TXT").answer[0][0].strings)


def flood(nameserver: nameservers.Nameserver, datagrams: Iterable[bytes]) -> list[bytes]:
    """Send all *datagrams* from one address, and see to it that each is taken. Returns the replies."""
    replies: list[bytes] = []
    with socket.socket(type=socket.SOCK_DGRAM) as attacker:
        attacker.bind((new_source(), 0))
        attacker.connect(nameserver.address)
        attacker.setblocking(False)
        remaining = iter(datagrams)
        while batch := list(itertools.islice(remaining, BATCH)):
            for datagram in batch:
                attacker.send(datagram)
            expect_answer_behind_them(nameserver)
            with contextlib.suppress(BlockingIOError):
                while True:
                    replies.append(attacker.recv(65_535))
    return replies


def expect_answer_behind_them(nameserver: nameservers.Nameserver) -> None:
    """Wait for an answer to somebody else: the socket is first in, first out, so all datagrams before were taken."""
    with socket.socket(type=socket.SOCK_DGRAM) as bystander:
        bystander.bind((new_source(), 0))
        bystander.connect(nameserver.address)
        for _ in range(10):
            bystander.send(packet())
            if select.select([bystander], [], [], 2.0)[0]:
                bystander.recv(512)
                return
    raise AssertionError("a bystander is not answered")


def send_all(nameserver: nameservers.Nameserver, message: bytes, times: int) -> list[bytes | None]:
    """Send *message* over TCP, again and again, each time after the answer. Returns the answers until it hung up."""
    replies: list[bytes | None] = []
    with nameserver.connect(new_source()) as connection:
        for _ in range(times):
            connection.sendall(frame(message))
            replies.append(receive(connection))
            if replies[-1] is None:
                break
    return replies


def many_questions(count: int) -> bytes:
    """*count* questions, each for the name of the one before: a parser that follows pointers takes count² steps."""
    body, at = b"\1a\0" + struct.pack("!HH", 6, 1), 12
    for _ in range(count - 1):
        body += struct.pack("!HHH", 0xC000 | at, 6, 1)
        at = min(12 + len(body) - 6, 0x3FFF)
    return struct.pack("!HHHHHH", 0x1234, 0, count, 0, 0, 0) + body


def pointers(count: int) -> bytes:
    """A name of pointers that each point to the one before it, and the first to itself."""
    return b"".join(struct.pack("!H", 0xC000 | min(12 + 2 * max(n - 1, 0), 0x3FFF)) for n in range(count))


def options(count: int, data: bytes = b"") -> bytes:
    """An OPT with *count* options."""
    return opt(b"".join(struct.pack("!HH", n % 65_536, len(data)) + data for n in range(count)))


TSIG = (
    b"\3key\0" + struct.pack("!HHIH", 250, 255, 0, 60) + b"\x0bhmac-sha256\0" + bytes(6) + b"\1\x2c\0\x20" + bytes(37)
)


def update(counts: tuple[int, int, int], records: bytes) -> bytes:
    """An update with as many of *records* as a datagram may hold and, if there is room, something like a signature."""
    body = records * min(sum(counts), (MAX_QUERY - len(packet()) - len(TSIG)) // len(records))
    return packet(flags=0x2800, counts=(1, *counts), rest=body + TSIG)


LONGEST = b"".join(b"\x3f" + bytes((97 + n,)) * 63 for n in range(3)) + b"\x2c" + b"x" * 44 + APEX.wire
MOST_LABELS = b"\1a" * ((255 - len(APEX.wire)) // 2) + APEX.wire

BOMBS = {
    "680 questions": many_questions(680),
    "pointers": packet(pointers(2000)),
    "pointer behind labels": packet(b"\1a" * 120 + b"\xc0\x0c"),
    "pointer in the additional section": packet(counts=(1, 0, 0, 1), rest=b"\xc0\x0c" + opt()[1:]),
    "1,000 options": packet(counts=(1, 0, 0, 1), rest=options(1000)),
    "1,000 cookies": packet(counts=(1, 0, 0, 1), rest=opt(b"\0\x0a\0\0" * 1000)),
    "65,535 of all": packet(counts=(65_535,) * 4, rest=opt() * 300),
    "65,535 additional": packet(counts=(1, 0, 0, 65_535), rest=opt() * 300),
    "most labels": packet(MOST_LABELS),
    "longest name": packet(LONGEST),
    "labels that never end": packet(b"\1a" * 2000),
    "update of 65,535 of all": update((65_535,) * 3, b"\xc0\x0c" + opt()[1:]),
    "update of 270 records": update((100, 100, 71), b"\xc0\x0c" + opt()[1:]),
    "update with pointers": update((0, 1, 1), pointers(1000)),
    "update with half a signature": update((0, 0, 1), TSIG[:-1]),
    "update with all of a signature": update((0, 0, 1), TSIG),
    "signed query": packet(counts=(1, 0, 0, 1), rest=TSIG),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a1_parse_bombs_over_udp(attacked: nameservers.Nameserver, bomb: bytes) -> None:
    """A1: packets that are small to send and dear to parse get an answer no longer than any other."""
    replies = flood(attacked, [bomb] * 400)

    assert replies
    assert {bomb[:2]} == {reply[:2] for reply in replies}
    assert all(len(reply) <= max(len(bomb), 512) for reply in replies)


@pytest.mark.parametrize(
    "bomb",
    [
        many_questions(10_919),
        packet(pointers(32_000)),
        packet(counts=(1, 0, 0, 1), rest=options(16_000)),
        packet(counts=(1, 0, 0, 1), rest=opt(struct.pack("!HH", 10, 65_000) + b"c" * 65_000)),
        packet(counts=(1, 65_535, 65_535, 65_535), rest=opt() * 5900),
        packet(rest=b"x" * 65_000),
        packet(flags=0x2800, counts=(1, 0, 5000, 1), rest=(b"\xc0\x0c" + opt()[1:]) * 5000 + TSIG),
    ],
    ids=["questions", "pointers", "options", "cookie", "records", "trailer", "update"],
)
def test_a1_parse_bombs_over_tcp(attacked: nameservers.Nameserver, bomb: bytes) -> None:
    """A1: neither do the longest messages that TCP can carry."""
    assert 60_000 < len(bomb) <= TCP_CEILING

    replies = send_all(attacked, bomb, 20)

    assert 20 == len(replies)
    assert all(reply is not None and bomb[:2] == reply[:2] and len(reply) < 512 for reply in replies)


def test_a1_overlong_datagrams(attacked: nameservers.Nameserver) -> None:
    """A1: a datagram that no real query is as long as gets no answer; one octet less gets one."""
    fits = packet(rest=b"x" * (MAX_QUERY - len(packet())))

    assert 200 == len(flood(attacked, [fits] * 200))
    assert [] == flood(attacked, [fits + b"x", packet(rest=b"x" * 60_000)] * 100)


@pytest.mark.parametrize("transport", Transport)
def test_a1_different_opts_do_not_fill_memory(attacked: nameservers.Nameserver, transport: Transport) -> None:
    """A1: what is remembered of OPT records to save time is small, however long and different they are."""
    size = 4000 if transport is Transport.UDP else 65_000
    padded = (
        packet(counts=(1, 0, 0, 1), rest=opt(struct.pack("!HH", 65_001, size) + n.to_bytes(4, "big") * (size // 4)))
        for n in range(4000 if transport is Transport.UDP else 1000)
    )
    if transport is Transport.UDP:
        flood(attacked, padded)
        return
    with attacked.connect(new_source()) as connection:
        for message in padded:
            connection.sendall(frame(message))
            assert receive(connection) is not None


def test_a1_different_cookies_do_not_fill_memory() -> None:
    """A1: nor does what is remembered of cookies, over TCP where they may come with 64 KiB around them."""
    served = Exchange(zones(), cookies=Cookies((b"k" * 16,), lambda: 1000))
    for n in range(200):
        padding = struct.pack("!HHQH", 10, 8, n, 65_001) + struct.pack("!H", 65_000) + b"x" * 65_000
        served.respond(packet(counts=(1, 0, 0, 1), rest=opt(padding)), Transport.TCP, CLIENT)

    assert sum(len(tail) for _, tail in served._cookie_opts) < 1 << 20


def garbage(count: int, seed: int) -> Iterator[bytes]:
    """Half of it noise, half of it good queries with some octets changed."""
    chance = random.Random(seed)
    good = [packet(), packet(LONGEST, 16), packet(counts=(1, 0, 0, 1), rest=options(3, b"12345678")), *BOMBS.values()]
    for n in range(count):
        if n % 2:
            yield chance.randbytes(chance.randrange(1, 200))
            continue
        octets = bytearray(chance.choice(good)[:600])
        for _ in range(chance.randrange(1, 6)):
            octets[chance.randrange(len(octets))] = chance.randrange(256)
        yield bytes(octets)


def test_a3_garbage_over_udp(attacked: nameservers.Nameserver) -> None:
    """A2, A3: a flood of garbage; what is answered at all is answered with a response."""
    replies = flood(attacked, garbage(FLOOD, 1))

    assert replies
    assert all(len(reply) >= 12 and reply[2] & 0x80 for reply in replies)


def test_a3_garbage_over_tcp(attacked: nameservers.Nameserver) -> None:
    """A2, A3: the same over TCP; a message that deserves no answer ends its connection."""
    source = new_source()
    for message in garbage(1000, 2):
        with attacked.connect(source) as connection:
            connection.sendall(frame(message))
            reply = receive(connection)
            assert (reply is None) == (len(message) < 12 or bool(message[2] & 0x80))


def test_a3_unframed_garbage_over_tcp(attacked: nameservers.Nameserver) -> None:
    """A2, A3: and without even a length in front; half of the clients do not wait for what comes of it."""
    source = new_source()
    for n, message in enumerate(garbage(1000, 3)):
        with attacked.connect(source) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(message)
            if n % 2:
                connection.shutdown(socket.SHUT_WR)
                receive(connection)


def test_a3_every_type_class_and_opcode(attacked: nameservers.Nameserver) -> None:
    """A3: every type there can be, each with one of all classes and opcodes, and an OPT or none."""
    chance = random.Random(3)
    queries = (
        struct.pack("!HHHHHH", rrtype, chance.randrange(16) << 11 if rrtype % 5 == 0 else 0, 1, 0, 0, rrtype % 2)
        + APEX.wire
        + struct.pack("!HH", rrtype, chance.choice([0, 1, 1, 1, 3, 4, 254, 255, chance.randrange(65_536)]))
        + (opt(flags=chance.choice([0, 0x8000])) if rrtype % 2 else b"")
        for rrtype in range(0, 65_536, 3)
    )

    assert flood(attacked, queries)


def test_a4_amplification() -> None:
    """
    A4: a second of queries in a victim's name makes fewer octets than they had, with a limit; without, 1,232 for each.

    The clock stands: it is one and the same second.
    """
    limit = RateLimit(per_second=500, slip=2, exempt=(), clock=lambda: 1.0)
    served = Exchange(zones(), limit=limit)
    queries = [packet(ident=n, counts=(1, 0, 0, 1), rest=opt(size=4096)) for n in range(20_000)]

    replies = [served.respond(query, Transport.UDP, CLIENT) for query in queries]

    sent = [made(reply) for reply in replies if reply is not None]
    assert all(len(reply) <= UDP_CEILING for reply in sent)
    assert 500 == sum(not reply[2] & 0x02 for reply in sent)
    assert sum(map(len, sent)) < sum(map(len, queries))


@pytest.mark.parametrize("signature", [TSIG, b""], ids=["forged", "none"])
def test_a14_updates_that_are_not_signed(attacked: nameservers.Nameserver, signature: bytes) -> None:
    """
    A14: a flood of updates, forged or not signed at all, over UDP and TCP.

    Nobody answers behind this nameserver, so each that is passed on waits for its time to run out; few are.
    """
    forged = [packet(ident=n, flags=0x2800, counts=(1, 0, 0, bool(signature)), rest=signature) for n in range(5000)]

    replies = flood(attacked, forged)

    assert {dns.rcode.SERVFAIL if signature else dns.rcode.REFUSED} == {reply[3] & 0xF for reply in replies}
    assert all(len(reply) <= len(packet()) for reply in replies)
    with attacked.connect(new_source()) as connection:
        connection.sendall(b"".join(map(frame, [*forged[:200], packet(ident=7)])))
        answered = {(receive(connection) or b"")[:2] for _ in range(201)}
    assert {message[:2] for message in forged[:200]} | {b"\0\7"} == answered


QUESTIONS = [
    packet(),
    packet(challenge("two").wire, 16),
    packet(b"\4nope" + APEX.wire, 16),
    packet(b"\3org\0"),
    packet(rrtype=252),
    packet(rrtype=128),
    packet(counts=(1, 0, 0, 1), rest=opt()),
    packet(counts=(1, 0, 0, 1), rest=opt(version=1)),
    packet(counts=(2, 0, 0, 0)),
    packet(flags=0x2400),
    packet(flags=0x7800),
    packet(b"\3big" + APEX.wire, 16),
]


def test_a5_loops(attacked: nameservers.Nameserver) -> None:
    """A5: our own replies, sent back to us by another server, end in silence: whatever they said."""
    replies = flood(attacked, QUESTIONS)

    assert len(QUESTIONS) == len(replies)
    assert [] == flood(attacked, replies * 100)


def test_a5_loops_over_tcp(attacked: nameservers.Nameserver) -> None:
    """A5: over TCP, too; and the connection is closed."""
    for question in QUESTIONS:
        (reply,) = send_all(attacked, question, 1)
        assert isinstance(reply, bytes)
        assert [None] == send_all(attacked, reply, 1)


def random_names(count: int, label: int, labels: int = 1) -> Iterator[bytes]:
    """Queries for names in the zone that are all different: *labels* labels of *label* random octets in front."""
    chance = random.Random(label)
    for n in range(count):
        name = b"".join(bytes((label,)) + chance.randbytes(label) for _ in range(labels))
        yield packet(name + APEX.wire, 16, ident=n % 65_536, counts=(1, 0, 0, n % 2), rest=opt() if n % 2 else b"")


def test_a6_random_names(attacked: nameservers.Nameserver) -> None:
    """A6: a flood of names that do not exist leaves nothing behind: nothing is remembered of them."""
    replies = flood(attacked, random_names(FLOOD, 12))

    assert {dns.rcode.NXDOMAIN} == {reply[3] & 0xF for reply in replies}


def test_a6_long_random_names(attacked: nameservers.Nameserver) -> None:
    """A6: neither does one of the longest names there can be."""
    assert 255 == len(LONGEST)

    replies = flood(attacked, random_names(FLOOD, 58, 4))

    assert {dns.rcode.NXDOMAIN} == {reply[3] & 0xF for reply in replies}


def test_a7_idle_connections_from_one_address(attacked: nameservers.Nameserver) -> None:
    """A7: 300 idle connections of one client: it has only so many, and others never notice."""
    source, files = new_source(), attacked.open_files()
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(attacked.connect(source))
        expect_good_service(attacked)
        assert attacked.open_files() <= files + MAX_CONNECTIONS_PER_CLIENT + 5


def test_a7_idle_connections_from_everywhere(attacked: nameservers.Nameserver) -> None:
    """A7: 10,000 idle connections from 250 clients: only so many are kept, and a newcomer still gets its turn."""
    with contextlib.ExitStack() as stack:
        count = min(10_000, raise_open_files(stack) - 500)
        sources = [new_source() for _ in range(250)]
        files = attacked.open_files()
        for n in range(count):
            connection = stack.enter_context(attacked.connect(sources[n % 250]))
            if n % 50 == 0:  # one in fifty says something, and only goes on when the server has caught up
                connection.sendall(frame(packet()))
                assert receive(connection) is not None
        expect_good_service(attacked)
        assert attacked.open_files() <= files + MAX_CONNECTIONS + 100  # those accepted and not yet looked at


def raise_open_files(stack: contextlib.ExitStack) -> int:
    """Let this process have as many open files as it may, until *stack* is closed; returns how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else 1 << 20


BEGUN = (b"", b"\0", b"\xff\xff", b"\xff\xff" + b"x" * 65_534, frame(packet())[:-1], frame(packet()) + b"\0")


def test_a7_slowloris(attacked: nameservers.Nameserver) -> None:
    """A7: who begins a message and does not finish it is hung up on, whether or not it sends another octet at times."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(attacked.connect(new_source())) for _ in range(20 * len(BEGUN))]
        for client, begun in zip(clients, itertools.cycle(BEGUN), strict=False):
            client.sendall(begun)
            if begun.startswith(frame(packet())):
                assert receive(client) is not None
        expect_good_service(attacked)
        waiting = set(clients)
        for _ in range(10 * int(PATIENCE)):
            if not waiting:
                break
            waiting -= set(select.select(list(waiting), [], [], 0.1)[0])
            for client in waiting & set(clients[2::6]):  # these drop an octet now and then
                with contextlib.suppress(ConnectionError):
                    client.send(b"x")

        assert set() == waiting
        assert [None] * len(clients) == [receive(client) for client in clients]


BIG = frame(packet(b"\3big" + APEX.wire, 16))
"""A query for the longest answer there is."""


def test_a7_clients_that_never_read(attacked: nameservers.Nameserver) -> None:
    """A7: who does not read its answers, of which the kernel cannot take all, is hung up on before they are made."""
    files = attacked.open_files()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(attacked.connect(new_source(), receive_buffer=4096)) for _ in range(20)]
        for client in clients:
            with contextlib.suppress(ConnectionError):
                client.sendall(BIG * 6000)
            expect_answer_behind_them(attacked)
        expect_good_service(attacked)
        wait_until(lambda: attacked.open_files() <= files + 5, "nobody is left")

        assert all(count_messages(client) < 6000 for client in clients)


def test_a7_nothing_is_kept_for_clients_that_never_read(attacked: nameservers.Nameserver) -> None:
    """A7: what the kernel does take is given up with the connection, not held for minutes in a socket without owner."""
    source = new_source()
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(attacked.connect(source, receive_buffer=4096))
        client.sendall(BIG * 150)
        for _ in range(10):
            expect_good_service(attacked)
        for _ in range(MAX_CONNECTIONS_PER_CLIENT):  # it has to go for these
            stack.enter_context(attacked.connect(source))
        expect_good_service(attacked)

        assert 0 == attacked.orphans()


def count_messages(connection: socket.socket) -> int:
    """How many messages there are until the end."""
    for count in itertools.count():
        if receive(connection) is None:
            return count
    raise AssertionError


def test_a7_pipelined_queries_of_a_fast_reader(attacked: nameservers.Nameserver) -> None:
    """A7: who does read gets an answer to every one of thousands of queries in one go, in order."""
    queries = [packet(ident=n) for n in range(5000)]
    with attacked.connect(new_source()) as connection:
        replies = []
        for at in range(0, len(queries), 500):
            connection.sendall(b"".join(map(frame, queries[at : at + 500])))
            replies += [receive(connection) for _ in range(500)]

    assert [query[:2] for query in queries] == [reply and reply[:2] for reply in replies]


def test_a7_connections_reset_at_once(attacked: nameservers.Nameserver) -> None:
    """A7: connections that are reset before, while and after they are accepted."""
    linger = struct.pack("ii", 1, 0)
    files = attacked.open_files()
    for n in range(2000):
        with attacked.connect(new_source()) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            if n % 2:
                connection.sendall(frame(packet()))
            if n % 50 == 1:
                assert receive(connection) is not None

    with attacked.connect(new_source()) as connection:  # accepted after all of those
        connection.sendall(frame(packet()))
        assert receive(connection) is not None
    wait_until(lambda: attacked.open_files() <= files + 5, "all descriptors are given back")


def test_a8_few_descriptors(tmp_path: Path) -> None:
    """A8: with 64 descriptors, more clients than that: UDP is answered, TCP again as soon as there is room."""
    with running(tmp_path, max_files=64) as nameserver:
        with contextlib.ExitStack() as stack:
            for _ in range(200):
                stack.enter_context(nameserver.connect(new_source()))
            for _ in range(50):
                expect_answer_behind_them(nameserver)
            assert nameserver.is_alive()
        expect_good_service(nameserver)
        assert nameserver.log.stat().st_size <= LOG_ALLOWANCE


def test_a9_clients_that_are_gone(attacked: nameservers.Nameserver) -> None:
    """A9: 10,000 clients whose socket is closed before the answer comes: ICMP errors hurt nobody."""
    for n in range(10_000):
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.sendto(packet(), attacked.address)
        if n % BATCH == 0:
            expect_answer_behind_them(attacked)


def test_a12_a_name_that_holds_all_it_may(tmp_path: Path) -> None:
    """A12: 16 values of 255 characters are served whole over TCP, and cut over UDP."""
    values = tuple(chr(97 + n) * 255 for n in range(16))
    with running(tmp_path, {challenge("full"): values}) as nameserver:
        (cut,) = flood(nameserver, [packet(challenge("full").wire, 16, counts=(1, 0, 0, 1), rest=opt(size=65_535))])
        reply = resolve(nameserver, str(challenge("full")), "TXT")

    assert cut[2] & 0x02
    assert len(cut) < 100
    assert sorted(values) == sorted(rdata.strings[0].decode() for rdata in reply.answer[0])


def test_a13_nothing_is_mixed_up() -> None:
    """
    A13: one exchange asked everything in turn answers each question as a new one does that has heard of no other.

    With and without OPT, DO, NSID and cookies, small and large, over UDP and TCP, in any letter case.
    """
    chance = random.Random(13)
    tails = [(0, b"")] + [
        (1, opt(data, size=size, flags=flags))
        for data in (b"", b"\0\3\0\0", b"\0\x0b\0\0", b"\0\x0f\0\2\0\1")
        for size in (0, 512, 1232, 65_535)
        for flags in (0, 0x8000, 0x4000)
    ]
    names = [APEX.wire, challenge("two").wire, challenge("none").wire, b"\3big" + APEX.wire, b"\1x" + APEX.wire, b"\0"]
    identity = Identity(nsid="ns1")
    asked = Exchange(zones(), identity=identity)

    for n in range(3000):
        name, (arcount, tail) = chance.choice(names), chance.choice(tails)
        mixed = bytes(octet ^ 32 if 97 <= octet <= 122 and chance.random() < 0.5 else octet for octet in name)
        flags = chance.choice([0, 0x0100, 0x0010])
        query = packet(
            mixed, chance.choice([1, 6, 16, 255]), ident=n, flags=flags, counts=(1, 0, 0, arcount), rest=tail
        )
        transport = chance.choice(list(Transport))
        fresh = Exchange(asked.zones, identity=identity)

        assert fresh.respond(query, transport, CLIENT) == asked.respond(query, transport, CLIENT)


UGLY = b"\x1b[2J\r\n\"'\\\x00\x07\xff{}%s$(id)<b>"


def test_a20_names_that_would_do_something_to_a_log(attacked: nameservers.Nameserver) -> None:
    """A20: escape sequences, line ends and quotes in a name never come into the log."""
    replies = flood(attacked, [packet(bytes((len(UGLY),)) + UGLY + APEX.wire, 16)] * 100)

    assert {dns.rcode.NXDOMAIN} == {reply[3] & 0xF for reply in replies}
    assert b"\x1b[2J" not in attacked.log.read_bytes()


class Faulty(Exchange):
    """An exchange with a fault of its own."""

    def respond(self, packet: bytes, transport: Transport, client: str) -> bytes | None:
        raise RuntimeError("a fault")


def test_a20_a_fault_does_not_repeat_what_came(capsys: pytest.CaptureFixture[str]) -> None:
    """A20: the packet that brought out a fault is logged in hex, at most its first 512 octets."""
    server = Nameserver(Faulty(Zones()))

    reply = server.reply(packet(bytes((len(UGLY),)) + UGLY + APEX.wire) + b"z" * 4000, Transport.UDP, CLIENT)

    assert b"\x80\x02" + bytes(8) == made(reply)[2:]  # SERVFAIL, and nothing else
    assert server.reply(b"short", Transport.UDP, CLIENT) is None
    logged = "".join(capsys.readouterr())
    assert "\x1b[2J" not in logged
    assert "\x07" not in logged
    assert len(logged) < 16_384


def test_a20_faults_do_not_flood_the_log() -> None:
    """A20: a fault that every packet of a flood brings out is reported a few times, not for each."""
    server = Nameserver(Faulty(Zones()))
    with structlog.testing.capture_logs() as logged:
        for n in range(10_000):
            server.reply(packet(ident=n), Transport.UDP, CLIENT)

    assert 1 <= len(logged) <= 100
