"""
A real nameserver process on loopback sockets, serving the zone of `tests.zones`, and clients of every kind for it.

Every client may come from an address of its own: all of 127.0.0.0/8 is this machine.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import dns.exception
import dns.flags
import dns.message
import dns.query

from responder import feed
from responder.config.settings import DnsSettings
from responder.dns.counts import Count, parse_counts
from responder.dns.wire import Rcode, header_only
from responder.dns.zone import Change, Static
from responder.feed.frames import Check, PacketReply
from responder.names import Name
from responder.process import lifeline
from responder.process.lifeline import Message, Word
from responder.process.listeners import TCP_BACKLOG, UDP_RECEIVE_BUFFER
from tests.support.processes import PATIENCE, is_alive
from tests.support.zones import APEX, SERIAL, VALUE, challenge, static

Names = dict[Name, tuple[str, ...] | None]

NAMES: Names = {challenge("two"): (VALUE,), challenge("none"): ()}


@dataclass(frozen=True, slots=True)
class Nameserver:
    """The process, and what can be seen of it from outside."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    control: Control

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def is_alive(self) -> bool:
        return is_alive(self.process.pid)

    def resident(self) -> int:
        """Octets of memory in use."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def open_files(self) -> int:
        """How many descriptors it has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def orphans(self) -> int:
        """How many TCP sockets it has closed that still hold octets to send: the kernel tries for minutes."""
        local, lines = f":{self.port:04X}", Path("/proc/net/tcp").read_text().splitlines()[1:]
        fin_wait_1 = [line for line in map(str.split, lines) if line[1].endswith(local) and line[3] == "04"]
        return sum(not line[4].startswith("00000000:") for line in fin_wait_1)

    def connect(self, source: str = "127.0.0.1", *, receive_buffer: int = 0) -> socket.socket:
        """A TCP connection from the address *source*; its end of it has room for so many octets, if that is given."""
        connection = socket.socket()
        try:
            if receive_buffer:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            connection.settimeout(PATIENCE)
            connection.bind((source, 0))
            connection.connect(self.address)
        except BaseException:
            connection.close()
            raise
        return connection


@contextmanager
def running(
    directory: Path, names: Names = NAMES, *, statics: Iterable[Static] = (), max_files: int | None = None
) -> Iterator[Nameserver]:
    """
    A nameserver that is ready, for *statics* or the zone of `tests.support.zones`. It may have *max_files* descriptors.
    Its messages are in a file in *directory*.
    """
    limit = ["sh", "-c", f'ulimit -n {max_files}; exec "$@"', "sh"] if max_files else []
    log = directory / "log"
    with contextlib.ExitStack() as stack:
        udp, tcp = (stack.enter_context(sock) for sock in _sockets())
        stderr = stack.enter_context(log.open("wb"))
        process, supervisor, feed_end = start(stack, udp, tcp, DnsSettings(), before=limit, stderr=stderr)
        control = Control(feed_end, statics or (static(),), names)
        threading.Thread(target=control.attend, daemon=True).start()
        stack.callback(control.end)
        wait_until_it_answers(supervisor, PATIENCE)
        yield Nameserver(process, udp.getsockname()[1], log, control)


def start(
    stack: contextlib.ExitStack,
    udp: socket.socket,
    tcp: socket.socket,
    settings: DnsSettings,
    *,
    before: Sequence[str] = (),
    stderr: IO[bytes] | None = None,
) -> tuple[subprocess.Popen[bytes], socket.socket, socket.socket]:
    """
    A nameserver process that is to answer on these sockets, killed when *stack* unwinds; the supervisor's end of its
    lifeline, and the control process's end of its feed. *before* stands in front of its command.
    """
    ours, theirs = (stack.enter_context(sock) for sock in lifeline.pair())
    control, feed_end = socket.socketpair()
    orders = {
        "sockets": {"udp 1": [udp.fileno()], "tcp": [tcp.fileno()]},
        "log": {"level": "info", "format": "json"},
        "dns": settings.model_dump(mode="json"),
        "user": "",
    }
    lifeline.send_orders(ours, orders)
    with feed_end:
        lifeline.send(ours, Message(Word.FEED, os.getpid(), feed_end.fileno()))
    lifeline.send(ours, Message(Word.SERVE, 1))
    process = subprocess.Popen(
        [*before, sys.executable, "-P", "-m", "responder.nameserver"],
        stdin=theirs.fileno(),
        stderr=stderr,
        pass_fds=[udp.fileno(), tcp.fileno()],
    )
    theirs.close()
    stack.callback(process.wait, PATIENCE)
    stack.callback(process.kill)
    return process, ours, control


def wait_until_it_answers(supervisor: socket.socket, seconds: float) -> None:
    """Wait for what a nameserver tells its *supervisor*: that it could answer, and that it does."""
    supervisor.settimeout(seconds)
    for expected in ("prepared 0", "alive 0", "alive 1"):
        assert expected.encode() == supervisor.recv(64)


