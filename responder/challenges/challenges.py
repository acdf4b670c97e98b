"""
The writer, which carries out all presents, cleanups and updates, and removes expired values.

Callers put their operations into a queue. One task takes all that wait into one transaction (group commit), publishes
the changes, and only then lets the callers go on: an acknowledged change is stored and served. The same task follows
the commits of others (the command line, other nodes), so changes are always published in the order of their serials. It
also writes requests that were refused earlier to the audit.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from responder import metrics
from responder.challenges.queue import PATIENCE, Queue, Waiting, within
from responder.challenges.recent import Recent
from responder.challenges.refusals import Refusals
from responder.dns.zone import Change
from responder.errors import (
    Refused,
    ResponderError,
    StoreMoved,
    Unavailable,
    Unconfirmed,
    WrongAccount,
)
from responder.feed import Publisher
from responder.logs import Outage
from responder.names import Name
from responder.nodes import Confirmation, Nodes
from responder.store import (
    AuditAction,
    AuditEvent,
    AuditResult,
    Cleanup,
    Outcome,
    Present,
    Step,
    Store,
    Update,
)
from responder.tokens.serving import Serving
from responder.tokens.token import Grant, Token
from responder.tokens.values import parse_value

MAX_LOGGED = 100
"""Lost values in one line of the log. Of the others, the line has the number."""

_EARLIER = "the database is in an earlier state than what is served: try again"

_log = structlog.get_logger("challenges")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often the writer does its regular work, in seconds."""

    follow: float = 0.5
    """Between checks for commits of others, which promise to take effect within a second."""

    check: float = 2.0
    """Between checks of the nameservers: resolvers wait in vain for one that hangs."""

    sweep: float = 5.0
    """Between removals of expired values. Values live for hours, so some seconds more do not matter."""

    prove: float = 60.0
    """Between proofs that changes can be made, while no client makes any."""

    settled: float = 10.0
    """Without a fault, until changes count as possible again: small changes may succeed where larger ones fail."""


