"""
How the two tables that grow with use are kept within bounds: the audit and the journal.

When there are too many events, those tokens lose some that have most of them, their oldest first. So a client that
floods the audit loses events of its own, and no others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta

import structlog

from responder.errors import StoreUnavailable
from responder.logs import Seldom
from responder.store import audit, journal
from responder.store.database import Database

AUDIT_KEPT = timedelta(days=90)
"""How long it is known who set and cleared what."""

MAX_EVENTS = 1_000_000
"""Events kept, however young, about 200 MB. Once 95 % are there, 90 % stay: room for those that come meanwhile."""

MAX_PRUNED = 2000
"""Rows deleted in one transaction, which takes 10 ms: presents may wait for it. Ten times that if there is no room."""

MAX_HOLDERS = 500
"""Tokens that lose events in one pass, those that have most of them: parameters of one statement."""

LOOK_INTERVAL = 1.0
"""Seconds between two looks whether there is anything to do."""

PRUNE_EVERY = timedelta(minutes=10)
"""Between two looks at the length of the tables, if little was written."""

PRUNE_AFTER = 5000
"""Events after which there is another look at once."""

FAULT_INTERVAL = 600.0
"""Seconds between two reports of faults of one kind."""

_log = structlog.get_logger("store")


class Pruning:
    """Deletes what is too old or too much, a limited number of rows in one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._newest = 0  # the event that was the newest at the last look
        self._due: datetime | None = None

    async def run(self, clock: Callable[[], datetime]) -> None:
        """Prune whenever that is due, for ever. The database may be away: others report that."""
        seldom = Seldom(FAULT_INTERVAL)
        while True:
            try:
                await self.prune(clock())
            except StoreUnavailable:
                pass
            except Exception as fault:  # noqa: BLE001  # the edge of a task: presents go on without it
                if (missing := seldom.due(type(fault).__name__)) is not None:
                    _log.error("pruning failed", more=missing, exc_info=fault)
            await asyncio.sleep(LOOK_INTERVAL)

    async def prune(self, now: datetime) -> None:
        """Do what is due, to the end; an idle service has one small read."""
        newest = await self._database.read(audit.newest)
        if self._due is not None and now < self._due and newest < self._newest + PRUNE_AFTER:
            return
        while ids := await self._database.read(audit.before, now - AUDIT_KEPT, MAX_PRUNED):
            await self._database.write(audit.forget, ids)
        while await self._database.write(journal.prune, MAX_PRUNED):
            pass
        while await self._database.read(audit.count) > _part(19, 20):
            await self._forget_surplus(_part(9, 10))
        self._newest, self._due = newest, now + PRUNE_EVERY

    async def _forget_surplus(self, room: int) -> None:
        """Forget events until *room* is enough, or as many as were too many at the beginning."""
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
    """The ids of the events in *found* that their holders have to lose, which is taken from what is *left* to lose."""
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
    How much those have to give up that have most, so that all *shares* together, which are more, fit into *room*: each
    gets as much as any other, or all that it has.
    """
    left, level = room, 0
    for number, share in enumerate(sorted(shares.values())):
        level = left // (len(shares) - number)
        if share > level:
            break
        left -= share
    heaviest = sorted(shares, key=shares.__getitem__, reverse=True)[:MAX_HOLDERS]
    return {holder: shares[holder] - level for holder in heaviest if shares[holder] > level}
