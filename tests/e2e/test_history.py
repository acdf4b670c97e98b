"""The checker of histories finds what breaks the promise, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable

from .history import Call, History, Outcome, Query, Resolution


def present(begin: float, end: float, outcome: Outcome = Outcome.ACKNOWLEDGED, *, verb: str = "present") -> Call:
    return Call(verb=verb, name="name", value="v", node="a", begin=begin, end=end, outcome=outcome)


def cleanup(begin: float, end: float, outcome: Outcome = Outcome.ACKNOWLEDGED) -> Call:
    return present(begin, end, outcome, verb="cleanup")


def violations(
    calls: Iterable[Call], at: float, values: Iterable[str] | None, *, lost: frozenset[str] | None = None
) -> list[str]:
    """What is wrong with an answer of these *values* to a query *at* that time."""
    query = Query(name="name", node="b", begin=at, end=at, values=None if values is None else frozenset(values))
    return History(calls=[*calls], queries=[query]).violations(lost=lost)


def test_an_acknowledged_value_is_served() -> None:
    """From its acknowledgment until the first attempt to clean it up, by whoever answers."""
    for at, missing in ((1.5, False), (3, True), (5, False)):
        found = violations([present(1, 2), cleanup(4, 6)], at, [])
        assert missing is any("is acknowledged since 2.000 and not served" in each for each in found)
    assert [] == violations([present(1, 2)], 3, None)
    assert [] == violations([present(1, 2)], 3, [], lost=frozenset({"v"}))


def test_a_value_is_gone() -> None:
    """From the acknowledgment of its cleanup, unless a present has no answer and may still be carried out."""
    assert violations([present(1, 2), cleanup(3, 4)], 5, ["v"])
    assert [] == violations([present(1, 2), cleanup(3, 4)], 3.5, ["v"])
    assert [] == violations([present(0, 1, Outcome.UNKNOWN), present(1, 2), cleanup(3, 4)], 5, ["v"])
    assert [] == violations([present(1, 2), cleanup(3, 4)], 5, ["v"], lost=frozenset())


def test_a_value_comes_from_somebody() -> None:
    """A value is served only after somebody has begun to ask for it, and was not refused."""
    assert violations([], 1, ["v"])
    assert violations([present(2, 3)], 1, ["v"])
    assert violations([present(1, 2, Outcome.REFUSED)], 3, ["v"])
    assert [] == violations([present(1, 2, Outcome.UNKNOWN)], 3, ["v"])


def test_somebody_answers() -> None:
    """A query that no nameserver answers is reported."""
    unanswered = Resolution(name="name", begin=1, end=2, answered=False)
    assert ["nobody answered for name from 1.000 to 2.000"] == History(resolutions=[unanswered]).violations()
