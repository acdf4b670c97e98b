"""
Sends one query to one server, with the attempts and timeouts of a resolver. dnspython handles the packets.

The modules that send queries decide what the replies mean.
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
from responder.foreign import printable
from responder.names import Name

T = TypeVar("T")
Rdata = TypeVar("Rdata", bound=dns.rdata.Rdata)

DNS_PORT = 53
"""The port of all servers, except in test setups."""

UDP_PATIENCE = (2.0, 2.0, 2.0)
"""Seconds to wait for a reply over UDP, for each attempt. Two lost packets are bad luck; three are a fault."""

RECURSION_PATIENCE = (3.0, 4.0, 5.0)
"""The same for a resolver, which may have to wait for silent servers."""

TCP_PATIENCE = 5.0
"""Seconds for a TCP connection and the reply over it."""

MAX_QUESTIONS = 64
"""Queries at the same time: fast for hundreds of hostnames, and not a flood for any server."""

UDP_PAYLOAD = 1232
"""Octets of a reply that fit into one packet everywhere (DNS flag day 2020)."""

LOOK_INTERVAL = 0.5
"""Seconds between two attempts of `wait_for_none`."""

_CHAIN = 16
"""CNAMEs in a row that are followed, about as many as resolvers follow."""

_MAX_REASON = 200
"""Characters of the explanation of a server that are shown."""

UNROUTED = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EACCES, errno.EPERM}
"""Errors of a machine without a route to an address. They do not mean that the server there is faulty."""


@dataclass(frozen=True, slots=True, order=True)
class Server:
    """One address of a server, and the name of the server."""

    name: str
    address: str
    port: int = DNS_PORT

    def __str__(self) -> str:
        return f"{self.name} ({self.address})"


class Failure(Enum):
    """Why there is no reply."""

    SILENT = "does not reply"
    CLOSED = "refuses the connection"
    NONSENSE = "replies with a message that does not match the query"
    UNROUTED = "cannot be reached from this machine, which has no route there"


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply that matches its query. Names of records are compared without regard to letter case."""

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
        """The name of the query, in the letter case that the server echoed; the root if it echoed none."""
        return self.message.question[0].name if self.message.question else dns.name.root

    @property
    def reason(self) -> str:
        """The response code, with the explanation that the server adds (RFC 8914)."""
        extended = [option for option in self.message.options if isinstance(option, dns.edns.EDEOption)]
        texts = [option.text or dns.edns.EDECode.to_text(option.code).replace("_", " ").lower() for option in extended]
        text = printable("; ".join(texts)[:_MAX_REASON])
        return f"{self.rcode} ({text})" if text else self.rcode

    def answer_records(self, owner: Name, kind: type[Rdata]) -> list[Rdata]:
        """The records of type *kind* and name *owner* in the answer section."""
        return _rdatas(self.message.answer, owner, kind)

    def authority_records(self, owner: Name, kind: type[Rdata]) -> list[Rdata]:
        """As `answer_records`, for the authority section."""
        return _rdatas(self.message.authority, owner, kind)

    def addresses(self, owner: Name) -> frozenset[Address]:
        """The addresses of *owner* in the answer section and the additional section."""
        wanted = to_dnspython(owner)
        return frozenset(
            ip_address(rdata.to_text())
            for rrset in (*self.message.answer, *self.message.additional)
            if rrset.name == wanted and rrset.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA)
            for rdata in rrset
        )

    def alias_end(self, owner: Name) -> Name:
        """The name that the CNAMEs in the answer section lead to from *owner*; *owner* if there are none."""
        for _ in range(_CHAIN):
            if not (targets := self.answer_records(owner, CNAME)):
                break
            owner = from_dnspython(targets[0].target)
        return owner

    def texts(self, owner: Name) -> set[str]:
        """The TXT values of *owner* in the answer section, with their strings joined as CAs do."""
        return {b"".join(rdata.strings).decode("ascii", "replace") for rdata in self.answer_records(owner, TXT)}


