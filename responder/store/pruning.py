"""
Limits the size of the tables that grow with use: the audit, the journal, and the tokens of commands.

If there are too many events, the oldest ones of the tokens with the most events are deleted. So a client that floods
the audit loses its own events, and no others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta

import structlog

from responder.errors import StoreUnavailable
from responder.logs import Seldom
from responder.store import audit, journal, tokens
from responder.store.database import Database

AUDIT_KEPT = timedelta(days=90)
"""How long the events of the audit are kept."""

TEMPORARY_KEPT = timedelta(days=1)
"""How long the tokens that commands minted for themselves are kept after their end, for `token list`."""

MAX_SWEPT = 100
"""Such tokens that are deleted in one transaction."""

MAX_EVENTS = 1_000_000
"""Events that are kept at most, about 200 MB. At 95 % of it, events are deleted down to 90 %."""

MAX_PRUNED = 2000
"""Rows deleted in one transaction; it takes 10 ms, and presents may wait for it. Above `MAX_EVENTS`, ten times that."""

MAX_HOLDERS = 500
"""Tokens that lose events in one pass; they are parameters of one statement."""

LOOK_INTERVAL = 1.0
"""Seconds between two checks whether pruning is due."""

PRUNE_EVERY = timedelta(minutes=10)
"""The time between two prunings if few events were written."""

PRUNE_AFTER = 5000
"""The number of new events after which pruning is due at once."""

FAULT_INTERVAL = 600.0
"""Seconds between two reports of faults of one kind."""

_log = structlog.get_logger("store")


class Pruning:
    """Deletes rows that are too old or above a limit, a limited number of them in one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._newest = 0  # the event that was the newest at the last look
        self._due: datetime | None = None

    async def run(self, clock: Callable[[], datetime]) -> None:
        """Prune whenever it is due, until cancelled. A database that does not answer is reported elsewhere."""
        seldom = Seldom(FAULT_INTERVAL)
        while True:
            try:
                await self.prune(clock())
            except StoreUnavailable:
                pass
            except Exception as fault:  # noqa: BLE001  # the edge of a task: presents do not depend on pruning
                if (missing := seldom.due(type(fault).__name__)) is not None:
                    _log.error("pruning failed", more=missing, exc_info=fault)
            await asyncio.sleep(LOOK_INTERVAL)

    async def prune(self, now: datetime) -> None:
        """Delete all rows that have to go, if pruning is due. If it is not, this is one small read."""
        newest = await self._database.read(audit.newest)
        if self._due is not None and now < self._due and newest < self._newest + PRUNE_AFTER:
            return
        while ids := await self._database.read(audit.before, now - AUDIT_KEPT, MAX_PRUNED):
            await self._database.write(audit.forget, ids)
        while await self._database.write(journal.prune, MAX_PRUNED):
            pass
        while await self._database.write(tokens.sweep, now - TEMPORARY_KEPT, MAX_SWEPT, at=now):
            pass
        while await self._database.read(audit.count) > _part(19, 20):
            await self._forget_surplus(_part(9, 10))
        self._newest, self._due = newest, now + PRUNE_EVERY

    async def _forget_surplus(self, room: int) -> None:
        """Delete events until at most *room* are left, or until each token has lost its surplus."""
        left = surplus(await self._database.read(audit.shares), room)
        after = 0
        while left and (size := await self._database.read(audit.count)) > room:  # other nodes do the same
            limit = MAX_PRUNED if size <= MAX_EVENTS else 10 * MAX_PRUNED
            found = await self._database.read(audit.oldest_of, [*left], after, min(limit, size - room))
            if not found:
                return
            after, _ = found[-1]
            await self._database.write(audit.forget, _take(found, left))


def _part(numerator: int, denominator: int) -> int:
    return MAX_EVENTS * numerator // denominator


def _take(found: Iterable[tuple[int, str]], left: dict[str, int]) -> list[int]:
    """Return the ids of those events in *found* that their holders have to lose, and subtract them from *left*."""
    ids = []
    for number, holder in found:
        if holder in left:
            ids.append(number)
            left[holder] -= 1
            if not left[holder]:
                del left[holder]
    return ids


def surplus(shares: Mapping[str, int], room: int) -> dict[str, int]:
    """
    Return how much each of the largest *shares* has to lose so that all of them together fit into *room*.

    All holders keep the same amount, or their whole share if it is smaller. At most `MAX_HOLDERS` are in the result.
    """
    left, level = room, 0
    for number, share in enumerate(sorted(shares.values())):
        level = left // (len(shares) - number)
        if share > level:
            break
        left -= share
    heaviest = sorted(shares, key=shares.__getitem__, reverse=True)[:MAX_HOLDERS]
    return {holder: shares[holder] - level for holder in heaviest if shares[holder] > level}
