"""
Prints the findings of the doctor: a table of ticks and crosses for each zone and hostname, then how to fix the crosses.

Records and commands are printed on lines of their own, without indentation and line breaks, so that they can be copied.
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
"""Columns of a file or a pipe, where lines are not broken."""


class Screen:
    """Shows each section when it is complete, on a terminal the server that it waits for, and at the end the fixes."""

    def __init__(self) -> None:
        self._out = Console(highlight=False)
        if not self._out.is_terminal:
            self._out.width = _UNBROKEN
        self._signs = _ASCII_SIGNS if self._out.options.ascii_only else _SIGNS
        self._status: Status | None = None
        self._fixes: list[Finding] = []

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show which server is waited for while the block runs, if stdout or stderr is a terminal."""
        screen = self._out if self._out.is_terminal else Console(stderr=True)
        if not screen.is_terminal:
            yield
            return
        spinner = "line" if screen.options.ascii_only else "dots"
        with screen.status("checking", spinner=spinner) as self._status:
            yield
        self._status = None

    def waiting(self, whom: str) -> None:
        """Show which server is waited for."""
        if self._status is not None and whom:
            self._status.update(Text(f"waiting for {whom}", style="dim"))

    def show(self, section: Section) -> None:
        """Print one section. Its numbers refer to what `show_fixes` prints."""
        table = Table.grid(padding=(0, 1))
        for finding in section.findings:
            number = ""
            if finding.fix is not None:
                self._fixes.append(finding)
                number = str(len(self._fixes))
            style = _STYLES[finding.mark]
            text = Text(finding.text, overflow="fold")
            table.add_row("", Text(self._signs[finding.mark], style), Text(number, style), finding.check.value, text)
        self._out.print(Text(str(section.subject), style="bold"))
        self._out.print(table)
        self._out.print()

    def show_fixes(self) -> None:
        """Print how to fix each cross, and what can be done about notes."""
        for number, finding in enumerate(self._fixes, 1):
            if finding.fix is not None:
                sign = Text(f"{self._signs[finding.mark]} {number}", style=_STYLES[finding.mark])
                self._plain(Text.assemble(sign, f" {finding.check.value}: {finding.fix.instruction}"))
                for line in finding.fix.lines:
                    self._plain(Text(line))
                self._out.print()

    def conclude(self, sections: Sequence[Section]) -> None:
        """Print the result in one line."""
        crosses, notes = (count(sections, mark) for mark in (Mark.CROSS, Mark.NOTE))
        problems = _count(crosses, "problem") if crosses else "no problems"
        result = f"{problems}, {_count(notes, 'note')}" if notes else problems
        self._out.print(Text(result, style=_STYLES[Mark.CROSS if crosses else Mark.TICK]))

    def _plain(self, text: Text) -> None:
        """Print a line without breaking it: a terminal wraps it by itself, and copies it as one line."""
        self._out.print(text, soft_wrap=True)


def count(sections: Iterable[Section], mark: Mark) -> int:
    """The number of findings with *mark*."""
    return sum(finding.mark is mark for section in sections for finding in section.findings)


def as_json(sections: Sequence[Section]) -> dict[str, Any]:
    """The findings, for JSON."""
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
    fix = finding.fix
    return {
        "check": finding.check.value,
        "mark": finding.mark.value,
        "text": finding.text,
        "fix": None if fix is None else {"instruction": fix.instruction, "lines": list(fix.lines)},
    }


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
