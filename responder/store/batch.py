"""
A batch of presents, cleanups and updates, as one transaction of `Store`.

The rules for a batch are in `responder.tokens.values`. This module reads its data from the tables and writes the
result, with a number of statements that does not grow with the batch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, Text, bindparam, delete, insert, select, type_coerce, update

from responder.dns.zone import Change
from responder.errors import NotCovered, NotServed, ResponderError, Unauthenticated
from responder.names import Name
from responder.store import journal
from responder.store.audit import AuditAction, AuditEvent, AuditResult, record
from responder.store.schema import challenge_values, grants, hostnames, secrets, tokens
from responder.tokens.serving import Serving
from responder.tokens.token import Grant
from responder.tokens.values import (
    Cleanup,
    Effect,
    Held,
    Operation,
    Outcome,
    Present,
    Rejected,
    Step,
    settle,
    steps,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """The result of a batch: one outcome or error for each operation, in order, and the changes to publish."""

    outcomes: list[Outcome | ResponderError]
    changes: list[Change]


def apply(connection: Connection, batch: Sequence[Operation], *, serving: Serving, now: datetime) -> Applied:
    if not batch:
        return Applied(outcomes=[], changes=[])
    locked = journal.lock_zones(connection)
    wanted = [step for operation in batch for step in steps(operation)]
    places = _places(connection, {step.challenge_name for step in wanted}, locked)
    permits = _Permits(connection, wanted, places, serving, now)
    effects, after = settle(batch, {name: place.values for name, place in places.items()}, permits.check, now=now)
    _write(connection, places, after)
    _mark_used(connection, permits.used, now)
    changes = journal.advance(connection, locked, _visible(places, after), now=now)
    record(connection, _events(batch, effects, permits, now))
    serials = {zone.apex: zone.serial for zone in locked.values()} | {each.apex: each.serial for each in changes}
    return Applied(
        outcomes=[
            effect.refusal if isinstance(effect, Rejected) else _outcome(operation, effect, places, serials)
            for operation, effect in zip(batch, effects, strict=True)
        ],
        changes=changes,
    )


@dataclass(frozen=True, slots=True)
class _Place:
    """A challenge *name* in the zone of *apex*, with its values and the grants of its hostnames, by their row ids."""

    name: Name
    zone_id: int
    apex: Name
    grants: dict[int, Grant]
    values: dict[str, Held]


# Every row repeats the names, so they are read as text, and each is parsed once.
_PLACES = (
    select(hostnames.c.id, hostnames.c.zone_id)
    .add_columns(type_coerce(hostnames.c.hostname, Text).label("hostname"))
    .add_columns(type_coerce(hostnames.c.challenge_name, Text).label("challenge_name"))
    .add_columns(challenge_values.c.value, challenge_values.c.token_id)
    .add_columns(challenge_values.c.presented_at, challenge_values.c.expires_at)
    .outerjoin(challenge_values, challenge_values.c.challenge_name == hostnames.c.challenge_name)
    .where(hostnames.c.challenge_name.in_(bindparam("names", expanding=True)))
)

_PERMITS = (
    select(tokens.c.id, tokens.c.revoked_at, tokens.c.expires_at, grants.c.hostname_id)
    .add_columns(secrets.c.generation, secrets.c.expires_at.label("secret_expires_at"))
    .outerjoin(secrets, secrets.c.token_id == tokens.c.id)
    .outerjoin(
        grants,
        (grants.c.token_id == tokens.c.id) & grants.c.hostname_id.in_(bindparam("hostname_ids", expanding=True)),
    )
    .where(tokens.c.id.in_(bindparam("token_ids", expanding=True)))
)

_MINE = (challenge_values.c.challenge_name == bindparam("at_name")) & (
    challenge_values.c.value == bindparam("at_value")
)
_DELETE = delete(challenge_values).where(_MINE)
_RENEW = update(challenge_values).where(_MINE)
_INSERT = insert(challenge_values)

_USED = (
    update(tokens)
    .where(tokens.c.id.in_(bindparam("used", expanding=True)))
    .values(last_used_at=bindparam("now", type_=tokens.c.last_used_at.type))
)


def _places(connection: Connection, names: set[Name], locked: Mapping[int, journal.ZoneRow]) -> dict[Name, _Place]:
    places: dict[Name, _Place] = {}
    by_text: dict[str, _Place] = {}
    for row in connection.execute(_PLACES, {"names": list(names)}):
        place = by_text.get(row.challenge_name)
        if place is None:
            name = Name.parse(row.challenge_name)
            place = _Place(name, row.zone_id, locked[row.zone_id].apex, {}, {})
            by_text[row.challenge_name] = places[name] = place
        if row.id not in place.grants:
            hostname = Name.parse(row.hostname)
            place.grants[row.id] = Grant(hostname=hostname, challenge_name=place.name, apex=place.apex)
        if row.value is not None:
            place.values[row.value] = Held(
                token_id=row.token_id, presented_at=row.presented_at, expires_at=row.expires_at
            )
    return places


class _Permits:
    """
    What the tokens of a batch may do, as read inside the transaction.

    The caller has checked it already, but perhaps from memory, and a token may have been revoked or rotated since.
    """

    def __init__(
        self,
        connection: Connection,
        wanted: Sequence[Step],
        places: Mapping[Name, _Place],
        serving: Serving,
        now: datetime,
    ) -> None:
        self.used: set[UUID] = set()
        self._places = places
        self._good: set[tuple[UUID, int | None]] = set()
        self._serving = serving
        self._granted: set[tuple[UUID, int]] = set()
        rows = connection.execute(
            _PERMITS,
            {
                "token_ids": list({step.token_id for step in wanted}),
                "hostname_ids": [row_id for place in places.values() for row_id in place.grants],
            },
        )
        for row in rows:
            if row.revoked_at is None and (row.expires_at is None or row.expires_at > now):
                self._good.add((row.id, None))
                if row.secret_expires_at is None or row.secret_expires_at > now:
                    self._good.add((row.id, row.generation))
                self._granted.add((row.id, row.hostname_id))

    def check(self, step: Step) -> None:
        """Raise `Unauthenticated`, `NotCovered`, `NotServed` or `NotAChallenge` unless the step is allowed."""
        if (step.token_id, step.generation) not in self._good:
            raise Unauthenticated(
                "this token is unknown, was revoked or replaced, or has expired: ask your platform team for a new one"
            )
        self.used.add(step.token_id)
        covering = self._covering(step)
        if not covering:
            raise NotCovered(f"this token does not cover {step.challenge_name}")
        if (fault := self._serving.fault(step.challenge_name, covering[0].apex)) is not None:
            raise NotServed(f"{fault}: ask your platform team")
        if isinstance(step, Present):
            for grant in covering:
                grant.check_value(step.value)

    def hostname(self, step: Step) -> Name | None:
        """
        The hostname that the audit shows for *step*: one that the token covers, always the same one if several share
        the name. If the token covers none, it is one whose values the token has attempted to change.
        """
        place = self._places.get(step.challenge_name)
        names = self._covering(step) or (() if place is None else place.grants.values())
        return min((grant.hostname for grant in names), default=None)

    def _covering(self, step: Step) -> list[Grant]:
        """The grants of the token for the challenge name of *step*; several if hostnames share it."""
        place = self._places.get(step.challenge_name)
        found = {} if place is None else place.grants
        return [grant for row_id, grant in found.items() if (step.token_id, row_id) in self._granted]


def _write(connection: Connection, places: Mapping[Name, _Place], after: Mapping[Name, Mapping[str, Held]]) -> None:
    """Write the differences between the values in *places* and those in *after*."""
    before = {(name, value): held for name, place in places.items() for value, held in place.values.items()}
    wanted = {(name, value): held for name, values in after.items() for value, held in values.items()}
    if gone := before.keys() - wanted.keys():
        connection.execute(
            _DELETE,
            [{"at_name": name, "at_value": value} for name, value in gone],
        )
    if renewed := [key for key in wanted.keys() & before.keys() if wanted[key] != before[key]]:
        connection.execute(
            _RENEW,
            [{"at_name": key[0], "at_value": key[1], **_columns(wanted[key])} for key in renewed],
        )
    if new := [key for key in wanted if key not in before]:
        connection.execute(
            _INSERT,
            [{"challenge_name": key[0], "value": key[1], **_columns(wanted[key])} for key in new],
        )


def _columns(held: Held) -> dict[str, object]:
    return {"token_id": held.token_id, "presented_at": held.presented_at, "expires_at": held.expires_at}


def _mark_used(connection: Connection, token_ids: Iterable[UUID], now: datetime) -> None:
    if used := list(token_ids):
        connection.execute(_USED, {"used": used, "now": now})


def _visible(
    places: Mapping[Name, _Place], after: Mapping[Name, Mapping[str, Held]]
) -> dict[int, dict[Name, journal.NameState]]:
    """Return the new states of the names whose values have changed, by zone."""
    states: defaultdict[int, dict[Name, journal.NameState]] = defaultdict(dict)
    for name, place in places.items():
        if place.values.keys() != after[name].keys():
            states[place.zone_id][name] = tuple(sorted(after[name]))
    return states


def _events(
    batch: Sequence[Operation], effects: Sequence[list[Effect] | Rejected], permits: _Permits, now: datetime
) -> Iterator[AuditEvent]:
    """Yield the events of *batch*: those of its changes, and one for each refused operation, however many its steps."""
    for operation, effect in zip(batch, effects, strict=True):
        if isinstance(effect, Rejected):
            if isinstance(effect.step, Present | Cleanup):  # an expectation does not attempt to change anything
                event = _event(effect.step, permits, now)
                yield replace(event, result=AuditResult.REFUSED, reason=str(effect.refusal))
            continue
        for step, done in zip(steps(operation), effect, strict=True):
            if isinstance(step, Present | Cleanup):
                yield from _done(_event(step, permits, now), done)


def _event(step: Present | Cleanup, permits: _Permits, now: datetime) -> AuditEvent:
    return AuditEvent(
        at=now,
        action=AuditAction.PRESENT if isinstance(step, Present) else AuditAction.CLEANUP,
        token_id=step.token_id,
        hostname=permits.hostname(step),
        value=step.value,
        client=step.client,
    )


def _done(event: AuditEvent, effect: Effect) -> Iterator[AuditEvent]:
    """
    Yield an event for each value that a step has removed or added.

    A step that changed nothing has no event. Otherwise a client could fill the audit with cleanups of absent values, of
    which one update can have 40.
    """
    gone = AuditAction.EVICT if event.action is AuditAction.PRESENT else AuditAction.CLEANUP
    yield from (replace(event, action=gone, value=value) for value in effect.removed)
    if event.action is AuditAction.PRESENT and (effect.changed or effect.taken_over):
        yield event


def _outcome(
    operation: Operation, effects: Sequence[Effect], places: Mapping[Name, _Place], serials: Mapping[Name, int]
) -> Outcome:
    apex = places[steps(operation)[0].challenge_name].apex
    return Outcome(
        apex=apex,
        serial=serials[apex],
        expires_at=effects[-1].expires_at,
        changed=any(effect.changed for effect in effects),
    )
