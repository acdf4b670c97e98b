"""
One event a line on stderr: JSON for machines, aligned text for a person at a terminal. Secrets never come here.

What Python itself would print as plain text, warnings and unhandled exceptions, are events as well.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Any, TextIO, cast

import structlog

REMINDER = 600.0
"""Seconds between two lines about a trouble that lasts: a few dozen for a whole night."""

PRIORITIES = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}
"""Levels as syslog(3) and sd-daemon(3) number them."""

_log = structlog.get_logger("process")


class _Stderr(io.TextIOBase):
    """Takes a line at a time, in one write; one that cannot be written is lost, and never ends the process."""

    def write(self, text: str) -> int:
        with suppress(OSError):  # the disk is full, or the reader is gone
            os.write(sys.stderr.fileno(), text.encode("utf-8", "backslashreplace"))
        return len(text)


_STDERR = cast("TextIO", _Stderr())


def configure(*, level: str, format: str) -> None:  # noqa: A002  # the configuration's word
    """Set up this process: *level* as `logging` names it, *format* json, text, or auto (text on a terminal)."""
    common: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    final = _rendering(json=format == "json" or (format == "auto" and not sys.stderr.isatty()))
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*common, *final],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(_STDERR),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(_STDERR)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *common],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
        )
    )
    logging.basicConfig(level=max(threshold, logging.WARNING), handlers=[handler], force=True)  # libraries
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_unhandled
    threading.excepthook = _log_unhandled_in_thread


def _rendering(*, json: bool) -> list[structlog.typing.Processor]:
    """The processors that turn an event into text."""
    before: list[structlog.typing.Processor] = []
    renderer: structlog.typing.Processor
    if json:
        before, renderer = [structlog.processors.format_exc_info], structlog.processors.JSONRenderer()
    else:
        # A traceback that looks nicer shows local variables, and with them tokens.
        plain = structlog.dev.plain_traceback
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    return [*before, _prioritizing(renderer) if _is_journal() else renderer]


def _is_journal() -> bool:
    """Whether stderr leads to journald (JOURNAL_STREAM in systemd.exec(5)); it may have been redirected since."""
    if "JOURNAL_STREAM" not in os.environ:
        return False
    status = os.fstat(sys.stderr.fileno())
    return os.environ["JOURNAL_STREAM"] == f"{status.st_dev}:{status.st_ino}"


def _prioritizing(renderer: structlog.typing.Processor) -> structlog.typing.Processor:
    """As *renderer*, with the priority in front of each line, which journald takes off again (sd-daemon(3))."""

    def render(logger: Any, method: str, event: structlog.typing.EventDict) -> str:
        prefix = f"<{PRIORITIES[event['level']]}>"
        return prefix + str(renderer(logger, method, event)).replace("\n", f"\n{prefix}")

    return render


def _log_unhandled(kind: type[BaseException], fault: BaseException, traceback: TracebackType | None) -> None:
    _log.critical("an unhandled exception ended the process", exc_info=(kind, fault, traceback))


def _log_unhandled_in_thread(arguments: threading.ExceptHookArgs) -> None:
    _log.error("an unhandled exception ended a thread", exc_info=arguments.exc_value)


class Seldom:
    """Keeps what happens often from filling the disk: each kind is reported once in *interval* seconds."""

    MAX_KINDS = 100
    """Kinds told apart. A kind is a fault of ours, not text of a client's, so there are few."""

    def __init__(self, interval: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._kinds: dict[str, tuple[float, int]] = {}

    def due(self, kind: str) -> int | None:
        """How many of this *kind* went unreported since the last report, if it is time for one; None if not."""
        due, unreported = self._kinds.get(kind, (0.0, 0))
        now = self._clock()
        if now < due:
            self._kinds[kind] = (due, unreported + 1)
            return None
        if len(self._kinds) >= self.MAX_KINDS:
            self._kinds.clear()
        self._kinds[kind] = (now + self._interval, 0)
        return unreported


class Outage:
    """
    Something that is away for a second or for a night: a line when that begins, and for every new reason; a reminder
    now and then; a line when it is over, with how long it was.
    """

    def __init__(
        self,
        log: structlog.typing.FilteringBoundLogger,
        begun: str,
        over: str,
        *,
        settled: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        *begun* and *over* are what *log* is told. It is over when nothing was amiss for *settled* seconds: set it where
        one thing fails and others go well, by turns.
        """
        self._log = log
        self._texts = begun, over
        self._settled = settled
        self._clock = clock
        self._began: float | None = None
        self._ended: float | None = None
        self._last = 0.0
        self._reason: str | None = None
        self._seldom = Seldom(REMINDER, clock)

    @property
    def reason(self) -> str | None:
        """What was wrong the last time, as long as it is not over; None if it is."""
        return self._reason

    def goes_on(self, reason: str, **told: object) -> None:
        """It did not go well this time, either."""
        self._last, self._ended, self._reason = self._clock(), None, reason
        if self._began is None:
            self._began, self._seldom = self._last, Seldom(REMINDER, self._clock)
        if (more := self._seldom.due(reason)) is not None:
            if more:
                told = {"lasting": _duration(self._last - self._began), "more": more, **told}
            self._log.error(self._texts[0], reason=reason, **told)

    def is_over(self) -> None:
        """It went well this time."""
        if self._began is None:
            return
        now = self._clock()
        self._ended = now if self._ended is None else self._ended
        if now - self._last >= self._settled:
            self._log.warning(self._texts[1], lasted=_duration(self._ended - self._began))  # seen where the other is
            self._began = self._reason = None


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
