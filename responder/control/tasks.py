"""
Tasks that end with their context, the clock, and when it is the turn of this process.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any


@dataclass(slots=True)
class Turn:
    """
    When this process is the one that works: there may be one before it, and one after it, in a reload. *stop* ends it.
    """

    stop: asyncio.Event
    has_come: asyncio.Event = field(default_factory=asyncio.Event)
    is_over: bool = False

    def end(self) -> None:
        """Let another process go on, for the same instance of the service."""
        self.is_over = True
        self.stop.set()


async def first_of(*events: asyncio.Event) -> None:
    """Return when one of *events* is set."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """Run *work* as a task, and cancel it at the end of the context."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def now() -> datetime:
    return datetime.now(UTC)
