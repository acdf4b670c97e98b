"""
Confirmed propagation: a change is confirmed by every node that may be asked for it.

A node that may answer queries has a live lease, so a node without one is not waited for: it knows that it may be stale.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from responder.names import Name
from responder.nodes.membership import Membership


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """Which nodes serve a change, by name: those that confirmed it, this one among them, and those that did not."""

    confirmed: tuple[str, ...]
    unconfirmed: tuple[str, ...] = ()


async def confirm(membership: Membership, apex: Name, serial: int, *, deadline: float) -> Confirmation:
    """
    Wait until every other live node serves *serial* of *apex*, for *deadline* seconds at most.

    This node serves it already.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(deadline):
            await membership.wait_for(lambda: not _behind(membership, apex, serial))
    behind = _behind(membership, apex, serial)
    live = [node.name for node in membership.others(apex)]
    confirmed = sorted({membership.myself.name, *live} - {*behind})
    return Confirmation(confirmed=tuple(confirmed), unconfirmed=tuple(behind))


def _behind(membership: Membership, apex: Name, serial: int) -> list[str]:
    return [node.name for node in membership.others(apex) if node.zones[apex].serial < serial]
