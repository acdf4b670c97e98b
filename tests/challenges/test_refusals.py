"""Refused requests, until they are put on record: none hides another one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from responder.challenges import refusals
from responder.challenges.refusals import Refusals
from responder.store import AuditAction, AuditEvent, AuditResult

NOW = datetime(2030, 1, 1, tzinfo=UTC)
ONE, OTHER = UUID(int=1), UUID(int=2)


def refused(reason: str, *, token: UUID = ONE, client: str = "192.0.2.1", after: int = 0) -> AuditEvent:
    return AuditEvent(
        at=NOW + timedelta(seconds=after),
        action=AuditAction.PRESENT,
        result=AuditResult.REFUSED,
        token_id=token,
        client=client,
        reason=reason,
    )


def test_equal_ones_are_counted() -> None:
    """A client in a loop is one event, with the time of its first request; another client is another event."""
    collected = Refusals()
    for after in range(1, 1001):
        collected.add(refused("no", after=after))
    collected.add(refused("no", client="198.51.100.7", after=7))

    assert [
        refused("no (1000 times)", after=1),
        refused("no", client="198.51.100.7", after=7),
    ] == collected.take()
    assert [] == collected.take()


def test_each_token_has_places_of_its_own() -> None:
    """Any number of different refusals of one token leaves those of another; what has no place is counted."""
    collected = Refusals()
    collected.add(refused("the one that matters", token=OTHER))
    for number in range(100):
        collected.add(refused(f"no {number}"))

    events = collected.take()

    assert refused("the one that matters", token=OTHER) in events
    mine = [event for event in events if event.token_id == ONE]
    assert [f"no {number}" for number in range(refusals.MAX_KINDS)] == [event.reason for event in mine[:-1]]
    assert "refused for other reasons (80 times)" == mine[-1].reason
    assert mine[-1].client is None


def test_tokens_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held does not grow with the number of tokens either."""
    monkeypatch.setattr(refusals, "MAX_TOKENS", 2)
    collected = Refusals()
    for number in range(4):
        collected.add(refused("no", token=UUID(int=number)))
    collected.add(refused("no", token=UUID(int=0)))

    assert ["no (2 times)", "no"] == [event.reason for event in collected.take()]
