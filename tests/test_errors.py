"""The exception tree: as its docstring draws it, and every table of it complete."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from responder import errors
from responder.api import problems
from responder.errors import Invalid, InvalidName, Refused, ResponderError, by_ancestry
from responder.update import updates as update
from responder.webhook import statuses


def tree(root: type[ResponderError] = ResponderError) -> Iterator[type[ResponderError]]:
    """*root* and everything below it."""
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


def drawn() -> dict[str, str]:
    """Each class in the drawing, with the one that it hangs from."""
    parents: dict[str, str] = {}
    path = ["ResponderError"]
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"    ([ │]*)[├└]── (\w+)", line):
            del path[len(found[1]) // 4 + 1 :]
            parents[found[2]] = path[-1]
            path.append(found[2])
    return parents


def test_drawing() -> None:
    """The drawing has every exception, below the one that it inherits from."""
    expected = {}
    for kind in tree():
        named = [ancestor.__name__ for ancestor in kind.__mro__ if not ancestor.__name__.startswith("_")]
        if named[0] == kind.__name__ != "ResponderError":
            expected[named[0]] = named[1]

    assert expected == drawn()


@pytest.mark.parametrize(
    "table", [problems.STATUSES, statuses.STATUSES, update.RCODES], ids=["problems", "statuses", "rcodes"]
)
def test_tables_are_complete(table: Mapping[type[ResponderError], Any]) -> None:
    """Whatever is raised on purpose has an answer, in HTTP, in Kubernetes and in the DNS."""
    assert [] == [kind for kind in tree() if kind is not ResponderError and not {*kind.__mro__} & {*table}]


def test_nearest_decides() -> None:
    """An error counts as what its nearest ancestor in the table is."""
    table: dict[type[ResponderError], str] = {ResponderError: "root", Invalid: "invalid"}

    assert ("invalid", "root") == (by_ancestry(InvalidName("x"), table), by_ancestry(Refused("x"), table))
