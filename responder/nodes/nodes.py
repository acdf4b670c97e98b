"""
The nodes as the rest of the control process uses them: it reports its commits and the serials that it serves, and waits
for confirmation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from responder.names import Name
from responder.nodes.confirmation import Confirmation, confirm
from responder.nodes.membership import Membership
from responder.store import Hint, Hints


class Nameservers(Protocol):
    """The nameservers of this node: the `Publisher` of `responder.feed`."""

    def vouch(self, seconds: float) -> None:
        """Let the nameservers answer for challenge values for that many seconds."""

    async def check(self) -> None:
        """Return when every nameserver has acknowledged that; one that hangs is killed."""


@dataclass(eq=False)
class Nodes:
    """
    This node, with its *membership*, and the other nodes.

    *deadline* is the number of seconds that a change may take until all nodes serve it.
    """

    membership: Membership
    deadline: float
    _hints: Hints | None = None

    @property
    def name(self) -> str:
        """The name of this node."""
        return self.membership.myself.name

    @property
    def statics(self) -> Mapping[Name, str]:
        """The digests of the static records of the zones that this node serves."""
        return self.membership.myself.statics

    def are_alone(self, apex: Name) -> bool:
        """Return whether no other live node serves the zone *apex*."""
        return not self.membership.others(apex)

    def committed(self) -> None:
        """Send the other nodes a hint that this node has committed a change."""
        self._send(Hint.COMMITTED)

    def applied(self, serials: Mapping[Name, int]) -> None:
        """Note that every nameserver of this node serves these *serials*, and report it to the other nodes."""
        self.membership.applied(serials)

    async def confirm(self, apex: Name, serial: int, *, within: float) -> Confirmation:
        """Wait until all live nodes serve *serial* of *apex*, at most until the deadline and for *within* seconds."""
        return await confirm(self.membership, apex, serial, deadline=min(within, self.deadline))

    async def run(self, listen_url: str | None, look: Callable[[], object]) -> None:
        """
        Renew the lease and exchange hints until cancelled. *look* is called when another node has committed a change.

        *listen_url* is the URL for the hints: None for that of the database, "" for no hints.
        """

        def hear(hint: Hint) -> None:
            (look if hint is Hint.COMMITTED else self.membership.look)()

        me, store = self.membership.myself, self.membership.store
        self._hints = store.hints(listen_url, name=me.name, instance=me.instance, heard=hear)
        self.membership.share = lambda: self._send(Hint.APPLIED)
        async with asyncio.TaskGroup() as group:
            group.create_task(self.membership.run())
            if self._hints is not None:
                group.create_task(self._hints.run())

    async def leave(self, nameservers: Nameservers) -> None:
        """End the lease. Before that, the nameservers of this node stop answering for challenge values."""
        if not self.membership.is_alone:
            nameservers.vouch(0.0)
            await nameservers.check()
        await self.membership.leave()

    def _send(self, hint: Hint) -> None:
        if self._hints is not None:
            self._hints.send(hint)
