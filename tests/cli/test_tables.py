"""Tables that fit, and ids that are shortened."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest

from responder.cli.tables import print_table, short_ids, span_text

ONE, TWO = UUID("758b7e02-d548-4f96-89e3-904cb71cfc83"), UUID("758b7e02-d549-4f96-89e3-904cb71cfc83")
OTHER = UUID("cabf3038-9d5c-4bc7-a6d4-891dd7b3a1a1")


def test_short_ids() -> None:
    """Ids have eight characters, or as many more as distinguish them from every other."""
    assert {ONE: "758b7e02-d548", TWO: "758b7e02-d549", OTHER: "cabf3038"} == short_ids([OTHER, TWO, ONE, ONE])
    assert {ONE: str(ONE)} == short_ids([ONE], wide=True)
    assert {} == short_ids([])


@pytest.mark.parametrize("wide", [False, True])
def test_width(capsys: pytest.CaptureFixture[str], *, wide: bool) -> None:
    """The widest of the columns that can be cut are cut until each line fits, unless whole cells are asked for."""
    row = ["a" * 10, "b" * 300, "c" * 30]
    print_table(["ONE", "TWO", "THREE"], [row], empty="", wide=wide, cut=["ONE", "TWO"], notes=["why " * 40])

    _, line, *notes = capsys.readouterr().out.splitlines()
    assert line == ("  ".join(row) if wide else f"{row[0]}  {'b' * 53}...  {row[2]}")
    assert all(len(note) <= 100 and note.startswith("  why") for note in notes)


def test_spans() -> None:
    """A span has the largest unit that fits."""
    spans = [
        timedelta(seconds=-1),
        timedelta(seconds=59),
        timedelta(minutes=59),
        timedelta(hours=23),
        timedelta(days=9),
    ]
    assert ["0s", "59s", "59m", "23h", "9d"] == [*map(span_text, spans)]
