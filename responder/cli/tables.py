"""Tables on stdout that fit a terminal of 100 columns, unless `--wide` asks for whole cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from itertools import pairwise
from textwrap import wrap
from uuid import UUID

import click

WIDTH = 100
"""Columns of a table without `--wide`."""

LEAST = 8
"""Columns that a cell has at least, if it is cut, and characters of an id that is shortened."""

WIDE = click.option("--wide", is_flag=True, help="Show whole ids and cells, in lines of any length.")

_GAP = "  "
_CUT = "..."


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    empty: str,
    wide: bool,
    cut: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> None:
    """
    Print aligned columns; without rows, print *empty* on stderr, and nothing on stdout.

    Unless it is *wide*, the widest of the columns *cut* are cut until a row fits. *notes* has a text for each row,
    which is printed below it.
    """
    if not rows:
        click.echo(f"responder: {empty}", err=True)
        return
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    if not wide:
        _narrow(widths, [columns.index(name) for name in cut])
    for row, note in zip([columns, *rows], ["", *(notes or [""] * len(rows))], strict=True):
        line = _GAP.join(map(_fit, row, widths))
        for text in [line, *(f"{_GAP}{part}" for part in wrap(note, WIDTH - len(_GAP)))]:
            click.echo(text.rstrip())


def _fit(cell: str, width: int) -> str:
    """*cell* with exactly *width* characters."""
    return cell.ljust(width) if len(cell) <= width else cell[: width - len(_CUT)] + _CUT


def _narrow(widths: list[int], cut: Sequence[int]) -> None:
    """Make the widest of the columns *cut* narrower until all columns fit, or until none can be narrower."""
    while sum(widths) + len(_GAP) * (len(widths) - 1) > WIDTH:
        widest = max(cut, key=widths.__getitem__, default=None)
        if widest is None or widths[widest] <= LEAST:
            return
        widths[widest] -= 1


def short_ids(ids: Iterable[UUID], *, wide: bool = False) -> dict[UUID, str]:
    """The shortest unique beginning of each id, with at least `LEAST` characters; the whole ids if *wide*."""
    texts = sorted({str(each): each for each in ids}.items())
    common = [0, *(_common(one, other) for (one, _), (other, _) in pairwise(texts)), 0]
    return {
        each: text if wide else text[: max(LEAST, common[at] + 1, common[at + 1] + 1)]
        for at, (text, each) in enumerate(texts)
    }


def span_text(time: timedelta) -> str:
    """A time in its largest unit, rounded down: 45s, 5m, 23h or 6d; 0s if it is negative."""
    seconds = max(0, int(time.total_seconds()))
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _common(one: str, other: str) -> int:
    """The number of characters that two different texts have in common at their beginning."""
    return next(at for at, (left, right) in enumerate(zip(one, other, strict=True)) if left != right)
