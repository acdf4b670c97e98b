"""
Refused requests that never reached the database, kept until they are written to the audit.

Clients can cause them at any rate, and they must not fill the audit. So equal refusals become one event with a number,
and the number of different ones is limited for each token.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from uuid import UUID

from responder.store import AuditAction, AuditEvent

MAX_KINDS = 20
"""Different refusals of one token that are kept in the 5 s between two writes; further ones are only counted."""

MAX_TOKENS = 1000
"""Tokens whose refusals are kept. Only existing tokens come here, and hardly any of them is ever refused."""

_Kind = tuple[AuditAction, str | None, str | None]
"""Action, client and reason. Two refusals of one token are equal if these are equal."""


@dataclass(slots=True)
class _Refused:
    """The first of several equal refusals, and their number."""

    event: AuditEvent
    number: int = 1

    def summary(self) -> AuditEvent:
        if self.number == 1:
            return self.event
        return replace(self.event, reason=f"{self.event.reason} ({self.number} times)")


class Refusals:
    """Collects refusals. Refusals above `MAX_KINDS` of one token are only counted."""

    def __init__(self) -> None:
        self._tokens: dict[UUID | None, dict[_Kind, _Refused]] = {}
        self._others: dict[UUID | None, _Refused] = {}

    def add(self, event: AuditEvent) -> None:
        """Add the refusal of one request."""
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
        """Return all refusals since the last call, oldest first, and forget them."""
        events = sorted(self._summaries(), key=lambda event: event.at)
        self._tokens, self._others = {}, {}
        return events

    def _summaries(self) -> Iterator[AuditEvent]:
        for kinds in self._tokens.values():
            yield from (refused.summary() for refused in kinds.values())
        yield from (refused.summary() for refused in self._others.values())
