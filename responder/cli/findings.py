"""
The doctor's findings on a screen: a table of ticks and crosses for each zone and hostname, then what mends the crosses.

Records and commands to mend with stand on lines of their own, unindented and unbroken, to be copied as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from responder.doctor import Finding, Mark, Section

_STYLES = {Mark.TICK: "green", Mark.NOTE: "yellow", Mark.CROSS: "bold red"}
_SIGNS = {Mark.TICK: "✔", Mark.NOTE: "!", Mark.CROSS: "✘"}
_ASCII_SIGNS = {Mark.TICK: "ok", Mark.NOTE: "!", Mark.CROSS: "XX"}

_UNBROKEN = 100_000
"""Columns of what is no terminal: lines in a file or a pipe are not broken."""


class Screen:
    """Shows sections as they come, what is waited for meanwhile (on a terminal), and what to mend at the end."""

    def __init__(self) -> None:
        self._out = Console(highlight=False)
        if not self._out.is_terminal:
            self._out.width = _UNBROKEN
        self._signs = _ASCII_SIGNS if self._out.options.ascii_only else _SIGNS
        self._status: Status | None = None
        self._mends: list[Finding] = []

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show what is waited for, as long as the block lasts, wherever there is a terminal to show it on."""
        screen = self._out if self._out.is_terminal else Console(stderr=True)
        if not screen.is_terminal:
            yield
            return
        spinner = "line" if screen.options.ascii_only else "dots"
        with screen.status("looking", spinner=spinner) as self._status:
            yield
        self._status = None

    def waiting(self, whom: str) -> None:
        """Say which server is waited for."""
        if self._status is not None and whom:
            self._status.update(Text(f"waiting for {whom}", style="dim"))

    def show(self, section: Section) -> None:
        """Print one section. Numbers lead to what `show_mends` prints."""
        table = Table.grid(padding=(0, 1))
        for finding in section.findings:
            number = ""
            if finding.mend is not None:
                self._mends.append(finding)
                number = str(len(self._mends))
            style = _STYLES[finding.mark]
            text = Text(finding.text, overflow="fold")
            table.add_row("", Text(self._signs[finding.mark], style), Text(number, style), finding.check.value, text)
        self._out.print(Text(str(section.subject), style="bold"))
        self._out.print(table)
        self._out.print()

    def show_mends(self) -> None:
        """Print what mends each cross, and what is worth doing about notes; then the result in one line."""
        for number, finding in enumerate(self._mends, 1):
            if finding.mend is not None:
                sign = Text(f"{self._signs[finding.mark]} {number}", style=_STYLES[finding.mark])
                self._plain(Text.assemble(sign, f" {finding.check.value}: {finding.mend.instruction}"))
                for line in finding.mend.lines:
                    self._plain(Text(line))
                self._out.print()

    def conclude(self, sections: Sequence[Section]) -> None:
        """Print the result in one line."""
        crosses, notes = (count(sections, mark) for mark in (Mark.CROSS, Mark.NOTE))
        aside = f", {notes} worth knowing" if notes else ""
        verdict = f"{crosses} to mend{aside}" if crosses else f"nothing to mend{aside}"
        self._out.print(Text(verdict, style=_STYLES[Mark.CROSS if crosses else Mark.TICK]))

    def _plain(self, text: Text) -> None:
        """Print a line as it is: what is longer than the terminal is wide, the terminal breaks, and copies unbroken."""
        self._out.print(text, soft_wrap=True)


def count(sections: Iterable[Section], mark: Mark) -> int:
    """How many findings have that mark."""
    return sum(finding.mark is mark for section in sections for finding in section.findings)


def as_json(sections: Sequence[Section]) -> dict[str, Any]:
    """The findings as JSON has them."""
    return {
        "passed": not count(sections, Mark.CROSS),
        "crosses": count(sections, Mark.CROSS),
        "notes": count(sections, Mark.NOTE),
        "sections": [
            {"subject": str(section.subject), "findings": [_finding(finding) for finding in section.findings]}
            for section in sections
        ],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    mend = finding.mend
    return {
        "check": finding.check.value,
        "mark": finding.mark.value,
        "text": finding.text,
        "mend": None if mend is None else {"instruction": mend.instruction, "lines": list(mend.lines)},
    }