class Challenges:
    """The operations on challenge values, and the one writer that carries them out."""

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
        *lifetime* is the default lifetime of a value. *published* are the serials of the zones, read before *publisher*
        sent a snapshot to any nameserver: all later changes are published when the writer starts, perhaps a second
        time. With *require_all*, a change that a live node does not serve in time raises `Unconfirmed`.
        """
        self._store = store
        self._publisher = publisher
        self._nodes = nodes
        self._require_all = require_all
        self._serving = serving
        self.lifetime = lifetime
        self._clock = clock
        self._pace = pace or Pace()
        self._queue = Queue()
        self._queue.wake()  # follow at once: other nodes wait until this one has reported what it serves
        self._has_settled = False
        self._look_due = 0.0
        self._confirming: set[asyncio.Task[None]] = set()
        self._refusals = Refusals()
        self._recent = Recent()
        self._has_moved = False
        self._published = dict(published)
        self._turn = asyncio.Lock()  # held while changes are published, so that they are in the order of their serials
        self._prove_due = 0.0
        self._outage = Outage(
            _log,
            "no change can be made: DNS goes on with what is in memory",
            "changes can be made again",
            settled=self._pace.settled,
        )

    @property
    def condition(self) -> str:
        """Whether changes can be made: "ok", or "failed: " and the reason."""
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
        Publish *value* at the challenge name of *grant*. Returns when every nameserver serves it.

        A token that is pinned to an ACME account needs the *acme_token* of the challenge. *evict_oldest* removes the
        oldest value if the name is full. Raises `InvalidValue`, `WrongAccount`, `TooManyValues`, `Unauthenticated` (the
        token was revoked meanwhile), `NotServed`, `Unavailable`.
        """
        self._check_account(token, value, acme_token, client)
        return await within(
            PATIENCE,
            self._queue.add(
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
        """
        Remove *value*, and no other, from the challenge name of *grant*. An absent value is not an error.

        Raises the errors of `present` except `WrongAccount` and `TooManyValues`.
        """
        return await within(
            PATIENCE,
            self._queue.add(
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
        Carry out all of *steps* in order, or none of them. There must be at least one step, and all of them must be at
        names of one zone that *token* covers.

        Updates take effect in the order of these calls. This method and the returned future raise the errors of
        `present`; the future may also raise `PrerequisiteFailed`.
        """
        for step in steps:
            if isinstance(step, Present):
                self._check_account(token, step.value, None, step.client)
        return self._queue.add(Update(steps=tuple(steps)))

    @property
    def published(self) -> Mapping[Name, int]:
        """The serial of each zone that the nameservers of this node serve."""
        return self._published

    async def follow(self) -> None:
        """Publish what others have committed until now, such as a new token. Raises `Unavailable`."""
        async with self._turn:
            await self._follow()

    def look(self) -> None:
        """Let the writer follow the commits of others at once."""
        self._look_due = 0.0
        self._queue.wake()

    def note_refusal(self, token: Token, action: AuditAction, refusal: Refused, *, client: str) -> None:
        """Note for the audit that a request with *token* was refused. Equal refusals become one event (`refusals`)."""
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
        """Run the writer until cancelled. Callers that still wait then get no outcome: stop them first."""
        sweep_due = check_due = 0.0
        pace, loop = self._pace, asyncio.get_running_loop()
        while True:
            batch = [] if self._has_moved else await self._queue.take(timeout=pace.follow)
            try:
                async with self._turn:
                    if self._has_moved:
                        await self._resume()
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
                if isinstance(fault, StoreMoved) and not self._has_moved:
                    self._has_moved = True
                else:
                    await asyncio.sleep(pace.follow)

    def _note_proof(self) -> None:
        """Note that the database has stored a change. Only this ends an outage of writing; a read does not."""
        self._outage.is_over()
        interval = self._pace.prove if self._outage.reason is None else self._pace.follow
        self._prove_due = asyncio.get_running_loop().time() + interval

    def _check_account(self, token: Token, value: str, acme_token: str | None, client: str) -> None:
        try:
            token.check_account(value, acme_token)
        except WrongAccount as refusal:
            self.note_refusal(token, AuditAction.PRESENT, refusal, client=client)
            raise

    async def _commit(self, batch: Sequence[Waiting]) -> bool:
        """Commit *batch* in one transaction, publish it, and then settle it. Returns whether it changed anything."""
        try:
            with metrics.COMMIT.time():
                operations = [waiting.operation for waiting in batch]
                applied = await self._store.apply(operations, serving=self._serving, now=self._clock())
            metrics.BATCH.observe(len(batch))
            self._nodes.committed()
            await self._publish(applied.changes)
            if any(map(self._is_behind, applied.outcomes)):  # it repeats a change that another node has committed
                await self._follow()
        except ResponderError as fault:
            for waiting in batch:
                waiting.settle(fault)
            raise
        except BaseException:
            for waiting in batch:
                waiting.outcome.cancel()
            raise
        self._confirm(list(zip(batch, applied.outcomes, strict=True)))
        return bool(applied.changes)

    def _confirm(self, settled: Sequence[tuple[Waiting, Outcome | ResponderError]]) -> None:
        """Settle each operation when all nodes serve its change. The writer does not wait for that."""
        groups: defaultdict[tuple[Name, int, float], list[tuple[Waiting, Outcome]]] = defaultdict(list)
        for waiting, outcome in settled:
            if isinstance(outcome, ResponderError):
                waiting.settle(outcome)
            else:
                groups[outcome.apex, outcome.serial, waiting.confirmation].append((waiting, outcome))
        for (apex, serial, patience), group in groups.items():
            if self._nodes.are_alone(apex):
                self._settle_all(group, Confirmation(confirmed=(self._nodes.name,)))
            else:
                task = asyncio.create_task(self._confirm_group(apex, serial, patience, group))
                self._confirming.add(task)
                task.add_done_callback(self._confirming.discard)

    async def _confirm_group(
        self, apex: Name, serial: int, patience: float, group: Sequence[tuple[Waiting, Outcome]]
    ) -> None:
        with metrics.PROPAGATION.time():
            confirmation = await self._nodes.confirm(apex, serial, within=patience)
        self._settle_all(group, confirmation)

    def _settle_all(self, group: Sequence[tuple[Waiting, Outcome]], confirmation: Confirmation) -> None:
        for waiting, outcome in group:
            if confirmation.unconfirmed and self._require_all:
                waiting.settle(Unconfirmed(confirmation.unconfirmed))
            else:
                found = replace(outcome, confirmed=confirmation.confirmed, unconfirmed=confirmation.unconfirmed)
                waiting.settle(found)

    async def _sweep(self) -> bool:
        """Remove expired values and record refusals. Returns whether there may be more values to remove."""
        changes = await self._store.expire(now=self._clock())
        await self._publish(changes)
        if refusals := self._refusals.take():
            await self._store.record(refusals)
        return bool(changes)

    async def _publish(self, changes: Sequence[Change]) -> None:
        """Publish committed changes, together with all changes that others have committed before them."""
        if any(change.previous < self._published.get(change.apex, 0) for change in changes):
            raise StoreMoved(_EARLIER)
        complete = [change if self._is_next(change) else await self._catch_up(change.apex) for change in changes]
        await self._announce([change for change in complete if change is not None])

    async def _follow(self) -> None:
        """Publish what others have committed."""
        serials = await self._store.serials()
        if any(serial < self._published.get(apex, 0) for apex, serial in serials.items()):
            raise StoreMoved(_EARLIER)
        behind = [apex for apex, serial in serials.items() if serial != self._published.get(apex)]
        await self._announce([change for apex in behind if (change := await self._catch_up(apex)) is not None])
        if not self._has_settled:  # nameservers of an earlier control process may have been behind until now
            await self._publisher.settle()
            self._has_settled = True
            self._nodes.applied(self._published)

    def _is_next(self, change: Change) -> bool:
        return change.previous == self._published.get(change.apex)

    def _is_behind(self, outcome: Outcome | ResponderError) -> bool:
        """Return whether *outcome* has a serial that is not published here yet."""
        return isinstance(outcome, Outcome) and outcome.serial != self._published.get(outcome.apex)

    async def _catch_up(self, apex: Name) -> Change | None:
        """Return all changes of a zone since the published serial; None if a new snapshot was published instead."""
        change = await self._store.changes_since(apex, self._published.get(apex, 0))
        if change is None or apex in change.names:  # another node may serve other static records since then
            await self._store.compare_statics(self._nodes.statics)
        if change is None:
            # Read before the reload, so that changes during the reload are published after it.
            await self._reload(await self._store.serials())
        return change

    async def _resume(self) -> None:
        """Go on with a database that may have gone back: with higher serials, and with what is in it."""
        self._nodes.applied(dict.fromkeys(self._published, 0))  # those that count are of the database as it was
        serials = await self._store.resume(self._published, now=self._clock())
        await self._report_lost()
        await self._reload(serials)
        self._has_moved = False

    async def _reload(self, serials: Mapping[Name, int]) -> None:
        """Publish all that is in the database, at least as of *serials*."""
        await self._publisher.reload()
        self._recent.forget()
        self._published |= serials
        self._nodes.applied(self._published)

    async def _report_lost(self) -> None:
        """Name what this node served and the database has not."""
        if lost := await self._store.missing(self._recent.states):
            _log.error(
                "the database has lost values that were served: it is in an earlier state than before",
                values=[f"{name} {value}" for name, value in lost[:MAX_LOGGED]],
                more=max(0, len(lost) - MAX_LOGGED),
            )

    async def _announce(self, changes: Sequence[Change]) -> None:
        with metrics.PUBLISH.time() if changes else contextlib.nullcontext():
            await self._publisher.publish(changes)
        self._recent.note(changes)
        for change in changes:
            self._published[change.apex] = change.serial
        if changes:
            self._nodes.applied(self._published)
