"""
Challenge values: what one may be, and what a batch of presents, cleanups and updates does to the values of some names.
Pure: no database, no clock.

Several requests share one transaction because a commit costs the same for one as for a hundred; in here they are
still taken one after the other, and one that is refused does not touch the others.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import assert_never
from uuid import UUID

from responder.errors import InvalidValue, Refused, TooManyValues
from responder.names import Name

MAX_VALUE = 255
"""Characters of a challenge value: one character-string (RFC 1035, section 3.3)."""

MAX_VALUES = 16
"""Values at one name: enough for several clusters and wildcards at once, and the answer still fits one UDP reply."""

_DIGEST = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """
    Make *value* one of those at *challenge_name*, until *expires_at*. *evict_oldest* makes room at a full name.

    *generation* is that of the secret which was shown, here and in other steps; None where none has to be.
    """

    token_id: UUID
    challenge_name: Name
    value: str
    expires_at: datetime
    client: str
    generation: int | None = None
    evict_oldest: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleanup:
    """Make sure that *value* is none of those at *challenge_name*; None: that there is none at all."""

    token_id: UUID
    challenge_name: Name
    value: str | None
    client: str
    generation: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Expect:
    """
    Go on only if the values at *challenge_name* are exactly *values*, or any at all if that is None; the other way
    round if *negated*. If not, *refusal* is raised.
    """

    token_id: UUID
    challenge_name: Name
    refusal: Refused
    generation: int | None = None
    values: frozenset[str] | None = None
    negated: bool = False


Step = Present | Cleanup | Expect


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """Several steps at names of one zone, of which either all are taken or none (RFC 2136, section 3)."""

    steps: tuple[Step, ...]


Operation = Present | Cleanup | Update


def steps(operation: Operation) -> tuple[Step, ...]:
    """What *operation* consists of."""
    return operation.steps if isinstance(operation, Update) else (operation,)


def names(operation: Operation) -> set[Name]:
    """The challenge names that *operation* is about."""
    return {step.challenge_name for step in steps(operation)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """
    What one operation came to. *serial* is that of its zone, of *apex*, after the commit; *expires_at* that of the
    value, None after a cleanup; *changed* whether the operation added or removed a value. *confirmed* are the names of
    the nodes that serve it by now, *unconfirmed* of those that may be asked and do not.
    """

    apex: Name
    serial: int
    expires_at: datetime | None
    changed: bool
    confirmed: tuple[str, ...] = ()
    unconfirmed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A value that is in place: who presented it last, when, and until when it stays."""

    token_id: UUID
    presented_at: datetime
    expires_at: datetime


Values = Mapping[str, Held]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """
    What one accepted step did; *removed* are the values that it removed, or that had to make room. *taken_over* is
    whether the value of a present was there already, presented by another token.
    """

    changed: bool
    expires_at: datetime | None = None
    removed: tuple[str, ...] = ()
    taken_over: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """Why nothing was done of an operation, and the step that it was refused for."""

    step: Step
    refusal: Refused


def settle(
    operations: Sequence[Operation],
    before: Mapping[Name, Values],
    permit: Callable[[Step], None],
    *,
    now: datetime,
) -> tuple[list[list[Effect] | Rejected], dict[Name, dict[str, Held]]]:
    """
    Take *operations* in order and return what became of the steps of each, and the values of every name afterwards.

    *before* has an entry for each name that a permitted step is about; *permit* raises `Refused`.
    """
    after = {name: dict(values) for name, values in before.items()}
    effects: list[list[Effect] | Rejected] = []
    for operation in operations:
        undo = {name: dict(after[name]) for name in names(operation) & after.keys()}
        taken: list[Effect] = []
        for step in steps(operation):
            try:
                taken.append(_settle(step, after, permit, now))
            except Refused as refusal:
                after |= undo
                effects.append(Rejected(step=step, refusal=refusal))
                break
        else:
            effects.append(taken)
    return effects, after


def _settle(step: Step, after: Mapping[Name, dict[str, Held]], permit: Callable[[Step], None], now: datetime) -> Effect:
    permit(step)
    values = after[step.challenge_name]
    match step:
        case Present():
            return _present(step, values, now)
        case Cleanup():
            return _cleanup(step, values)
        case Expect():
            met = bool(values) if step.values is None else values.keys() == step.values
            if met == step.negated:
                raise step.refusal
            return Effect(changed=False)
        case _:
            assert_never(step)


def _cleanup(step: Cleanup, values: dict[str, Held]) -> Effect:
    removed = tuple(value for value in values if step.value in (None, value))
    for value in removed:
        del values[value]
    return Effect(changed=bool(removed), removed=removed)


def _present(operation: Present, values: dict[str, Held], now: datetime) -> Effect:
    held = Held(token_id=operation.token_id, presented_at=now, expires_at=round_up(operation.expires_at))
    current = values.get(operation.value)
    if current is not None:
        # It now belongs to whoever asked last: revoking the token of the first must not take it from them.
        held = replace(held, expires_at=max(held.expires_at, current.expires_at))
    removed: tuple[str, ...] = ()
    if current is None and len(values) >= MAX_VALUES:
        removed = (_make_room(operation, values, now),)
    values[operation.value] = held
    return Effect(
        changed=current is None,
        expires_at=held.expires_at,
        removed=removed,
        taken_over=current is not None and current.token_id != operation.token_id,
    )


def _make_room(operation: Present, values: dict[str, Held], now: datetime) -> str:
    """Drop one value, an expired one if there is any: it is only waiting to be swept up."""
    oldest = min(values, key=lambda value: (values[value].expires_at > now, values[value].presented_at, value))
    if values[oldest].expires_at > now and not operation.evict_oldest:
        raise TooManyValues(
            f"{operation.challenge_name} holds {MAX_VALUES} values already: clean up those that are no longer needed"
        )
    del values[oldest]
    return oldest


def parse_value(text: str) -> str:
    """
    Check a challenge value. Raises `InvalidValue` unless it is 1 to 255 printable ASCII characters.

    dns-01 digests are 43 base64url characters, but other challenge types and test suites publish other text.
    """
    if not 1 <= len(text) <= MAX_VALUE or not text.isascii() or not text.isprintable():
        raise InvalidValue(f"a challenge value is 1 to {MAX_VALUE} printable ASCII characters")
    return text


def is_digest(text: str) -> bool:
    """Whether *text* could be the answer to a dns-01 challenge: a SHA-256 in base64url (RFC 8555, section 8.4)."""
    return _DIGEST.fullmatch(text) is not None


def challenge_value(key_authorization: str) -> str:
    """The TXT value that answers a challenge (RFC 8555, section 8.4)."""
    hashed = hashlib.sha256(key_authorization.encode("utf-8", "surrogatepass")).digest()
    return base64.urlsafe_b64encode(hashed).rstrip(b"=").decode()


def round_up(at: datetime) -> datetime:
    """*at*, or the next whole second after it: the resolution of the database."""
    return at.replace(microsecond=0) + timedelta(seconds=1) if at.microsecond else at
