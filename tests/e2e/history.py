"""
A history of what clients asked for, and of what nameservers answered, and whether it keeps the promise of the service.

Nothing is checked while a test runs: each call and each query is written down with the time at which it began and the
time at which it ended, and `violations` reads all of it afterwards. A call that was not acknowledged may have been
carried out or not, and may still be carried out later.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path


class Outcome(StrEnum):
    """What the client of a call knows about it."""

    ACKNOWLEDGED = "acknowledged"
    UNKNOWN = "unknown"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A present or a cleanup (*verb*) of *value* at *name*, asked of *node*. Times are in seconds of one clock."""

    verb: str
    name: str
    value: str
    node: str
    begin: float
    end: float
    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A query for the values at *name*; *values* is None if the nameserver of *node* gave none, for *detail*."""

    name: str
    node: str
    begin: float
    end: float
    values: frozenset[str] | None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """A resolver asked the nameservers one after the other until one answered; *answered* if one did."""

    name: str
    begin: float
    end: float
    answered: bool


@dataclass(slots=True)
class History:
    """Everything that happened, in any order. Lists grow by single steps, so threads may share one history."""

    calls: list[Call] = field(default_factory=list)
    queries: list[Query] = field(default_factory=list)
    resolutions: list[Resolution] = field(default_factory=list)

    def acknowledged(self, since: float, node: str | None = None) -> int:
        """How many calls that began after *since* were acknowledged, by *node* if it is given."""
        return sum(
            call.begin > since and call.outcome is Outcome.ACKNOWLEDGED and node in (None, call.node)
            for call in tuple(self.calls)
        )

    def write(self, file: Path) -> None:
        """Keep it as lines of JSON, in the order of time."""
        everything: list[Call | Query | Resolution] = sorted(
            [*self.calls, *self.queries, *self.resolutions], key=lambda each: each.begin
        )
        lines = [{"kind": type(each).__name__, **asdict(each)} for each in everything]
        file.write_text("".join(json.dumps(line, default=sorted) + "\n" for line in lines))

    def violations(self, *, lost: frozenset[str] | None = None) -> list[str]:
        """
        What breaks the promise; *lost* are acknowledged values that the database was configured to lose, and that the
        service has named. Such a database may have lost cleanups, too: cleaned up values may be there again. None is
        for a database that loses nothing.
        """
        calls: defaultdict[str, list[Call]] = defaultdict(list)
        for call in self.calls:
            calls[call.value].append(call)
        values = {value: Value(each) for value, each in calls.items()}
        by_name: defaultdict[str, dict[str, Value]] = defaultdict(dict)
        for value, known in values.items():
            by_name[known.name][value] = known
        found = [each for query in self.queries for each in _wrong(query, by_name[query.name], lost)]
        found += [
            f"nobody answered for {each.name} from {each.begin:.3f} to {each.end:.3f}"
            for each in self.resolutions
            if not each.answered
        ]
        return found


class Value:
    """What the calls about one value say: when it has to be served, and when it must not be."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self.name = calls[0].name
        presents = [call for call in calls if call.verb == "present"]
        cleanups = [call for call in calls if call.verb == "cleanup"]
        self.may_be_there_from = min((each.begin for each in presents if _may_be_done(each)), default=float("inf"))
        self.is_there_from = min((each.end for each in presents if _is_done(each)), default=float("inf"))
        self.is_there_until = min((each.begin for each in cleanups if _may_be_done(each)), default=float("inf"))
        self.is_gone_from = min((each.end for each in cleanups if _is_done(each)), default=float("inf"))
        # What nobody has an answer to may be carried out after everything else.
        if any(each.outcome is Outcome.UNKNOWN for each in presents):
            self.is_gone_from = float("inf")


def _wrong(query: Query, values: dict[str, Value], lost: frozenset[str] | None) -> Iterator[str]:
    if query.values is None:
        return
    excused = lost or frozenset()
    where = f"{query.node} at {query.begin:.3f}"
    for value, known in values.items():
        must = known.is_there_from <= query.begin and query.end <= known.is_there_until
        if must and value not in query.values and value not in excused:
            yield f"{where}: {value} is acknowledged since {known.is_there_from:.3f} and not served"
    for value in query.values:
        if value not in values or query.end < values[value].may_be_there_from:
            yield f"{where}: {value} was never acknowledged and is served"
        elif lost is None and query.begin >= values[value].is_gone_from:
            yield f"{where}: {value} is cleaned up since {values[value].is_gone_from:.3f} and served"


def _is_done(call: Call) -> bool:
    return call.outcome is Outcome.ACKNOWLEDGED


def _may_be_done(call: Call) -> bool:
    return call.outcome is not Outcome.REFUSED
