"""
One question to one server: asked as often as a resolver would, and waited for no longer. dnspython does the packets.

What an answer means is none of its business; see the modules that ask.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address
from typing import TypeVar

import dns.asyncbackend
import dns.asyncquery
import dns.edns
import dns.exception
import dns.flags
import dns.inet
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdatatype
from dns.rdtypes.ANY.CNAME import CNAME
from dns.rdtypes.ANY.TXT import TXT
from dns.rrset import RRset

from responder.addresses import Address as Address
from responder.dns.wire import Transport
from responder.names import Name

T = TypeVar("T")
Rdata = TypeVar("Rdata", bound=dns.rdata.Rdata)

DNS_PORT = 53
"""Where every server is, outside of laboratories."""

UDP_PATIENCE = (2.0, 2.0, 2.0)
"""Seconds that an answer over UDP is waited for, one for each try: two losses in a row are bad luck, three a fault."""

RECURSION_PATIENCE = (3.0, 4.0, 5.0)
"""The same for a resolver, which may have to wait for servers that do not answer it."""

TCP_PATIENCE = 5.0
"""Seconds for a connection and the answer over it."""

MAX_QUESTIONS = 64
"""Questions under way at once: quick with hundreds of hostnames, and no flood for anybody."""

UDP_PAYLOAD = 1232
"""Octets of an answer that fit one packet everywhere (DNS flag day 2020)."""

LOOK_INTERVAL = 0.5
"""Seconds between looks whether something has come about."""

_CHAIN = 16
"""CNAMEs in a row that are followed; resolvers give up after about as many."""

_MAX_REASON = 200
"""Characters of somebody else's explanation that are shown."""

UNROUTED = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EACCES, errno.EPERM}
"""Faults of a machine that has no way to an address, which says nothing about the server there."""


@dataclass(frozen=True, slots=True, order=True)
class Server:
    """One address of a server, and the name that it goes by."""

    name: str
    address: str
    port: int = DNS_PORT

    def __str__(self) -> str:
        return f"{self.name} ({self.address})"


class Failure(Enum):
    """Why there is no answer."""

    SILENT = "does not answer"
    CLOSED = "refuses the connection"
    NONSENSE = "answers with something that is no DNS answer to the question"
    UNROUTED = "cannot be reached from this machine, which has no route there"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that fits its question. Names of records are compared without regard to letter case."""

    message: dns.message.Message

    @property
    def rcode(self) -> str:
        return dns.rcode.to_text(self.message.rcode())

    @property
    def is_authoritative(self) -> bool:
        return bool(self.message.flags & dns.flags.AA)

    @property
    def is_truncated(self) -> bool:
        return bool(self.message.flags & dns.flags.TC)

    @property
    def has_edns(self) -> bool:
        return self.message.edns >= 0

    @property
    def qname(self) -> dns.name.Name:
        """The name that was asked for, in the letters that the server echoed; the root where it echoed none."""
        return self.message.question[0].name if self.message.question else dns.name.root

    @property
    def reason(self) -> str:
        """The response code, with what the server adds to explain it (RFC 8914)."""
        told = [option for option in self.message.options if isinstance(option, dns.edns.EDEOption)]
        texts = [option.text or dns.edns.EDECode.to_text(option.code).replace("_", " ").lower() for option in told]
        # It comes from strangers, and what is printed on terminals must not be able to command them.
        text = "".join(filter(str.isprintable, "; ".join(texts)))[:_MAX_REASON]
        return f"{self.rcode} ({text})" if text else self.rcode

    def answer(self, owner: Name, kind: type[Rdata]) -> list[Rdata]:
        """The records of that type in the answer that *owner* has itself."""
        return _rdatas(self.message.answer, owner, kind)

    def authority(self, owner: Name, kind: type[Rdata]) -> list[Rdata]:
        """As `answer`, of the authority section."""
        return _rdatas(self.message.authority, owner, kind)

    def addresses(self, owner: Name) -> frozenset[Address]:
        """The addresses of *owner* in the answer and the additional section."""
        wanted = to_dnspython(owner)
        return frozenset(
            ip_address(rdata.to_text())
            for rrset in (*self.message.answer, *self.message.additional)
            if rrset.name == wanted and rrset.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA)
            for rdata in rrset
        )

    def alias_end(self, owner: Name) -> Name:
        """Where the CNAMEs of the answer lead from *owner*: itself if there are none."""
        for _ in range(_CHAIN):
            if not (targets := self.answer(owner, CNAME)):
                break
            owner = from_dnspython(targets[0].target)
        return owner

    def texts(self, owner: Name) -> set[str]:
        """The TXT values of *owner* in the answer, their strings joined as a CA joins them."""
        return {b"".join(rdata.strings).decode("ascii", "replace") for rdata in self.answer(owner, TXT)}


Outcome = Reply | Failure


class Asker:
    """Asks. Tells *waiting* whenever that changes what is waited for longest: nothing, when all is answered."""

    def __init__(self, waiting: Callable[[str], None]) -> None:
        self._waiting = waiting
        self._slots = asyncio.Semaphore(MAX_QUESTIONS)
        self._under_way: dict[object, str] = {}

    async def ask(self, server: Server, name: Name, rrtype: str) -> Outcome:
        """Ask an authoritative *server* over UDP, and over TCP what does not fit."""
        question = query(to_dnspython(name), rrtype)
        outcome = await self.over_udp(server, question)
        if isinstance(outcome, Reply) and outcome.is_truncated:
            return await self.over_tcp(server, question)
        return outcome

    async def ask_resolver(self, server: Server, name: Name, rrtype: str) -> Outcome:
        """As `ask`, of a resolver, with all its work left to it."""
        question = query(to_dnspython(name), rrtype)
        question.flags |= dns.flags.RD
        outcome = await self.over_udp(server, question, patience=RECURSION_PATIENCE)
        if isinstance(outcome, Reply) and outcome.is_truncated:
            return await self.over_tcp(server, question)
        return outcome

    async def over_udp(
        self, server: Server, question: dns.message.Message, *, patience: tuple[float, ...] | None = None
    ) -> Outcome:
        """Ask over UDP until there is an answer, or patience ends."""
        outcome: Outcome = Failure.SILENT
        async with self._slots:
            with self._noting(server, Transport.UDP):
                for seconds in patience or UDP_PATIENCE:
                    outcome = await _udp(question, server.address, server.port, seconds)
                    if isinstance(outcome, Reply) or outcome is Failure.UNROUTED:
                        break
        return outcome

    async def over_tcp(self, server: Server, question: dns.message.Message) -> Outcome:
        """Ask over a TCP connection, once."""
        async with self._slots:
            with self._noting(server, Transport.TCP):
                return await _tcp(question, server.address, server.port)

    @contextmanager
    def _noting(self, server: Server, transport: Transport) -> Iterator[None]:
        key = object()
        self._under_way[key] = f"{server} over {transport.name}"
        self._tell()
        try:
            yield
        finally:
            del self._under_way[key]
            self._tell()

    def _tell(self) -> None:
        self._waiting(next(iter(self._under_way.values()), ""))


async def wait_for_none(look: Callable[[], Awaitable[list[T]]], seconds: float) -> list[T]:
    """Look again and again until nothing is left, or time is up; what is left then."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while (left := await look()) and loop.time() < until:  # noqa: ASYNC110  # nobody tells
        await asyncio.sleep(LOOK_INTERVAL)
    return left


