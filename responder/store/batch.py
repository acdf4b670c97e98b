"""
What a batch of presents and cleanups does to the values of some names. Pure: no database, no clock.

Several requests share one transaction because a commit costs the same for one as for a hundred; in here they are
still taken one after the other, and one that is refused does not touch the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never
from uuid import UUID

from responder.errors import Refused, ResponderError, TooManyValues
from responder.names import Name
from responder.store.schema import round_up
from responder.zone import Change

MAX_VALUES = 16
"""Values at one name: enough for several clusters and wildcards at once, and the answer still fits one UDP reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """Make *value* one of those at *challenge_name*, until *expires_at*. *evict_oldest* makes room at a full name."""

    token_id: UUID
    challenge_name: Name
    value: str
    expires_at: datetime
    client: str
    evict_oldest: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleanup:
    """Make sure that *value* is none of those at *challenge_name*."""

    token_id: UUID
    challenge_name: Name
    value: str
    client: str


Operation = Present | Cleanup


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """
    What one operation came to. *serial* is that of its zone after the commit; *expires_at* that of the value, None
    after a cleanup; *changed* whether the operation added or removed a value.
    """

    serial: int
    expires_at: datetime | None
    changed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What a batch came to: one outcome or error for each operation, in order, and what to publish."""

    outcomes: list[Outcome | ResponderError]
    changes: list[Change]


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A value that is in place: who presented it last, when, and until when it stays."""

    token_id: UUID
    presented_at: datetime
    expires_at: datetime


Values = Mapping[str, Held]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What one accepted operation did; *evicted* is the value that had to make room."""

    changed: bool
    expires_at: datetime | None = None
    evicted: str | None = None


def settle(
    operations: Sequence[Operation],
    before: Mapping[Name, Values],
    permit: Callable[[Operation], None],
    *,
    now: datetime,
) -> tuple[list[Effect | Refused], dict[Name, dict[str, Held]]]:
    """
    Take *operations* in order and return what became of each, and the values of every name afterwards.

    *before* has an entry for each name that a permitted operation is about; *permit* raises `Refused`.
    """
    after = {name: dict(values) for name, values in before.items()}
    effects: list[Effect | Refused] = []
    for operation in operations:
        try:
            permit(operation)
            effects.append(_settle(operation, after[operation.challenge_name], now))
        except Refused as refusal:
            effects.append(refusal)
    return effects, after


def _settle(operation: Operation, values: dict[str, Held], now: datetime) -> Effect:
    match operation:
        case Present():
            return _present(operation, values, now)
        case Cleanup():
            return Effect(changed=values.pop(operation.value, None) is not None)
        case _:
            assert_never(operation)


def _present(operation: Present, values: dict[str, Held], now: datetime) -> Effect:
    held = Held(token_id=operation.token_id, presented_at=now, expires_at=round_up(operation.expires_at))
    current = values.get(operation.value)
    if current is not None:
        # It now belongs to whoever asked last: revoking the token of the first must not take it from them.
        held = replace(held, expires_at=max(held.expires_at, current.expires_at))
    evicted = None
    if current is None and len(values) >= MAX_VALUES:
        evicted = _make_room(operation, values, now)
    values[operation.value] = held
    return Effect(changed=current is None, expires_at=held.expires_at, evicted=evicted)


def _make_room(operation: Present, values: dict[str, Held], now: datetime) -> str:
    """Drop one value, an expired one if there is any: it is only waiting to be swept up."""
    oldest = min(values, key=lambda value: (values[value].expires_at > now, values[value].presented_at, value))
    if values[oldest].expires_at > now and not operation.evict_oldest:
        raise TooManyValues(
            f"{operation.challenge_name} holds {MAX_VALUES} values already: clean up those that are no longer needed"
        )
    del values[oldest]
    return oldest
