"""Challenge values: which text may be one, and what a batch of operations does to the values of some names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from responder.errors import InvalidValue, NotCovered, PrerequisiteFailed, TooManyValues
from responder.names import Name
from responder.tokens.values import (
    MAX_VALUES,
    Cleanup,
    Effect,
    Expect,
    Held,
    Operation,
    Present,
    Rejected,
    Step,
    Update,
    challenge_value,
    names,
    parse_value,
    round_up,
    settle,
)

NOW = datetime(2030, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
HERE, THERE = Name.parse("_acme-challenge.here.acme.example.com"), Name.parse("_acme-challenge.there.acme.example.com")
FIRST, SECOND = UUID(int=1), UUID(int=2)
NXRRSET = 8

State = Mapping[Name, Mapping[str, Held]]


def present(value: str, at: Name = HERE, *, by: UUID = FIRST, until: datetime = LATER, evict: bool = False) -> Present:
    return Present(
        token_id=by, challenge_name=at, value=value, expires_at=until, client="192.0.2.1", evict_oldest=evict
    )


def cleanup(value: str | None, at: Name = HERE) -> Cleanup:
    return Cleanup(token_id=FIRST, challenge_name=at, value=value, client="192.0.2.1")


def expect(*values: str, negated: bool = False) -> Expect:
    """The values at HERE are exactly these (or, without any, there are some)."""
    exactly = frozenset(values) if values else None
    return Expect(
        token_id=FIRST,
        challenge_name=HERE,
        refusal=PrerequisiteFailed("unmet", NXRRSET),
        values=exactly,
        negated=negated,
    )


def held(values: Iterable[str], *, by: UUID = FIRST, age: int = 0, until: datetime = LATER) -> dict[str, Held]:
    """These values, the first presented *age* seconds ago, each of the others a second after the one before it."""
    return {
        value: Held(token_id=by, presented_at=NOW - timedelta(seconds=age - index), expires_at=until)
        for index, value in enumerate(values)
    }


def permit(_: Step) -> None:
    """Any token may do anything."""


def settled(*operations: Operation, before: State | None = None) -> tuple[list[list[Effect] | Rejected], State]:
    """What becomes of *operations* with these values in place."""
    state = {HERE: {}, THERE: {}, **(before or {})}
    return settle(operations, state, permit, now=NOW)


def texts(state: State) -> set[str]:
    return set(state[HERE])


FULL = held((f"v{number:02}" for number in range(MAX_VALUES)), age=MAX_VALUES)


# The text of a value


@pytest.mark.parametrize("text", ["a", "123d==", "~" * 255, "LHDhK3oGRvkiefQnx7OOczTY5Tic_xZ6HcMOc_gmtoM"])
def test_values(text: str) -> None:
    """1 to 255 printable ASCII characters are a value."""
    assert text == parse_value(text)


@pytest.mark.parametrize("text", ["", "~" * 256, "a\nb", "\x7f", "ä", "\0"])
def test_what_is_not_a_value(text: str) -> None:
    """Any other text is refused."""
    with pytest.raises(InvalidValue, match="1 to 255 printable ASCII characters"):
        parse_value(text)


def test_value_of_a_challenge() -> None:
    """The value is the SHA-256 of the key authorization in unpadded base64url (RFC 8555, section 8.4)."""
    assert "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0" == challenge_value("abc")


def test_times_are_rounded_up() -> None:
    """A value never expires earlier than its presenter asked for."""
    assert NOW == round_up(NOW)
    assert NOW + timedelta(seconds=1) == round_up(NOW + timedelta(microseconds=1))


# Presents


def test_presents_make_a_set() -> None:
    """Several values live at one name, and presenting one of them again changes nothing but its expiry."""
    sooner, latest = NOW + timedelta(minutes=1), LATER + timedelta(minutes=1)

    effects, after = settled(present("a"), present("b"), present("a", until=sooner), present("b", until=latest))

    assert [True, True, False, False] == [effect.changed for (effect,) in effects]  # type: ignore[misc]
    assert {"a": LATER, "b": latest} == {value: each.expires_at for value, each in after[HERE].items()}


def test_a_value_belongs_to_who_presented_it_last() -> None:
    """The token that presented a value last owns it, so that revoking the first takes nothing away."""
    effects, after = settled(present("a", by=SECOND), before={HERE: held(["a"], by=FIRST, age=5)})

    assert [[Effect(changed=False, expires_at=LATER, taken_over=True)]] == effects
    assert Held(token_id=SECOND, presented_at=NOW, expires_at=LATER) == after[HERE]["a"]


def test_the_17th_value_is_refused() -> None:
    """A name holds 16 values; another one is refused, one of the 16 is not."""
    effects, after = settled(present("another"), present("v03"), before={HERE: FULL})

    assert isinstance(effects[0], Rejected)
    assert isinstance(effects[0].refusal, TooManyValues)
    assert "already has 16 values: clean up" in str(effects[0].refusal)
    assert [Effect(changed=False, expires_at=LATER)] == effects[1]
    assert set(FULL) == texts(after)


def test_the_oldest_makes_room() -> None:
    """Where no client ever cleans up, the oldest value makes room for a new one."""
    effects, after = settled(present("another", evict=True), before={HERE: FULL})

    assert [[Effect(changed=True, expires_at=LATER, removed=("v00",))]] == effects
    assert set(FULL) - {"v00"} | {"another"} == texts(after)


def test_an_expired_value_makes_room() -> None:
    """A value that has expired makes room for any present, although others are older."""
    full = {**FULL, **held(["v07"], until=NOW)}

    effects, after = settled(present("another"), before={HERE: full})

    assert [[Effect(changed=True, expires_at=LATER, removed=("v07",))]] == effects
    assert set(FULL) - {"v07"} | {"another"} == texts(after)


# Cleanups


def test_cleanup_removes_that_value_only() -> None:
    """A cleanup removes its value; one of a value that is absent succeeds."""
    effects, after = settled(cleanup("a"), cleanup("absent"), before={HERE: held(["a", "b"])})

    assert [[Effect(changed=True, removed=("a",))], [Effect(changed=False)]] == effects
    assert {"b"} == texts(after)


def test_cleanup_of_all_values() -> None:
    """A cleanup without a value removes all values of its name, and no other name's."""
    effects, after = settled(cleanup(None), before={HERE: held(["a", "b"]), THERE: held(["c"])})

    assert [[Effect(changed=True, removed=("a", "b"))]] == effects
    assert ({}, {"c"}) == (after[HERE], set(after[THERE]))


