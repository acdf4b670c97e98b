"""
Challenge values: their form, and how a batch of presents, cleanups and updates changes the values of names. Pure: no
database, no clock.

Several requests share one transaction, because one commit for a hundred requests costs as much as for one. They are
still settled one after the other, and a refused one does not affect the others.
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
"""Values at one name: enough for several clusters and wildcards at once, and few enough for one UDP reply."""

_DIGEST = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """
    Add *value* to *challenge_name* until *expires_at*. With *evict_oldest*, a full name loses its oldest value.

    *generation* is the one of the presented secret, here and in other steps; None if no secret is required.
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
    """Remove *value* from *challenge_name*, or all its values if *value* is None."""

    token_id: UUID
    challenge_name: Name
    value: str | None
    client: str
    generation: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Expect:
    """
    Continue only if the values at *challenge_name* are exactly *values*; if *values* is None, only if there are any.
    *negated* reverses the condition. If it is not met, *refusal* is raised.
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
    """Several steps at names of one zone. Either all of them are taken or none (RFC 2136, section 3)."""

    steps: tuple[Step, ...]


Operation = Present | Cleanup | Update


def steps(operation: Operation) -> tuple[Step, ...]:
    """The steps of *operation*."""
    return operation.steps if isinstance(operation, Update) else (operation,)


def names(operation: Operation) -> set[Name]:
    """The challenge names of *operation*."""
    return {step.challenge_name for step in steps(operation)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """
    The result of one operation. *serial* is the serial of the zone *apex* after the commit; *expires_at* is the expiry
    of the value, None after a cleanup; *changed* is whether the operation added or removed a value. *confirmed* has
    the names of the nodes that serve the change, *unconfirmed* the names of those that do not serve it yet.
    """

    apex: Name
    serial: int
    expires_at: datetime | None
    changed: bool
    confirmed: tuple[str, ...] = ()
    unconfirmed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A current value: the token that presented it last, when, and when it expires."""

    token_id: UUID
    presented_at: datetime
    expires_at: datetime


Values = Mapping[str, Held]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """
    The effect of one accepted step. *removed* has the values that it removed, also to make room. *taken_over* is
    whether the presented value existed already and belonged to another token.
    """

    changed: bool
    expires_at: datetime | None = None
    removed: tuple[str, ...] = ()
    taken_over: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """Why an operation was refused, and the step that caused it. Nothing of the operation was done."""

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
    Settle *operations* in order. Returns the effects of each operation, and the values of every name afterwards.

    *before* has an entry for each name of a permitted step. *permit* raises `Refused` for a step that is not permitted.
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
        # The value now belongs to the last token: revoking the token of the first must not remove it.
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
    """Remove one value, an expired one if there is any, which the next sweep would remove anyway."""
    oldest = min(values, key=lambda value: (values[value].expires_at > now, values[value].presented_at, value))
    if values[oldest].expires_at > now and not operation.evict_oldest:
        raise TooManyValues(
            f"{operation.challenge_name} already has {MAX_VALUES} values: clean up those that are no longer needed"
        )
    del values[oldest]
    return oldest


def parse_value(text: str) -> str:
    """
    Check a challenge value. Raises `InvalidValue` unless it is 1 to 255 printable ASCII characters.

    Values of dns-01 are 43 characters of base64url, but other challenge types and test suites publish other text.
    """
    if not 1 <= len(text) <= MAX_VALUE or not text.isascii() or not text.isprintable():
        raise InvalidValue(f"a challenge value is 1 to {MAX_VALUE} printable ASCII characters")
    return text


def is_digest(text: str) -> bool:
    """Whether *text* has the form of a dns-01 challenge value: a SHA-256 in base64url (RFC 8555, section 8.4)."""
    return _DIGEST.fullmatch(text) is not None


def challenge_value(key_authorization: str) -> str:
    """The challenge value for a key authorization (RFC 8555, section 8.4)."""
    hashed = hashlib.sha256(key_authorization.encode("utf-8", "surrogatepass")).digest()
    return base64.urlsafe_b64encode(hashed).rstrip(b"=").decode()


def round_up(at: datetime) -> datetime:
    """*at*, rounded up to a whole second, which is the resolution of the database."""
    return at.replace(microsecond=0) + timedelta(seconds=1) if at.microsecond else at
