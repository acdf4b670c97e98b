"""
One event a line on stderr: JSON for machines, aligned text for a person at a terminal. Secrets never come here.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable

import structlog


def configure(*, level: str, format: str) -> None:  # noqa: A002  # the configuration's word
    """Set up this process: *level* as `logging` names it, *format* json, text, or auto (text on a terminal)."""
    json = format == "json" or (format == "auto" and not sys.stderr.isatty())
    common: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    final: list[structlog.typing.Processor]
    if json:
        final = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        # A traceback that looks nicer shows local variables, and with them tokens.
        plain = structlog.dev.plain_traceback
        final = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*common, *final],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *common],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
        )
    )
    logging.basicConfig(level=max(threshold, logging.WARNING), handlers=[handler], force=True)  # libraries


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