QueryResult = Reply | Failure
"""What comes of a query."""


class Asker:
    """Sends queries. It calls *waiting* with the server of the oldest open query whenever that changes; "" for none."""

    def __init__(self, waiting: Callable[[str], None]) -> None:
        self._waiting = waiting
        self._slots = asyncio.Semaphore(MAX_QUESTIONS)
        self._under_way: dict[object, str] = {}

    async def ask(self, server: Server, name: Name, rrtype: str) -> QueryResult:
        """Query an authoritative *server* over UDP, and over TCP if the reply is truncated."""
        question = query(to_dnspython(name), rrtype)
        outcome = await self.over_udp(server, question)
        if isinstance(outcome, Reply) and outcome.is_truncated:
            return await self.over_tcp(server, question)
        return outcome

    async def ask_resolver(self, server: Server, name: Name, rrtype: str) -> QueryResult:
        """As `ask`, for a resolver, with recursion."""
        question = query(to_dnspython(name), rrtype)
        question.flags |= dns.flags.RD
        outcome = await self.over_udp(server, question, patience=RECURSION_PATIENCE)
        if isinstance(outcome, Reply) and outcome.is_truncated:
            return await self.over_tcp(server, question)
        return outcome

    async def over_udp(
        self, server: Server, question: dns.message.Message, *, patience: tuple[float, ...] | None = None
    ) -> QueryResult:
        """Query over UDP until there is a reply, or *patience* ends."""
        outcome: QueryResult = Failure.SILENT
        async with self._slots:
            with self._noting(server, Transport.UDP):
                for seconds in patience or UDP_PATIENCE:
                    outcome = await _udp(question, server.address, server.port, seconds)
                    if isinstance(outcome, Reply) or outcome is Failure.UNROUTED:
                        break
        return outcome

    async def over_tcp(self, server: Server, question: dns.message.Message) -> QueryResult:
        """Query over a TCP connection, once."""
        async with self._slots:
            with self._noting(server, Transport.TCP):
                return await _tcp(question, server.address, server.port)

    @contextmanager
    def _noting(self, server: Server, transport: Transport) -> Iterator[None]:
        key = object()
        self._under_way[key] = f"{server} over {transport.name}"
        self._report()
        try:
            yield
        finally:
            del self._under_way[key]
            self._report()

    def _report(self) -> None:
        self._waiting(next(iter(self._under_way.values()), ""))


async def wait_for_none(look: Callable[[], Awaitable[list[T]]], seconds: float) -> list[T]:
    """Call *look* until it returns nothing, or for *seconds*; returns the last result."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while (left := await look()) and loop.time() < until:  # noqa: ASYNC110  # there is no event to wait for
        await asyncio.sleep(LOOK_INTERVAL)
    return left


def query(name: dns.name.Name, rrtype: str, *, edns: bool = True) -> dns.message.Message:
    """A query for an authoritative server, in the letter case of *name*."""
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


async def _udp(question: dns.message.Message, address: str, port: int, seconds: float) -> QueryResult:
    family, backend = dns.inet.af_for_address(address), dns.asyncbackend.get_default_backend()
    try:
        # A connected socket accepts packets of its peer only, and learns at once if no server listens there.
        peer = await backend.make_socket(family, socket.SOCK_DGRAM, 0, None, (address, port))  # type: ignore[no-untyped-call]
        async with peer:
            return Reply(await dns.asyncquery.udp(question, address, timeout=seconds, port=port, sock=peer))
    except dns.exception.Timeout:
        return Failure.SILENT
    except dns.exception.DNSException:
        return Failure.NONSENSE
    except OSError as error:
        return Failure.UNROUTED if error.errno in UNROUTED else Failure.SILENT


async def _tcp(question: dns.message.Message, address: str, port: int) -> QueryResult:
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
