"""What an update comes to, and what its sender may not have it come to."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

from responder.dns.wire import Rcode
from responder.errors import NotAChallenge, NotCovered, PrerequisiteFailed, Refused
from responder.names import Name
from responder.store import Cleanup, Present, Step
from responder.tokens.token import Grant, Token
from responder.update.message import Record, UpdateMessage
from responder.update.steps import steps
from tests.support.updates import ANY, ANY_TYPE, CLIENT, IN, NONE, SOA, TXT, A, text

NAME = Name.parse("_acme-challenge.some.acme.example.com")
ALIASED, ALIAS = Name.parse("_acme-challenge.www.acme.example.com"), Name.parse("elsewhere.acme.example.com")
UNTIL = datetime(2030, 1, 1, tzinfo=UTC)
APEX = Name.parse("acme.example.com")
TOKEN = Token(
    id=UUID(int=7),
    description=None,
    grants=(
        Grant(hostname=Name.parse("some.example.com"), challenge_name=NAME, apex=APEX),
        Grant(hostname=Name.parse("www.acme.example.com"), challenge_name=ALIAS, apex=APEX),
    ),
    created_at=UNTIL,
    generation=3,
)


def present(value: str, name: Name = NAME) -> Present:
    return Present(token_id=TOKEN.id, generation=3, challenge_name=name, value=value, expires_at=UNTIL, client=CLIENT)


def cleanup(value: str | None) -> Cleanup:
    return Cleanup(token_id=TOKEN.id, generation=3, challenge_name=NAME, value=value, client=CLIENT)


def wanted(*changes: Record, prerequisites: tuple[Record, ...] = ()) -> list[Step]:
    return steps(UpdateMessage(prerequisites, changes), TOKEN, client=CLIENT, expires_at=UNTIL)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (Record(NAME, TXT, IN, 60, text("a")), [present("a")]),
        (Record(NAME, TXT, IN, 0, text("a" * 255)), [present("a" * 255)]),
        (Record(ALIAS, TXT, IN, 60, text("a")), [present("a", ALIAS)]),
        (Record(NAME, TXT, NONE, 0, text("a")), [cleanup("a")]),
        (Record(NAME, TXT, ANY, 0, b""), [cleanup(None)]),
        (Record(NAME, ANY_TYPE, ANY, 0, b""), [cleanup(None)]),
        (Record(NAME, A, ANY, 0, b""), []),
        (Record(NAME, A, NONE, 0, bytes(4)), []),
        (Record(NAME, TXT, NONE, 0, text("two", "strings")), []),
        (Record(NAME, TXT, NONE, 0, text("")), []),
        (Record(NAME, TXT, NONE, 0, b"\2\xc3\xa4"), []),
    ],
)
def test_changes(change: Record, expected: list[Step]) -> None:
    """An add is a present, a delete a cleanup of one value or of all, or nothing where nothing can be."""
    assert expected == wanted(change)


@pytest.mark.parametrize(
    "change",
    [
        Record(NAME, A, IN, 60, bytes(4)),
        Record(NAME, 2, IN, 60, b"\0"),
        Record(NAME, 5, IN, 60, b"\0"),
        Record(NAME, 65_280, IN, 60, b"x"),
        Record(NAME, TXT, IN, 60, text("two", "strings")),
        Record(NAME, TXT, IN, 60, text("")),
        Record(NAME, TXT, IN, 60, text("line\n")),
        Record(NAME, TXT, IN, 60, b"\2\xc3\xa4"),
    ],
)
def test_what_no_token_may_add(change: Record) -> None:
    """Only TXT, of one string, of printable ASCII."""
    with pytest.raises(NotAChallenge, match="TXT records of one string"):
        wanted(change)


@pytest.mark.parametrize(
    "name",
    [
        "_acme-challenge.other.acme.example.com",
        "x._acme-challenge.some.acme.example.com",
        "some.acme.example.com",
        "acme.example.com",
        "*.acme.example.com",
        str(ALIASED),
    ],
)
@pytest.mark.parametrize(
    ("rrtype", "rclass"), [(TXT, IN), (TXT, NONE), (TXT, ANY), (ANY_TYPE, ANY), (A, ANY), (SOA, ANY)]
)
def test_names_of_others(name: str, rrtype: int, rclass: int) -> None:
    """
    Neither changes nor prerequisites may be about a name that no grant writes, be they ever so vain; a hostname's own
    name in the zone is not short for its alias.
    """
    record = Record(Name.parse(name), rrtype, rclass, 0, text("a") if rclass != ANY else b"")
    for changes, prerequisites in (([record], []), ([], [record])):
        with pytest.raises(NotCovered, match=r"cover|alias|challenge name"):
            wanted(*changes, prerequisites=tuple(prerequisites))


@pytest.mark.parametrize(
    ("prerequisite", "rcode"),
    [
        (Record(NAME, A, ANY, 0, b""), Rcode.NXRRSET),
        (Record(NAME, A, IN, 0, bytes(4)), Rcode.NXRRSET),
        (Record(NAME, TXT, IN, 0, text("two", "strings")), Rcode.NXRRSET),
    ],
)
def test_prerequisites_that_cannot_hold(prerequisite: Record, rcode: Rcode) -> None:
    """Where there are only challenge values, other records are not there."""
    with pytest.raises(PrerequisiteFailed, match="do not exist") as failed:
        wanted(prerequisites=(prerequisite,))

    assert rcode == failed.value.rcode


def test_refusals_come_first() -> None:
    """Whoever asks about names of others learns nothing, not even that a prerequisite of their own does not hold."""
    other = Record(Name.parse("_acme-challenge.other.acme.example.com"), TXT, ANY, 0, b"")

    with pytest.raises(Refused) as refused:
        wanted(prerequisites=(Record(NAME, A, ANY, 0, b""), other))

    assert isinstance(refused.value, NotCovered)
