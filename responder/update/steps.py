"""
What an update comes to: the steps that the store takes, all or none, and only at names that the token covers.
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
from responder.update.message import Message, Record, strings


def steps(message: Message, token: Token, *, client: str, expires_at: datetime) -> list[Step]:
    """
    The steps of *message* for the holder of *token*; values stay until *expires_at*, TTLs mean nothing here.

    Raises `NotCovered` if it names anything that is not the token's, prerequisites included: what they find out is
    nobody else's business. Raises `NotAChallenge` for what no token may add, `PrerequisiteFailed` if one cannot hold.
    """
    for record in (*message.prerequisites, *message.changes):
        if token.grant_for(record.name).challenge_name != record.name:
            raise NotCovered(f"an update changes a challenge name itself, which {record.name} is not")
    expectations = list(_expectations(message.prerequisites, token))
    changes = [_change(record, token, client, expires_at) for record in message.changes]
    return [*expectations, *(change for change in changes if change is not None)]


def _change(record: Record, token: Token, client: str, expires_at: datetime) -> Step | None:
    """What adds or deletes as *record* says (RFC 2136, section 2.5); None if that is nothing."""
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
        if value is None:  # there never was such a record
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
    """What has to hold (RFC 2136, section 2.4). All that is ever found at these names are values."""
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
        refusal = PrerequisiteFailed(f"the update expects other values at {name} than there are", Rcode.NXRRSET)
        yield Expect(
            token_id=token.id,
            generation=token.generation,
            challenge_name=name,
            refusal=refusal,
            values=frozenset(values),
        )


def _failed(record: Record) -> PrerequisiteFailed:
    """What is said if the prerequisite does not hold (RFC 2136, section 3.2)."""
    if record.rclass == CLASS_NONE:
        rcode = Rcode.YXDOMAIN if record.type == RRType.ANY else Rcode.YXRRSET
        return PrerequisiteFailed(f"the update expects nothing at {record.name}, and there is something", rcode)
    rcode = Rcode.NXDOMAIN if record.type == RRType.ANY and record.rclass == CLASS_ANY else Rcode.NXRRSET
    return PrerequisiteFailed(f"the update expects something at {record.name} that is not there", rcode)


def _added_value(record: Record) -> str:
    value = _value(record)
    if value is None:
        raise NotAChallenge(
            f"an update may add TXT records of one string of printable ASCII characters at {record.name}, nothing else"
        )
    return value


def _value(record: Record) -> str | None:
    """The challenge value that *record* holds, if it could be one."""
    if record.type != RRType.TXT or len(found := strings(record.rdata)) != 1:
        return None
    try:
        return parse_value(found[0].decode("ascii"))
    except (UnicodeDecodeError, InvalidValue):
        return None
