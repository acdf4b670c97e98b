"""
What this node serves according to its configuration: its zones, and the challenge names that can show values. Pure.

The zone of a challenge name is decided when the name is granted, and is stored with it: the name stays in that zone if
other zones are added to the configuration or removed from it.
"""

from __future__ import annotations

from dataclasses import dataclass

from responder.names import Name


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """The *apexes* of the zones that are served, and the *aliases*: names in them with a CNAME, which hides values."""

    apexes: frozenset[Name]
    aliases: frozenset[Name] = frozenset()

    def fault(self, challenge_name: Name, apex: Name) -> str | None:
        """Why values at *challenge_name*, in the zone of *apex*, are not served; None if they are."""
        if apex not in self.apexes:
            return f"{challenge_name} is in the zone {apex}, which is not served here"
        if challenge_name in self.aliases:
            return f"{challenge_name} is a CNAME in the configuration, which hides values"
        return None
