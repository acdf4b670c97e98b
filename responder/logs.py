"""
Logging to stderr, one event per line: JSON for machines, aligned text for a person at a terminal. No secret is logged.

Warnings and unhandled exceptions, which Python prints as plain text, are logged as events as well.
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
"""Seconds between two lines about the same outage: a whole night makes a few dozen lines."""

PRIORITIES = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}
"""The numbers of the levels in syslog(3) and sd-daemon(3)."""

_log = structlog.get_logger("process")


class _Stderr(io.TextIOBase):
    """Writes each line in one piece. A line that cannot be written is lost, and the process goes on."""

    def write(self, text: str) -> int:
        with suppress(OSError):  # the disk is full, or the reader is gone
            os.write(sys.stderr.fileno(), text.encode("utf-8", "backslashreplace"))
        return len(text)


_STDERR = cast("TextIO", _Stderr())


def configure(*, level: str, format: str) -> None:  # noqa: A002  # the configuration's word
    """
    Set up logging in this process. *level* is a level of `logging`; *format* is json, text, or auto (text on a
    terminal, otherwise json).
    """
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
    """Return the processors that turn an event into text."""
    before: list[structlog.typing.Processor] = []
    renderer: structlog.typing.Processor
    if json:
        before, renderer = [structlog.processors.format_exc_info], structlog.processors.JSONRenderer()
    else:
        # The other formatters of tracebacks print local variables, which may hold tokens.
        plain = structlog.dev.plain_traceback
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    return [*before, _prioritizing(renderer) if _is_journal() else renderer]


def _is_journal() -> bool:
    """Return whether stderr goes to journald (JOURNAL_STREAM in systemd.exec(5)) and was not redirected."""
    if "JOURNAL_STREAM" not in os.environ:
        return False
    status = os.fstat(sys.stderr.fileno())
    return os.environ["JOURNAL_STREAM"] == f"{status.st_dev}:{status.st_ino}"


def _prioritizing(renderer: structlog.typing.Processor) -> structlog.typing.Processor:
    """Return *renderer* with the priority before each line; journald removes it (sd-daemon(3))."""

    def render(logger: Any, method: str, event: structlog.typing.EventDict) -> str:
        prefix = f"<{PRIORITIES[event['level']]}>"
        return prefix + str(renderer(logger, method, event)).replace("\n", f"\n{prefix}")

    return render


def _log_unhandled(kind: type[BaseException], fault: BaseException, traceback: TracebackType | None) -> None:
    _log.critical("an unhandled exception ended the process", exc_info=(kind, fault, traceback))


def _log_unhandled_in_thread(arguments: threading.ExceptHookArgs) -> None:
    _log.error("an unhandled exception ended a thread", exc_info=arguments.exc_value)


class Seldom:
    """Limits how often events are reported: each kind once in *interval* seconds, so that they do not fill the disk."""

    MAX_KINDS = 100
    """Kinds that are distinguished. A kind names a fault of ours, not text from a client, so there are few."""

    def __init__(self, interval: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._kinds: dict[str, tuple[float, int]] = {}

    def due(self, kind: str) -> int | None:
        """
        Return None if an event of this *kind* should not be reported yet. If it should, return how many events of that
        kind were not reported since the last report.
        """
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
    An outage, which may last a second or a night. It logs a line when the outage begins, a line for every new reason,
    a reminder every `REMINDER` seconds, and a line with the duration when it is over.
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
        *begun* and *over* are the texts that are logged to *log*. The outage is over after *settled* seconds without a
        fault: set it where some attempts fail while others succeed.
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
        """The reason of the last failure; None if the outage is over."""
        return self._reason

    def goes_on(self, reason: str, **details: object) -> None:
        """Note that an attempt has failed, for this *reason*. *details* are logged with it."""
        self._last, self._ended, self._reason = self._clock(), None, reason
        if self._began is None:
            self._began, self._seldom = self._last, Seldom(REMINDER, self._clock)
        if (more := self._seldom.due(reason)) is not None:
            if more:
                details = {"lasting": _duration(self._last - self._began), "more": more, **details}
            self._log.error(self._texts[0], reason=reason, **details)

    def is_over(self) -> None:
        """Note that an attempt has succeeded."""
        if self._began is None:
            return
        now = self._clock()
        self._ended = now if self._ended is None else self._ended
        if now - self._last >= self._settled:
            self._log.warning(self._texts[1], lasted=_duration(self._ended - self._began))  # shown where errors are
            self._began = self._reason = None


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
