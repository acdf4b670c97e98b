"""
Requests that were refused before they reached the database, until they are put on record.

They come as fast as clients send them, and the audit is to show each kind of them without being filled: so equal ones
are counted, and each token has places of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from uuid import UUID

from responder.store import AuditAction, AuditEvent

MAX_KINDS = 20
"""Different refusals kept of one token between two records, 5 s apart; of the rest there is only the number."""

MAX_TOKENS = 1000
"""Tokens of which refusals are kept. Only tokens that exist come here, and hardly any is refused anything."""

_Kind = tuple[AuditAction, str | None, str | None]
"""Action, client and reason: what makes two refusals of one token equal."""


@dataclass(slots=True)
class _Refused:
    """The first of some equal refusals, and their number."""

    event: AuditEvent
    number: int = 1

    def summary(self) -> AuditEvent:
        if self.number == 1:
            return self.event
        return replace(self.event, reason=f"{self.event.reason} ({self.number} times)")


class Refusals:
    """Collects refusals. What is more than there are places for is counted."""

    def __init__(self) -> None:
        self._tokens: dict[UUID | None, dict[_Kind, _Refused]] = {}
        self._others: dict[UUID | None, _Refused] = {}

    def add(self, event: AuditEvent) -> None:
        """Note that a request was refused."""
        if event.token_id not in self._tokens and len(self._tokens) >= MAX_TOKENS:
            return
        kinds = self._tokens.setdefault(event.token_id, {})
        kind = event.action, event.client, event.reason
        if kind in kinds:
            kinds[kind].number += 1
        elif len(kinds) < MAX_KINDS:
            kinds[kind] = _Refused(event)
        elif event.token_id in self._others:
            self._others[event.token_id].number += 1
        else:
            self._others[event.token_id] = _Refused(replace(event, client=None, reason="refused for other reasons"))

    def take(self) -> list[AuditEvent]:
        """All that were collected since the last call, in the order of time."""
        events = sorted(self._summaries(), key=lambda event: event.at)
        self._tokens, self._others = {}, {}
        return events

    def _summaries(self) -> Iterator[AuditEvent]:
        for kinds in self._tokens.values():
            yield from (refused.summary() for refused in kinds.values())
        yield from (refused.summary() for refused in self._others.values())
