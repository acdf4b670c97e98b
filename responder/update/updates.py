"""
Carries out DNS updates (RFC 2136) that have a valid signature, as presents and cleanups of the token's holder.

`signatures` rejects bad signatures first. Only then is the token looked up and the message read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID
from weakref import WeakValueDictionary

import structlog

from responder import metrics
from responder.challenges import UPDATE_PATIENCE, Challenges, within
from responder.dns.rrset import CLASS_IN, RRType
from responder.dns.wire import Query, Rcode
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
from responder.limits import Limits
from responder.logs import Seldom
from responder.names import Name
from responder.store import AuditAction, Cleanup, Outcome, Present, Step, Store
from responder.tokens.token import Token
from responder.update.message import read
from responder.update.replays import Replays
from responder.update.signatures import DONE, SELDOM_INTERVAL, UNAVAILABLE, Request, Result, Signatures
from responder.update.steps import steps
from responder.update.tsig import SignatureError

MAX_UNDER_WAY = 512
"""Updates in progress, from all nameservers. They reach this number only if the store does not respond."""

DRAIN = 2.0
"""Seconds that updates in progress get to finish when the process stops."""

MAX_LOGGED_NAMES = 5
"""Names in one log line. Almost every update has only one."""

RCODES: dict[type[ResponderError], Rcode] = {
    Invalid: Rcode.FORMERR,
    OutsideZone: Rcode.NOTZONE,
    TooManyRequests: Rcode.SERVFAIL,
    Refused: Rcode.REFUSED,
    NotServed: Rcode.NOTAUTH,
    ResponderError: Rcode.SERVFAIL,
}
"""The rcode of each class of errors, unless the error has its own. The nearest ancestor that is here decides."""

_log = structlog.get_logger("update")


class Updates:
    """Carries out the updates that nameservers pass on, and replies to them."""

    def __init__(
        self,
        store: Store,
        challenges: Challenges,
        signatures: Signatures,
        limits: Limits,
        *,
        apexes: Iterable[Name],
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._challenges = challenges
        self._signatures = signatures
        self._limits = limits
        self._apexes = {apex.wire for apex in apexes}
        self._clock = clock
        self._replays = Replays()
        self._turns: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()  # by token
        self._under_way: set[asyncio.Task[Result]] = set()
        self._stopping = False
        self._seldom = Seldom(SELDOM_INTERVAL)

    def receive(self, packet: Packet, deliver: Deliver) -> None:
        """Reply to *packet* with *deliver*: at once, or when the update is served. Never raises, never waits."""
        self._signatures.receive(packet, deliver, self._accept)

    async def stop(self) -> None:
        """Accept no more updates, let those in progress finish, and cancel those that take too long."""
        self._stopping = True
        if self._under_way:
            _, late = await asyncio.wait(self._under_way, timeout=DRAIN)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _accept(self, request: Request, deliver: Deliver) -> None:
        """Carry out the update and send its reply; a copy of an earlier update gets the reply to that one."""
        key_name, record = request.key_name, request.signature.record
        result = self._replays.find(key_name, record.mac)
        if result is None:
            if self._replays.is_forgotten(key_name, record.time_signed):
                stale = replace(request.signature, error=SignatureError.BADTIME)
                self._signatures.reject(request.packet, request.query, stale, deliver)
                return
            if self._stopping or len(self._under_way) >= MAX_UNDER_WAY:
                deliver(self._signatures.reply(request, UNAVAILABLE))
                return
            result = self._begin(request)
            self._replays.remember(key_name, record.mac, record.time_signed, result, now=self._now())
        result.add_done_callback(lambda done: deliver(self._signatures.reply(request, done.result())))

    def _begin(self, request: Request) -> asyncio.Future[Result]:
        """Start the update. Its result is kept for longer than its task, which needs much more memory."""
        result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._carry_out(request))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        task.add_done_callback(lambda done: result.set_result(UNAVAILABLE if done.cancelled() else done.result()))
        return result

    async def _carry_out(self, request: Request) -> Result:
        """Carry out the update, log it once, and return its result. Never raises."""
        packet = request.packet
        structlog.contextvars.bind_contextvars(
            token=str(request.key_name.token_id),
            zone=str(Name(request.query.qname)),
            client=packet.client,
            transport=packet.transport.value,
        )
        result, details = DONE, dict[str, object]()
        try:
            outcome = await self._update(request)
            if outcome is not None:
                details["serial"] = outcome.serial
        except TooManyRequests as refusal:
            self._note_limited(refusal)
            return Result(_rcode(refusal), str(refusal))
        except ResponderError as error:
            rcode, details["reason"] = _rcode(error), str(error)
            result = Result(rcode, str(error)) if rcode is not Rcode.SERVFAIL else UNAVAILABLE
        except Exception as fault:  # noqa: BLE001  # the edge of a packet
            self._signatures.report(fault)
            result = UNAVAILABLE
        rcode = result.rcode
        metrics.REQUESTS.labels("UPDATE", "ok" if rcode is Rcode.NOERROR else rcode.name.lower()).inc()
        log = _log.error if rcode is Rcode.SERVFAIL else _log.info
        log("update", rcode=rcode.name, **details)
        return result

    async def _update(self, request: Request) -> Outcome | None:
        """
        Have the store carry out the update. Returns None if there is nothing to do.

        Tokens are looked up concurrently, and the look-ups may finish in any order. But the updates of one token join
        the queue of the writer in the order in which they arrived, because locks are fair.
        """
        key_name = request.key_name
        looking = asyncio.create_task(self._store.find_generation(key_name.token_id, key_name.generation))
        try:
            async with self._turns.setdefault(key_name.token_id, asyncio.Lock()):
                queued = self._queue(request, await looking)
        finally:
            looking.cancel()
        return await within(UPDATE_PATIENCE, queued) if queued is not None else None

    def _queue(self, request: Request, token: Token | None) -> asyncio.Future[Outcome] | None:
        """Pass the update of *token* to the writer. Returns None if there is nothing to do."""
        if token is None:
            raise Unauthenticated("the secret of this key no longer exists: rotate the token, or mint a new one")
        self._check_zone(request.query)
        message = read(request.packet.octets, request.query)
        client = request.packet.client
        try:
            token.admit(client, now=self._clock())
            self._limits.count_use(token.id, len(message.changes))
            wanted = steps(message, token, client=client, expires_at=self._clock() + self._challenges.lifetime)
        except TooManyRequests:  # not in the audit, which a client in a loop would fill
            raise
        except Refused as refusal:
            adds = any(record.rclass == CLASS_IN for record in message.changes)
            self._challenges.note_refusal(
                token, AuditAction.PRESENT if adds else AuditAction.CLEANUP, refusal, client=client
            )
            raise
        _note(wanted)
        return self._challenges.update(token, wanted) if wanted else None

    def _check_zone(self, query: Query) -> None:
        """Check the zone section. Nameservers check it, too, but they are exposed to the internet and not trusted."""
        if query.qtype != RRType.SOA:
            raise InvalidUpdate("the zone section of an update must ask for a SOA")
        if query.qclass != CLASS_IN or query.qname not in self._apexes:
            raise NotServed(f"the zone {Name(query.qname)} is not served here")

    def _now(self) -> int:
        return int(self._clock().timestamp())

    def _note_limited(self, refusal: TooManyRequests) -> None:
        metrics.REQUESTS.labels("UPDATE", "too-many-requests").inc()
        if (more := self._seldom.due("limited")) is not None:
            _log.warning("update limited", reason=str(refusal), more=more)


def _note(wanted: Sequence[Step]) -> None:
    """Add the names and the number of changes to the log line of this update."""
    structlog.contextvars.bind_contextvars(
        names=sorted({str(step.challenge_name) for step in wanted})[:MAX_LOGGED_NAMES],
        presents=sum(isinstance(step, Present) for step in wanted),
        cleanups=sum(isinstance(step, Cleanup) for step in wanted),
    )


def _rcode(error: ResponderError) -> Rcode:
    if isinstance(error, PrerequisiteFailed):
        return Rcode(error.rcode)
    return by_ancestry(error, RCODES)
