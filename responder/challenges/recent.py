"""
What this node has published recently, so that it can be named if the database loses it.

It is no copy of the zones: nameservers have that. It is only kept for the log, and bounded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

from responder.dns.zone import Change
from responder.names import Name
from responder.store import NameState

MAX_NAMES = 10_000
"""Names of which the last state is known: more than change in the seconds that a standby server may be behind."""


class Recent:
    """The state of the names that changed last."""

    def __init__(self) -> None:
        self._states: OrderedDict[Name, NameState] = OrderedDict()

    @property
    def states(self) -> Mapping[Name, NameState]:
        """The values of each of them, as they were published."""
        return self._states

    def note(self, changes: Iterable[Change]) -> None:
        """These were published."""
        for change in changes:
            for name, state in change.names.items():
                self._states[name] = state
                self._states.move_to_end(name)
        while len(self._states) > MAX_NAMES:
            self._states.popitem(last=False)

    def forget(self) -> None:
        """All of it was published anew, from another state of the database."""
        self._states.clear()
