"""
The nodes as the rest of the control process uses them: it reports commits and what it serves, and waits for
confirmation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from responder.names import Name
from responder.nodes.confirmation import Confirmation, confirm
from responder.nodes.membership import Membership
from responder.store import Hint, Hints


@dataclass(eq=False)
class Nodes:
    """
    This node, by its *membership*, and the others.

    *deadline* is the time in seconds that a change has until all of them serve it.
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
        """The zones that this node serves, with digests of their static records."""
        return self.membership.myself.statics

    def are_alone(self, apex: Name) -> bool:
        """Whether no other live node serves the zone *apex*."""
        return not self.membership.others(apex)

    def committed(self) -> None:
        """A change was committed here: let the others look for it."""
        self._send(Hint.COMMITTED)

    def applied(self, serials: Mapping[Name, int]) -> None:
        """Every nameserver of this node serves these *serials* now."""
        self.membership.applied(serials)

    async def confirm(self, apex: Name, serial: int, *, within: float) -> Confirmation:
        """Wait until all live nodes serve *serial* of *apex*: until the deadline, and *within* seconds at most."""
        return await confirm(self.membership, apex, serial, deadline=min(within, self.deadline))

    async def run(self, listen_url: str | None, look: Callable[[], object]) -> None:
        """
        Renew the lease, and exchange hints, until cancelled. *look* is called when another node has committed.

        *listen_url* is the database to listen on: None for the same, "" for no hints.
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

    def _send(self, hint: Hint) -> None:
        if self._hints is not None:
            self._hints.send(hint)
