"""
Turns an update into steps for the store, which takes all or none of them, only at names that the token covers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from responder.dns.rrset import CLASS_ANY, CLASS_IN, CLASS_NONE, RRType
from responder.dns.wire import Rcode
from responder.errors import InvalidValue, NotAChallenge, NotCovered, PrerequisiteFailed
from responder.names import Name
from responder.store import Cleanup, Expect, Present, Step
from responder.tokens.token import Token
from responder.tokens.values import parse_value
from responder.update.message import Record, UpdateMessage, strings


def steps(message: UpdateMessage, token: Token, *, client: str, expires_at: datetime) -> list[Step]:
    """
    The steps of *message* for the holder of *token*. Values stay until *expires_at*, and TTLs are ignored.

    Raises `NotCovered` if a prerequisite or a change names anything that *token* does not cover: prerequisites would
    reveal values of others. Raises `NotAChallenge` for a record that no token may add, and `PrerequisiteFailed` for a
    prerequisite that can never be met.
    """
    for record in (*message.prerequisites, *message.changes):
        if token.grant_for(record.name).challenge_name != record.name:
            raise NotCovered(f"{record.name} is not a challenge name: an update must use the challenge name itself")
    expectations = list(_expectations(message.prerequisites, token))
    changes = [_change(record, token, client, expires_at) for record in message.changes]
    return [*expectations, *(change for change in changes if change is not None)]


def _change(record: Record, token: Token, client: str, expires_at: datetime) -> Step | None:
    """The step that adds or deletes *record* (RFC 2136, section 2.5); None if there is nothing to do."""
    if record.rclass == CLASS_IN:
        return Present(
            token_id=token.id,
            generation=token.generation,
            challenge_name=record.name,
            value=_added_value(record),
            expires_at=expires_at,
            client=client,
        )
    if record.rclass == CLASS_NONE:
        value = _value(record)
        if value is None:  # such a record cannot exist
            return None
        return _cleanup(record, token, client, value)
    if record.type in (RRType.TXT, RRType.ANY):
        return _cleanup(record, token, client, None)
    return None


def _cleanup(record: Record, token: Token, client: str, value: str | None) -> Cleanup:
    return Cleanup(
        token_id=token.id, generation=token.generation, challenge_name=record.name, value=value, client=client
    )


def _expectations(prerequisites: Iterable[Record], token: Token) -> Iterator[Step]:
    """The steps that check prerequisites (RFC 2136, section 2.4). Challenge names hold no records but values."""
    whole: dict[Name, set[str]] = {}
    for record in prerequisites:
        failed = _failed(record)
        if record.rclass == CLASS_IN:
            value = _value(record)
            if value is None:
                raise failed
            whole.setdefault(record.name, set()).add(value)
        elif record.type in (RRType.TXT, RRType.ANY):
            yield Expect(
                token_id=token.id,
                generation=token.generation,
                challenge_name=record.name,
                refusal=failed,
                negated=record.rclass == CLASS_NONE,
            )
        elif record.rclass == CLASS_ANY:
            raise failed
    for name, values in whole.items():
        refusal = PrerequisiteFailed(f"the values at {name} are not those that the update expects", Rcode.NXRRSET)
        yield Expect(
            token_id=token.id,
            generation=token.generation,
            challenge_name=name,
            refusal=refusal,
            values=frozenset(values),
        )


def _failed(record: Record) -> PrerequisiteFailed:
    """The error for a prerequisite that is not met (RFC 2136, section 3.2)."""
    if record.rclass == CLASS_NONE:
        rcode = Rcode.YXDOMAIN if record.type == RRType.ANY else Rcode.YXRRSET
        return PrerequisiteFailed(f"the update expects no records at {record.name}, but there are some", rcode)
    rcode = Rcode.NXDOMAIN if record.type == RRType.ANY and record.rclass == CLASS_ANY else Rcode.NXRRSET
    return PrerequisiteFailed(f"the update expects records at {record.name} that do not exist", rcode)


def _added_value(record: Record) -> str:
    value = _value(record)
    if value is None:
        raise NotAChallenge(
            f"an update may add only TXT records of one string of printable ASCII characters at {record.name}"
        )
    return value


def _value(record: Record) -> str | None:
    """The challenge value in *record*; None if the record cannot be one."""
    if record.type != RRType.TXT or len(found := strings(record.rdata)) != 1:
        return None
    try:
        return parse_value(found[0].decode("ascii"))
    except (UnicodeDecodeError, InvalidValue):
        return None