def query(name: dns.name.Name, rrtype: str, *, edns: bool = True) -> dns.message.Message:
    """A question for an authoritative server, in exactly the letters of *name*."""
    return dns.message.make_query(name, rrtype, flags=0, use_edns=0 if edns else -1, payload=UDP_PAYLOAD)


def to_dnspython(name: Name) -> dns.name.Name:
    return dns.name.Name([*name.labels, b""])


def from_dnspython(name: dns.name.Name) -> Name:
    return Name.from_labels(list(name.labels[:-1]))


def _rdatas(section: list[RRset], owner: Name, kind: type[Rdata]) -> list[Rdata]:
    wanted, rrtype = to_dnspython(owner), dns.rdatatype.from_text(kind.__name__)
    return [
        rdata
        for rrset in section
        if rrset.name == wanted and rrset.rdtype == rrtype
        for rdata in rrset
        if isinstance(rdata, kind)
    ]


async def _udp(question: dns.message.Message, address: str, port: int, seconds: float) -> Outcome:
    family, backend = dns.inet.af_for_address(address), dns.asyncbackend.get_default_backend()
    try:
        # Connected to its peer, a socket takes nothing from others, and hears at once that nobody listens there.
        peer = await backend.make_socket(family, socket.SOCK_DGRAM, 0, None, (address, port))  # type: ignore[no-untyped-call]
        async with peer:
            return Reply(await dns.asyncquery.udp(question, address, timeout=seconds, port=port, sock=peer))
    except dns.exception.Timeout:
        return Failure.SILENT
    except dns.exception.DNSException:
        return Failure.NONSENSE
    except OSError as error:
        return Failure.UNROUTED if error.errno in UNROUTED else Failure.SILENT


async def _tcp(question: dns.message.Message, address: str, port: int) -> Outcome:
    try:
        return Reply(await dns.asyncquery.tcp(question, address, timeout=TCP_PATIENCE, port=port))
    except dns.exception.Timeout:
        return Failure.SILENT
    except (ConnectionError, EOFError):
        return Failure.CLOSED
    except dns.exception.DNSException:
        return Failure.NONSENSE
    except OSError as error:
        return Failure.UNROUTED if error.errno in UNROUTED else Failure.SILENT
