"""
The operations that wait for the writer, and how they become batches.

All operations that wait together share one transaction (group commit), in the order in which they came.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass

from responder.errors import ResponderError, StoreUnavailable
from responder.store import Operation, Outcome, Update

MAX_BATCH = 512
"""Operations in one transaction: enough to share a disk write, and few enough that none waits long for the others."""

MAX_WAITING = 4096
"""Operations that may wait. If there are more, the database has stopped, and callers should know that at once."""

GATHER_DEADLINE = 0.01
"""Seconds that the first of many operations waits for the others at most: about the time of the shared transaction."""

PATIENCE = 10.0
"""Seconds that a caller waits until its change is stored and served. ACME clients wait for ten seconds or more."""

UPDATE_PATIENCE = 1.8
"""The same for DNS updates: the client of cert-manager waits for 2 s."""

UPDATE_CONFIRMATION = 1.5
"""Seconds of `UPDATE_PATIENCE` that a DNS update waits for other nodes."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """An *operation*, and the *outcome* that its caller waits for."""

    operation: Operation
    outcome: asyncio.Future[Outcome]

    @property
    def confirmation(self) -> float:
        """Seconds that there are until all nodes have to serve it."""
        return UPDATE_CONFIRMATION if isinstance(self.operation, Update) else PATIENCE

    def settle(self, result: Outcome | ResponderError) -> None:
        """Give the caller its result. It may have hung up; its operation was carried out all the same."""
        if self.outcome.done():
            return
        if isinstance(result, ResponderError):
            self.outcome.set_exception(result)
            self.outcome.exception()  # mark it as retrieved: a caller that has hung up does not do that
        else:
            self.outcome.set_result(result)


class Queue:
    """The operations that wait for the writer."""

    def __init__(self) -> None:
        self._waiting: deque[Waiting] = deque()
        self._wake = asyncio.Event()  # set when an operation waits, or after `wake`
        self._usual = 1  # operations in the last batch

    def add(self, operation: Operation) -> asyncio.Future[Outcome]:
        """Add *operation* behind all others. Raises `StoreUnavailable` if too many of them wait."""
        if len(self._waiting) >= MAX_WAITING:
            raise StoreUnavailable("too many changes are waiting for the database: try again in a while")
        waiting = Waiting(operation, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._wake.set()
        return waiting.outcome

    def wake(self) -> None:
        """Let `take` return at once, even if no operation waits."""
        self._wake.set()

    async def take(self, timeout: float) -> list[Waiting]:  # noqa: ASYNC109  # the time until the first operation
        """
        Return the next batch: the operations that wait, or none after *timeout* seconds without one.

        If many came last time, it waits a moment for as many.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._wake.wait()
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
        Wait until *usual* operations are there, so that requests that come together share a transaction.

        A single caller waits for this once at most, right after many came. (It is what PostgreSQL does with
        commit_delay and commit_siblings.)
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + GATHER_DEADLINE
        while len(self._waiting) < usual and loop.time() < until:  # noqa: ASYNC110  # other tasks must run meanwhile
            await asyncio.sleep(0)


async def within(patience: float, outcome: asyncio.Future[Outcome]) -> Outcome:
    """
    Wait for *outcome*, for at most *patience* seconds, and return it. The operation goes on after that.

    Raises `StoreUnavailable` if it takes longer.
    """
    try:
        async with asyncio.timeout(patience):
            return await asyncio.shield(outcome)
    except TimeoutError:
        raise StoreUnavailable("the database takes too long, and may still store the change: try again") from None
