"""
What the configuration of this node serves: its zones, and which challenge names in them show values. Pure.

Which zone holds a challenge name was decided when it was granted, and is in the database with it: a name does not move
to another zone because that one begins or ceases to be configured.
"""

from __future__ import annotations

from dataclasses import dataclass

from responder.names import Name


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """The zones that are served, by their *apexes*, and the *aliases* in them, at which a CNAME hides values."""

    apexes: frozenset[Name]
    aliases: frozenset[Name] = frozenset()

    def fault(self, challenge_name: Name, apex: Name) -> str | None:
        """Why values at *challenge_name*, in the zone of *apex*, are not served; None if they are."""
        if apex not in self.apexes:
            return f"{challenge_name} is in the zone {apex}, which is not served here"
        if challenge_name in self.aliases:
            return f"{challenge_name} is a CNAME in the configuration, which hides values"
        return None