# Updates of several steps


@pytest.mark.parametrize(
    ("expectation", "there", "met"),
    [
        (expect(), ["a"], True),
        (expect(), [], False),
        (expect(negated=True), ["a"], False),
        (expect(negated=True), [], True),
        (expect("a", "b"), ["b", "a"], True),
        (expect("a", "b"), ["a"], False),
        (expect("a"), ["a", "b"], False),
        (expect("a", negated=True), ["a"], False),
        (expect("a", negated=True), ["b"], True),
    ],
)
def test_expectations(expectation: Expect, there: list[str], met: bool) -> None:  # noqa: FBT001
    """An update goes on only if its name holds exactly the values that it expects, or any, or the contrary."""
    (result,), after = settled(Update(steps=(expectation, present("new"))), before={HERE: held(there)})

    assert met == isinstance(result, list)
    assert {*there, "new"} if met else set(there) == texts(after)


def test_an_update_is_done_or_not() -> None:
    """The first steps of an update that is refused are undone; the operations around it are not touched."""
    update = Update(steps=(present("b"), cleanup("a"), present("c", THERE), expect("never")))

    (first, refusal, last), after = settled(present("a"), update, cleanup("b"))

    assert isinstance(refusal, Rejected)
    assert isinstance(refusal.refusal, PrerequisiteFailed)
    assert isinstance(refusal.step, Expect)
    assert [Effect(changed=True, expires_at=LATER)] == first
    assert [Effect(changed=False)] == last
    assert ({"a"}, {}) == (texts(after), after[THERE])


def test_what_is_not_permitted_is_refused() -> None:
    """An operation at a name that the token does not cover is refused, although nothing is known of the name."""

    def refuse(step: Step) -> None:
        if step.challenge_name == THERE:
            raise NotCovered("not covered")

    effects, after = settle([present("a", THERE), present("a")], {HERE: {}}, refuse, now=NOW)

    assert isinstance(effects[0], Rejected)
    assert isinstance(effects[0].refusal, NotCovered)
    assert {HERE: {"a"}} == {name: set(values) for name, values in after.items()}


def test_names_of_an_operation() -> None:
    """An operation is about the names of all its steps."""
    assert {HERE} == names(cleanup("a"))
    assert {HERE, THERE} == names(Update(steps=(present("a"), present("a", THERE))))
