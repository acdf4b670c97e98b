"""What tests of processes and sockets share: waiting for what has to come about, and other processes' lives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

PATIENCE = 60.0
"""Seconds until what takes milliseconds, or a program a second or two, is given up, even on a busy machine."""


def rest(began: float, least: float = 0.001) -> float:
    """
    Seconds until the next look at a condition, for a look that *began* at this time of the thread's processor.

    A look that is costly, such as one at all processes, must not take the processor from what it waits for.
    """
    return max(least, 4 * (time.thread_time() - began))


async def eventually(condition: Callable[[], object], what: str) -> None:
    """Let the event loop turn until *condition* holds; fails the test, naming *what*, if it never does."""
    deadline = time.monotonic() + PATIENCE
    began = time.thread_time()
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"never came about: {what}")
        await asyncio.sleep(rest(began))
        began = time.thread_time()


async def polled(check: Callable[[], Awaitable[object]], what: str) -> None:
    """As `eventually`, for what has to be asked of somebody."""
    deadline = time.monotonic() + PATIENCE
    while True:
        if await check():
            return
        if time.monotonic() > deadline:
            pytest.fail(f"never came about: {what}")
        await asyncio.sleep(0.05)


def wait_until(condition: Callable[[], object], what: str) -> None:
    """As `eventually`, for what other processes do."""
    asyncio.run(eventually(condition, what))


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and was not yet asked for its status does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].decode().split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):  # gone before it was opened, or before it was read
        return False
