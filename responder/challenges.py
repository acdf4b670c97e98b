"""
present, cleanup, update and expire: the one writer.

Callers queue what they want. One task takes everything that is waiting into one transaction (group commit), makes the
outcome live, and only then lets its callers go on: what was acknowledged is stored and is being served. The same task
notices what others committed (the command line, another node), so changes always go out in the order of their serials.
Requests that were refused before they came here are put on record by it, too, as many as it has time for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from responder import metrics
from responder.dns.zone import Change
from responder.errors import (
    Refused,
    ResponderError,
    StoreUnavailable,
    Unavailable,
    Unconfirmed,
    WrongAccount,
)
from responder.feed import Publisher
from responder.logs import Outage
from responder.names import Name
from responder.nodes import Confirmation, Nodes
from responder.refusals import Refusals
from responder.store import (
    AuditAction,
    AuditEvent,
    AuditResult,
    Cleanup,
    Operation,
    Outcome,
    Present,
    Step,
    Store,
    Update,
)
from responder.tokens.serving import Serving
from responder.tokens.token import Grant, Token
from responder.tokens.values import parse_value

MAX_BATCH = 512
"""Operations in one transaction: enough to share one disk write, few enough that nobody waits long for the others."""

MAX_WAITING = 4096
"""Operations that may wait. More than this means that the store has stopped, and callers had better hear it now."""

GATHER_DEADLINE = 0.01
"""Seconds that the first of many waits for the others, at most: about what a transaction costs that they then share."""

PATIENCE = 10.0
"""Seconds that a caller waits until its change is stored and served. ACME clients wait for ten or more."""

UPDATE_PATIENCE = 1.8
"""The same for DNS updates: the client of cert-manager leaves after 2 s."""

UPDATE_CONFIRMATION = 1.5
"""Seconds of it that a DNS update waits for other nodes."""

_log = structlog.get_logger("challenges")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often the writer looks around by itself, in seconds."""

    follow: float = 0.5
    """Between looks for commits of others: half of the second within which they promise to take effect."""

    check: float = 2.0
    """Between looks whether the nameservers are well: one that hangs costs resolvers their patience."""

    sweep: float = 5.0
    """Between looks for values that have expired. They live for hours, so a second does not matter."""

    prove: float = 60.0
    """Between proofs that changes can be made, while no client makes any."""

    settled: float = 10.0
    """Without a fault until changes count as possible again: small ones may still fit where larger ones do not."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    operation: Operation
    outcome: asyncio.Future[Outcome]

    @property
    def confirmation(self) -> float:
        """Seconds that it has time for until all nodes serve it."""
        return UPDATE_CONFIRMATION if isinstance(self.operation, Update) else PATIENCE


class Challenges:
    """Challenge values, as callers may change them."""

    def __init__(
        self,
        store: Store,
        publisher: Publisher,
        nodes: Nodes,
        *,
        require_all: bool = True,
        serving: Serving,
        published: Mapping[Name, int],
        lifetime: timedelta,
        clock: Callable[[], datetime],
        pace: Pace | None = None,
    ) -> None:
        """
        *lifetime* is that of a value whose presenter asks for none. *published* are the serials of the zones, read
        before *publisher* gave a snapshot to anybody: whatever was committed since then is made live (again, perhaps)
        when the writer first looks. With *require_all*, a change that a live node does not serve in time is
        `Unconfirmed` to its caller.
        """
        self._store = store
        self._publisher = publisher
        self._nodes = nodes
        self._require_all = require_all
        self._serving = serving
        self.lifetime = lifetime
        self._clock = clock
        self._pace = pace or Pace()
        self._waiting: deque[_Waiting] = deque()
        self._wake = asyncio.Event()  # set when something waits, or another node has committed
        self._wake.set()  # the first look is due at once: other nodes wait until it is known what is served here
        self._has_settled = False
        self._look_due = 0.0
        self._confirming: set[asyncio.Task[None]] = set()
        self._usual = 1  # operations in the last batch
        self._refusals = Refusals()
        self._published = dict(published)
        self._turn = asyncio.Lock()  # one at a time makes changes live, in the order of their serials
        self._prove_due = 0.0
        self._outage = Outage(
            _log,
            "no change can be made: DNS goes on with what is in memory",
            "changes can be made again",
            settled=self._pace.settled,
        )

    @property
    def condition(self) -> str:
        """Why no change can be made at the moment; "ok" if changes can be made."""
        return "ok" if self._outage.reason is None else f"failed: {self._outage.reason}"

    async def present(
        self,
        token: Token,
        grant: Grant,
        value: str,
        *,
        client: str,
        lifetime: timedelta | None = None,
        acme_token: str | None = None,
        evict_oldest: bool = False,
    ) -> Outcome:
        """
        Publish *value* at the grant's challenge name; returns once every nameserver serves it.

        A token that is pinned to an ACME account needs the challenge's *acme_token*. Raises `InvalidValue`,
        `WrongAccount`, `TooManyValues` (unless *evict_oldest* is to make room), `Unauthenticated` (revoked
        meanwhile), `NotServed`, `Unavailable`.
        """
        self._check_account(token, value, acme_token, client)
        return await within(
            PATIENCE,
            self._queue(
                Present(
                    token_id=token.id,
                    generation=token.generation,
                    challenge_name=grant.challenge_name,
                    value=parse_value(value),
                    expires_at=self._clock() + (lifetime or self.lifetime),
                    client=client,
                    evict_oldest=evict_oldest,
                )
            ),
        )

    async def cleanup(self, token: Token, grant: Grant, value: str, *, client: str) -> Outcome:
        """Remove *value*, and no other, from the grant's challenge name. One that is not there is fine."""
        return await within(
            PATIENCE,
            self._queue(
                Cleanup(
                    token_id=token.id,
                    generation=token.generation,
                    challenge_name=grant.challenge_name,
                    value=parse_value(value),
                    client=client,
                )
            ),
        )

    def update(self, token: Token, steps: Sequence[Step]) -> asyncio.Future[Outcome]:
        """
        Take all of *steps*, in order, or none; they are at least one, at names of one zone that *token* covers.

        Updates take effect in the order of these calls, whoever waits for the outcome first. Raises as `present` does,
        and so does what is returned, which may also raise `PrerequisiteFailed`.
        """
        for step in steps:
            if isinstance(step, Present):
                self._check_account(token, step.value, None, step.client)
        return self._queue(Update(steps=tuple(steps)))

    @property
    def published(self) -> Mapping[Name, int]:
        """The serial of each zone that the nameservers of this node serve."""
        return self._published

    async def follow(self) -> None:
        """Make live what others committed until now, such as a new token. Raises `Unavailable`."""
        async with self._turn:
            await self._follow()

    def look(self) -> None:
        """Notice at once what others committed, instead of at the next look."""
        self._look_due = 0.0
        self._wake.set()

    def note_refusal(self, token: Token, action: AuditAction, refusal: Refused, *, client: str) -> None:
        """Put on record that *token* was refused something. Of very many refusals, each kind is."""
        self._refusals.add(
            AuditEvent(
                at=self._clock(),
                action=action,
                result=AuditResult.REFUSED,
                token_id=token.id,
                client=client,
                reason=str(refusal),
            )
        )

    async def run(self) -> None:
        """The writer. Runs until cancelled, which leaves those who still wait without an answer: stop them first."""
        sweep_due = check_due = 0.0
        pace, loop = self._pace, asyncio.get_running_loop()
        while True:
            batch = await self._take_waiting(timeout=pace.follow)
            try:
                async with self._turn:
                    if batch and await self._commit(batch):
                        self._note_proof()
                    if loop.time() >= sweep_due:
                        more = await self._sweep()
                        sweep_due = loop.time() + (0.0 if more else pace.sweep)
                    if loop.time() >= check_due:
                        check_due = loop.time() + pace.check
                        await self._publisher.check()
                    if loop.time() >= self._look_due:
                        self._look_due = loop.time() + pace.follow
                        await self._follow()
                    if loop.time() >= self._prove_due:
                        await self._store.prove_writable()
                        self._note_proof()
            except Unavailable as fault:
                self._prove_due = 0.0
                self._outage.goes_on(str(fault))
                await asyncio.sleep(pace.follow)

    def _note_proof(self) -> None:
        """The database has just taken a change: only that, and no read, ends the time in which it took none."""
        self._outage.is_over()
        interval = self._pace.prove if self._outage.reason is None else self._pace.follow
        self._prove_due = asyncio.get_running_loop().time() + interval

    def _check_account(self, token: Token, value: str, acme_token: str | None, client: str) -> None:
        try:
            token.check_account(value, acme_token)
        except WrongAccount as refusal:
            self.note_refusal(token, AuditAction.PRESENT, refusal, client=client)
            raise

    def _queue(self, operation: Operation) -> asyncio.Future[Outcome]:
        """Put *operation* behind all that wait already."""
        waiting = _Waiting(operation, asyncio.get_running_loop().create_future())
        if len(self._waiting) >= MAX_WAITING:
            raise StoreUnavailable("too many changes are waiting for the database: try again in a while")
        self._waiting.append(waiting)
        self._wake.set()
        return waiting.outcome

    async def _take_waiting(self, timeout: float) -> list[_Waiting]:  # noqa: ASYNC109  # how long to wait for a first
        """All that waits; where many came last time, as many are given a moment to come again."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), timeout)
        self._wake.clear()
        if not self._waiting:
            return []
        await self._gather(min(self._usual, MAX_BATCH))
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
        if self._waiting:
            self._wake.set()
        self._usual = len(batch)
        return batch

    async def _gather(self, usual: int) -> None:
        """
        Let requests that come in together share a transaction, instead of the first few having one to themselves.

        A caller alone waits once at most, right after many came. (PostgreSQL knows this as commit_delay and
        commit_siblings.)
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + GATHER_DEADLINE
        while len(self._waiting) < usual and loop.time() < until:  # noqa: ASYNC110  # it is turns that are wanted
            await asyncio.sleep(0)

    async def _commit(self, batch: Sequence[_Waiting]) -> bool:
        """One transaction for *batch*, made live, and only then told to its callers; whether it changed anything."""
        try:
            with metrics.COMMIT.time():
                operations = [waiting.operation for waiting in batch]
                applied = await self._store.apply(operations, serving=self._serving, now=self._clock())
            metrics.BATCH.observe(len(batch))
            self._nodes.committed()
            await self._publish(applied.changes)
            if any(map(self._is_behind, applied.outcomes)):  # what they repeat was committed, but not by us
                await self._follow()
        except ResponderError as fault:
            for waiting in batch:
                _settle(waiting.outcome, fault)
            raise
        except BaseException:
            for waiting in batch:
                waiting.outcome.cancel()
            raise
        self._confirm(list(zip(batch, applied.outcomes, strict=True)))
        return bool(applied.changes)

    def _confirm(self, settled: Sequence[tuple[_Waiting, Outcome | ResponderError]]) -> None:
        """Let the callers go on when all nodes serve their changes. The writer does not wait for that."""
        groups: defaultdict[tuple[Name, int, float], list[tuple[_Waiting, Outcome]]] = defaultdict(list)
        for waiting, outcome in settled:
            if isinstance(outcome, ResponderError):
                _settle(waiting.outcome, outcome)
            else:
                groups[outcome.apex, outcome.serial, waiting.confirmation].append((waiting, outcome))
        for (apex, serial, within), group in groups.items():
            if self._nodes.are_alone(apex):
                self._settle_all(group, Confirmation(confirmed=(self._nodes.name,)))
            else:
                task = asyncio.create_task(self._confirm_group(apex, serial, within, group))
                self._confirming.add(task)
                task.add_done_callback(self._confirming.discard)

    async def _confirm_group(
        self, apex: Name, serial: int, within: float, group: Sequence[tuple[_Waiting, Outcome]]
    ) -> None:
        with metrics.PROPAGATION.time():
            confirmation = await self._nodes.confirm(apex, serial, within=within)
        self._settle_all(group, confirmation)

    def _settle_all(self, group: Sequence[tuple[_Waiting, Outcome]], confirmation: Confirmation) -> None:
        for waiting, outcome in group:
            if confirmation.unconfirmed and self._require_all:
                _settle(waiting.outcome, Unconfirmed(confirmation.unconfirmed))
            else:
                found = replace(outcome, confirmed=confirmation.confirmed, unconfirmed=confirmation.unconfirmed)
                _settle(waiting.outcome, found)

    async def _sweep(self) -> bool:
        """Remove expired values and record refusals. Returns whether values may be left to remove."""
        changes = await self._store.expire(now=self._clock())
        await self._publish(changes)
        if refusals := self._refusals.take():
            await self._store.record(refusals)
        return bool(changes)

    async def _publish(self, changes: Sequence[Change]) -> None:
        """Make committed changes live, together with any that somebody else committed before them."""
        complete = [change if self._is_next(change) else await self._catch_up(change.apex) for change in changes]
        await self._announce([change for change in complete if change is not None])

    async def _follow(self) -> None:
        """Notice what others committed."""
        serials = await self._store.serials()
        behind = [apex for apex, serial in serials.items() if serial != self._published.get(apex)]
        await self._announce([change for apex in behind if (change := await self._catch_up(apex)) is not None])
        if not self._has_settled:  # until now, nameservers that an earlier control process left may have been behind
            await self._publisher.settle()
            self._has_settled = True
            self._nodes.applied(self._published)

    def _is_next(self, change: Change) -> bool:
        return change.previous == self._published.get(change.apex)

    def _is_behind(self, outcome: Outcome | ResponderError) -> bool:
        """Whether the zone has moved on to *outcome* without our having published that."""
        return isinstance(outcome, Outcome) and outcome.serial != self._published.get(outcome.apex)

    async def _catch_up(self, apex: Name) -> Change | None:
        """Everything in the zone since what was published last; None if that took a whole new snapshot."""
        change = await self._store.changes_since(apex, self._published.get(apex, 0))
        if change is None or apex in change.names:  # another node may have begun with other static records
            await self._store.compare_statics(self._nodes.statics)
        if change is None:
            # Read first: what is committed during the reload is published after it.
            serials = await self._store.serials()
            await self._publisher.reload()
            self._published |= serials
            self._nodes.applied(self._published)
        return change

    async def _announce(self, changes: Sequence[Change]) -> None:
        with metrics.PUBLISH.time() if changes else contextlib.nullcontext():
            await self._publisher.publish(changes)
        for change in changes:
            self._published[change.apex] = change.serial
        if changes:
            self._nodes.applied(self._published)


async def within(patience: float, outcome: asyncio.Future[Outcome]) -> Outcome:
    """The *outcome*, for which its caller waits *patience* seconds. The change goes on if that is too short."""
    try:
        return await asyncio.wait_for(asyncio.shield(outcome), patience)
    except TimeoutError:
        raise StoreUnavailable("the database takes too long: it may still store the change: try again") from None


def _settle(future: asyncio.Future[Outcome], result: Outcome | ResponderError) -> None:
    if future.done():  # its caller hung up; what it asked for is done all the same
        return
    if isinstance(result, ResponderError):
        future.set_exception(result)
    else:
        future.set_result(result)