def _sockets() -> tuple[socket.socket, socket.socket]:
    """UDP and TCP on one free port of all loopback addresses, as the supervisor makes them."""
    while True:
        udp, tcp = socket.socket(type=socket.SOCK_DGRAM), socket.socket()
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UDP_RECEIVE_BUFFER)
        udp.bind(("127.0.0.1", 0))
        try:
            tcp.bind(udp.getsockname())
        except OSError:  # somebody else's TCP port
            udp.close()
            tcp.close()
            continue
        tcp.listen(TCP_BACKLOG)
        udp.setblocking(False)
        tcp.setblocking(False)
        return udp, tcp


class Control:
    """The control process as a nameserver sees it: one snapshot, then nothing changes, and all passed on fails."""

    def __init__(self, peer: socket.socket, statics: Iterable[Static], names: Names) -> None:
        self._peer = peer
        self._statics = tuple(statics)
        self._change = Change(apex=APEX, previous=0, serial=SERIAL, names=names)
        self._numbers = itertools.count(1)
        self._heard = threading.Condition()
        self._acknowledged = 0
        self._counts: list[Count] = []
        self.sandbox: dict[str, object] = {}

    def check(self) -> list[Count]:
        """Have the nameserver report what it counted, as the control process reads that."""
        with self._heard:
            number = self._send(Check())
            assert self._heard.wait_for(lambda: self._acknowledged >= number, PATIENCE), "it does not acknowledge"
            taken, self._counts = self._counts, []
            return taken

    def end(self) -> None:
        """Hang up, if the nameserver has not done so."""
        with contextlib.suppress(OSError):
            self._peer.shutdown(socket.SHUT_RDWR)

    def attend(self) -> None:
        """Serve the nameserver, as long as it is there."""
        with contextlib.suppress(OSError), self._peer, self._peer.makefile("rb") as incoming:
            for item in (feed.Begin(self._statics), self._change, feed.End()):
                self._send(item)
            while head := incoming.read(4):
                self._hear(json.loads(incoming.read(int.from_bytes(head, "big"))))

    def _hear(self, message: dict[str, Any]) -> None:
        with self._heard:
            self.sandbox = message.get("sandbox", self.sandbox)
            self._acknowledged = message.get("ack", self._acknowledged)
            if "counts" in message:
                self._counts += parse_counts(message["counts"], {str(static.apex) for static in self._statics})
            if "packet" in message:
                refusal = header_only(bytes.fromhex(message["octets"]), Rcode.SERVFAIL)
                self._send(PacketReply(message["packet"], refusal))
            self._heard.notify_all()

    def _send(self, frame: feed.Frame) -> int:
        number = next(self._numbers)
        self._peer.sendall(feed.render_frame(number, frame))
        return number


_sources = (f"127.{a}.{b}.1" for a, b in itertools.cycle(itertools.product(range(100, 128), range(256))))


def new_source() -> str:
    """A client address in a network that nobody else is in: what others do there is not held against it."""
    return next(_sources)


def resolve(
    nameserver: Nameserver, name: str = "acme.example.com", rrtype: str = "SOA", *, tries: int = 8
) -> dns.message.Message:
    """Ask as a resolver does: over UDP until there is an answer, over TCP if that is cut. Fails if there never is."""
    query = dns.message.make_query(name, rrtype, use_edns=0)
    source = new_source()
    for _ in range(tries):
        with contextlib.suppress(dns.exception.Timeout):
            reply = dns.query.udp(query, "127.0.0.1", 2.0, nameserver.port, source, ignore_unexpected=True)
            if reply.flags & dns.flags.TC:
                reply = dns.query.tcp(query, "127.0.0.1", PATIENCE, nameserver.port, source)
            return reply
    raise AssertionError(f"{name} {rrtype} was asked {tries} times and never answered")


def frame(message: bytes) -> bytes:
    """*message* as it goes over TCP."""
    return len(message).to_bytes(2, "big") + message


def receive(connection: socket.socket) -> bytes | None:
    """The next message of a TCP connection; None if it was closed instead."""
    with contextlib.suppress(ConnectionError):
        head = _receive(connection, 2)
        return _receive(connection, int.from_bytes(head, "big")) if head is not None else None
    return None


def _receive(connection: socket.socket, count: int) -> bytes | None:
    data = bytearray()
    while len(data) < count:
        chunk = connection.recv(count - len(data))
        if not chunk:
            return None
        data += chunk
    return bytes(data)


def packet(
    qname: bytes = APEX.wire,
    rrtype: int = 6,
    *,
    ident: int = 0x1234,
    flags: int = 0,
    counts: tuple[int, int, int, int] = (1, 0, 0, 0),
    rest: bytes = b"",
) -> bytes:
    """A query in wire form."""
    return struct.pack("!HHHHHH", ident, flags, *counts) + qname + struct.pack("!HH", rrtype, 1) + rest


def opt(options: bytes = b"", *, size: int = 1232, version: int = 0, flags: int = 0) -> bytes:
    """An OPT record in wire form."""
    return b"\0" + struct.pack("!HHBBHH", 41, size, 0, version, flags, len(options)) + options
