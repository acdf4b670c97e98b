"""
Confirmed propagation: waiting until every node that may answer a query serves a change.

A node without a live lease knows that it may be stale. It is waited for only until it must have noticed that other
nodes are ahead of it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from responder.names import Name
from responder.nodes.membership import Membership


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """The names of the nodes that have confirmed a change, including this one, and of those that have not."""

    confirmed: tuple[str, ...]
    unconfirmed: tuple[str, ...] = ()


async def confirm(membership: Membership, apex: Name, serial: int, *, deadline: float) -> Confirmation:
    """
    Wait until every other live node serves *serial* of the zone *apex*, for at most *deadline* seconds.

    This node must serve it already.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(deadline):
            await membership.wait_for(lambda: not _behind(membership, apex, serial))
    behind = _behind(membership, apex, serial)
    live = [node.name for node in membership.others(apex) if node.is_live]
    confirmed = sorted({membership.myself.name, *live} - {*behind})
    return Confirmation(confirmed=tuple(confirmed), unconfirmed=tuple(behind))


def _behind(membership: Membership, apex: Name, serial: int) -> list[str]:
    return [node.name for node in membership.others(apex) if node.zones[apex].serial < serial]
