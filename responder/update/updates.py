"""
DNS updates (RFC 2136): what comes over the DNS port, signed by the holder of a token, becomes presents and cleanups.

Nameserver processes pass the packets on, for the keys are here. A signature that does not hold is turned down on the
spot; only then is anything looked up, and the message read. `tsig` checks and signs, `message` reads, `steps` says what
it comes to, `replays` keeps it from happening twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID
from weakref import WeakValueDictionary

import structlog

from responder import metrics
from responder.challenges import UPDATE_PATIENCE, Challenges, within
from responder.dns.rrset import CLASS_IN, RRType
from responder.dns.wire import Opcode, Query, Rcode, header_only, parse
from responder.errors import (
    Invalid,
    InvalidUpdate,
    NotServed,
    OutsideZone,
    PrerequisiteFailed,
    Refused,
    ResponderError,
    TooManyRequests,
    Unauthenticated,
    by_ancestry,
)
from responder.feed import Deliver, Packet
from responder.feed.relay import fail
from responder.limits import Limits
from responder.logs import Seldom
from responder.names import Name
from responder.store import Action, Cleanup, Outcome, Present, Step, Store
from responder.tokens.token import Token
from responder.update.message import read
from responder.update.replays import Replays
from responder.update.steps import steps
from responder.update.tsig import Error, KeyName, Keyring, Signature

__all__ = ["Keyring", "Updates"]

MAX_UNDER_WAY = 512
"""Updates at once, of all nameservers: far more than wait unless the store has stopped."""

DRAIN = 2.0
"""Seconds that updates under way get to finish when the process stops."""

MAX_LOGGED_NAMES = 5
"""Names in one log line. Hardly any update has two."""

SELDOM_INTERVAL = 10.0
"""Seconds between two log lines about what may come in floods: signatures that do not hold, a client in a loop."""

RCODES: dict[type[ResponderError], Rcode] = {
    Invalid: Rcode.FORMERR,
    OutsideZone: Rcode.NOTZONE,
    TooManyRequests: Rcode.SERVFAIL,
    Refused: Rcode.REFUSED,
    NotServed: Rcode.NOTAUTH,
    ResponderError: Rcode.SERVFAIL,
}
"""What an error is called in the DNS, unless it says that itself; its nearest ancestor here decides."""

_log = structlog.get_logger("update")


@dataclass(frozen=True, slots=True)
class _Request:
    """A message whose signature was checked."""

    packet: Packet
    query: Query
    signature: Signature


class Updates:
    """Answers what nameservers pass on."""

    def __init__(
        self,
        store: Store,
        challenges: Challenges,
        keyring: Keyring,
        limits: Limits,
        *,
        apexes: Iterable[Name],
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._challenges = challenges
        self._keyring = keyring
        self._limits = limits
        self._apexes = {apex.wire for apex in apexes}
        self._clock = clock
        self._replays = Replays()
        self._turns: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()  # of tokens with updates under way
        self._under_way: set[asyncio.Task[Rcode]] = set()
        self._stopping = False
        self._seldom = Seldom(SELDOM_INTERVAL)

    def answer(self, packet: Packet, deliver: Deliver) -> None:
        """Answer *packet* by *deliver*: at once, or when the update is being served. Never raises, never waits."""
        try:
            self._answer(packet, deliver)
        except Exception as fault:  # noqa: BLE001  # the edge of a packet
            self._report(fault)
            fail(packet, deliver)

    async def stop(self) -> None:
        """Take no more, let what is under way come to its end, and give it up if that takes too long."""
        self._stopping = True
        if self._under_way:
            _, late = await asyncio.wait(self._under_way, timeout=DRAIN)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _answer(self, packet: Packet, deliver: Deliver) -> None:
        query = parse(packet.octets)
        if not isinstance(query, Query) or not query.tsig:
            raise ValueError("a nameserver passed on what is not signed")
        signature = self._keyring.check(packet.octets, query.tsig, self._now())
        if signature is None:
            deliver(header_only(packet.octets, Rcode.FORMERR))
        elif signature.error or signature.key_name is None:
            self._turn_down(_Request(packet, query, signature), deliver)
        elif query.opcode == Opcode.UPDATE:
            self._accept(_Request(packet, query, signature), signature.key_name, deliver)
        else:
            deliver(signature.sign(packet.draft, self._now()))

    def _turn_down(self, request: _Request, deliver: Deliver) -> None:
        """Say what is wrong with the signature (RFC 8945, section 5.2)."""
        error = request.signature.error
        metrics.REQUESTS.labels("UPDATE", error.name.lower()).inc()
        if (more := self._seldom.due(error.name)) is not None:
            signature, client = request.signature, request.packet.client
            token = str(signature.key_name.token_id) if signature.key_name is not None else None
            algorithm = str(signature.record.algorithm)
            _log.warning(
                "signature refused", error=error.name, token=token, algorithm=algorithm, client=client, more=more
            )
        deliver(self._reply(request, Rcode.NOTAUTH))

    def _accept(self, request: _Request, key_name: KeyName, deliver: Deliver) -> None:
        """Carry the update out, unless that was done, or is being done: then wait for what comes of it."""
        record = request.signature.record
        outcome = self._replays.find(key_name, record.mac)
        if outcome is None:
            if self._replays.is_forgotten(key_name, record.time_signed):
                stale = replace(request.signature, error=Error.BADTIME)
                self._turn_down(replace(request, signature=stale), deliver)
                return
            if self._stopping or len(self._under_way) >= MAX_UNDER_WAY:
                deliver(self._reply(request, Rcode.SERVFAIL))
                return
            outcome = self._begin(request, key_name)
            self._replays.remember(key_name, record.mac, record.time_signed, outcome, now=self._now())
        outcome.add_done_callback(lambda done: deliver(self._reply(request, done.result())))

    def _begin(self, request: _Request, key_name: KeyName) -> asyncio.Future[Rcode]:
        """Have the update carried out. What comes of it is kept for longer than the task, which holds much more."""
        outcome: asyncio.Future[Rcode] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._carry_out(request, key_name))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        task.add_done_callback(lambda done: outcome.set_result(Rcode.SERVFAIL if done.cancelled() else done.result()))
        return outcome

    async def _carry_out(self, request: _Request, key_name: KeyName) -> Rcode:
        """What comes of the update, which is logged, once. Never raises."""
        packet = request.packet
        structlog.contextvars.bind_contextvars(
            token=str(key_name.token_id),
            zone=str(Name(request.query.qname)),
            client=packet.client,
            transport=packet.transport.value,
        )
        rcode, told = Rcode.NOERROR, dict[str, object]()
        try:
            outcome = await self._update(request, key_name)
            if outcome is not None:
                told["serial"] = outcome.serial
        except TooManyRequests as refusal:
            self._note_limited(refusal)
            return _rcode(refusal)
        except ResponderError as error:
            rcode, told["reason"] = _rcode(error), str(error)
        except Exception as fault:  # noqa: BLE001  # the edge of a packet
            self._report(fault)
            rcode = Rcode.SERVFAIL
        metrics.REQUESTS.labels("UPDATE", "ok" if rcode is Rcode.NOERROR else rcode.name.lower()).inc()
        log = _log.error if rcode is Rcode.SERVFAIL else _log.info
        log("update", rcode=rcode.name, **told)
        return rcode

    async def _update(self, request: _Request, key_name: KeyName) -> Outcome | None:
        """
        Do what the update says. Returns None if that is nothing.

        Tokens are looked up side by side, and who is answered first is a matter of luck; but the updates of one token
        join the queue in the order in which they came. Locks are fair: whoever waits first goes on first.
        """
        looking = asyncio.create_task(self._store.find_generation(key_name.token_id, key_name.generation))
        try:
            async with self._turns.setdefault(key_name.token_id, asyncio.Lock()):
                queued = self._queue(request, await looking)
        finally:
            looking.cancel()
        return await within(UPDATE_PATIENCE, queued) if queued is not None else None

    def _queue(self, request: _Request, token: Token | None) -> asyncio.Future[Outcome] | None:
        """Have the writer do what the update of *token* says; None if that is nothing."""
        if token is None:
            raise Unauthenticated("the secret that this key belongs to is gone: mint or rotate the token for a new one")
        self._check_zone(request.query)
        message = read(request.packet.octets, request.query)
        client = request.packet.client
        try:
            token.admit(client, now=self._clock())
            self._limits.count_use(token.id, len(message.changes))
            wanted = steps(message, token, client=client, expires_at=self._clock() + self._challenges.lifetime)
        except TooManyRequests:  # nothing for the audit, which a client in a loop would fill
            raise
        except Refused as refusal:
            adds = any(record.rclass == CLASS_IN for record in message.changes)
            self._challenges.note_refusal(token, Action.PRESENT if adds else Action.CLEANUP, refusal, client=client)
            raise
        _note(wanted)
        return self._challenges.update(token, wanted) if wanted else None

    def _check_zone(self, query: Query) -> None:
        """Nameservers look at that, too, but they face the internet."""
        if query.qtype != RRType.SOA:
            raise InvalidUpdate("the zone section of an update asks for a SOA")
        if query.qclass != CLASS_IN or query.qname not in self._apexes:
            raise NotServed(f"the zone {Name(query.qname)} is not served here")

    def _reply(self, request: _Request, rcode: Rcode) -> bytes:
        """A signed reply of one rcode: its header, the zone section as it came (RFC 2136, section 3.8), the TSIG."""
        head = header_only(request.packet.octets, rcode)
        return request.signature.sign(head[:4] + b"\0\1" + head[6:] + request.query.question, self._now())

    def _now(self) -> int:
        return int(self._clock().timestamp())

    def _note_limited(self, refusal: TooManyRequests) -> None:
        metrics.REQUESTS.labels("UPDATE", "too-many-requests").inc()
        if (more := self._seldom.due("limited")) is not None:
            _log.warning("update limited", reason=str(refusal), more=more)

    def _report(self, fault: Exception) -> None:
        if (more := self._seldom.due(type(fault).__name__)) is not None:
            _log.error("an update brought out a fault", more=more, exc_info=fault)


def _note(wanted: Sequence[Step]) -> None:
    """Have the log line of this update say what it was about."""
    structlog.contextvars.bind_contextvars(
        names=sorted({str(step.challenge_name) for step in wanted})[:MAX_LOGGED_NAMES],
        presents=sum(isinstance(step, Present) for step in wanted),
        cleanups=sum(isinstance(step, Cleanup) for step in wanted),
    )


def _rcode(error: ResponderError) -> Rcode:
    if isinstance(error, PrerequisiteFailed):
        return Rcode(error.rcode)
    return by_ancestry(error, RCODES)
