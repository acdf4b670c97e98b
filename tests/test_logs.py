"""What a process writes to stderr once its logs are set up, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import structlog

from responder.logs import REMINDER, Outage

SCRIPT = """
import logging, sys, structlog
from responder import logs
logs.configure(level={level!r}, format={format!r})
log = structlog.get_logger("test")
log.debug("too little")
log.info("served", hostname="some.example.com")
def fail(token):
    raise ValueError("a fault")
try:
    fail("rsp_" + "secret"[::-1])
except ValueError:
    log.exception("failed")
try:
    fail("rsp_" + "secret"[::-1])
except ValueError:
    logging.getLogger("library").exception("failed, too")
logging.getLogger("library").info("no news")
"""


def written(level: str, format: str) -> str:  # noqa: A002  # the configuration's word
    """All that the script writes; it goes to stderr."""
    script = SCRIPT.format(level=level, format=format)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "" == done.stdout
    return done.stderr


@pytest.mark.parametrize("format_", ["json", "auto"])
def test_json(format_: str) -> None:
    """Off a terminal every event is one line of JSON, those of libraries and tracebacks included."""
    first, second, third = map(json.loads, written("info", format_).splitlines())

    assert ("served", "info", "some.example.com") == (first["event"], first["level"], first["hostname"])
    assert first["timestamp"].endswith("Z")
    assert ("failed", "error") == (second["event"], second["level"])
    assert ("failed, too", "error", "library") == (third["event"], third["level"], third["logger"])
    for event in (second, third):
        assert event["exception"].endswith("ValueError: a fault")


@pytest.mark.parametrize("format_", ["json", "text"])
def test_a_log_that_cannot_be_written(format_: str) -> None:
    """A process goes on when the reader of its log is gone, or the disk below it full."""
    script = SCRIPT.format(level="info", format=format_) + "print('still here')"
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as gone, Path("/dev/full").open("wb") as full:
        for stderr in (gone, full):
            done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=stderr, check=False)
            assert b"still here\n" == done.stdout


@pytest.mark.parametrize("format_", ["json", "text"])
def test_no_variables_in_tracebacks(format_: str) -> None:
    """A traceback has lines of the program, and never what was in its variables."""
    text = written("info", format_)

    assert 2 == text.count("ValueError: a fault")
    assert "rsp_terces" not in text


def test_level() -> None:
    """What is below the level is not written; libraries are never asked for less than warnings."""
    assert "too little" in written("debug", "text")
    assert "no news" not in written("debug", "text")
    assert "served" not in written("warning", "text")


UNHANDLED = """
import threading, warnings
from responder import logs
logs.configure(level="error", format="json")
def fail(): raise ValueError("a fault")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
logs.configure(level="info", format="json")
warnings.warn("an old way")
fail()
"""


def test_what_python_prints() -> None:
    """Unhandled exceptions and warnings, which Python prints as plain text, are events like all others."""
    done = subprocess.run([sys.executable, "-c", UNHANDLED], capture_output=True, text=True, check=False)

    thread, warning, fault = map(json.loads, done.stderr.splitlines())
    assert 1 == done.returncode
    assert ("an unhandled exception ended a thread", "error") == (thread["event"], thread["level"])
    assert ("warning", True) == (warning["level"], "UserWarning: an old way" in warning["event"])
    assert ("an unhandled exception ended the process", "critical") == (fault["event"], fault["level"])
    assert all(event["exception"].endswith("ValueError: a fault") for event in (thread, fault))


# What lasts


@dataclass
class Watch:
    """An outage by a clock that stands until it is moved, and what is said about it."""

    logged: list[structlog.typing.EventDict]
    now: float = 1000.0
    outage: Outage = field(init=False)

    def __post_init__(self) -> None:
        log = structlog.get_logger("test")
        self.outage = Outage(log, "it is away", "it is back", settled=10.0, clock=lambda: self.now)

    def goes_on(self, *, seconds: int, every: int = 1, reason: str = "no reason") -> None:
        for _ in range(0, seconds, every):
            self.outage.goes_on(reason)
            self.now += every

    def is_over(self, *, seconds: int) -> None:
        for _ in range(seconds):
            self.outage.is_over()
            self.now += 1

    def said(self) -> list[tuple[object, ...]]:
        said = [tuple(v for k, v in log.items() if k != "log_level") for log in self.logged]
        self.logged.clear()
        return [(event, *others) for *others, event in said]


@pytest.fixture
def watch() -> Iterator[Watch]:
    with structlog.testing.capture_logs() as logged:
        yield Watch(logged)


def test_an_outage_of_hours(watch: Watch) -> None:
    """A line when it begins, one every ten minutes while it lasts, and one when it is over, with its length."""
    watch.is_over(seconds=20)
    watch.goes_on(seconds=3 * 3600)
    assert [
        ("it is away", "no reason"),
        ("it is away", "no reason", "0:10:00", REMINDER - 1),
    ] == watch.said()[:2]

    watch.is_over(seconds=3600)

    assert [("it is back", "3:00:00")] == watch.said()


def test_each_reason_is_told(watch: Watch) -> None:
    """A reason that is new is told at once; those that take turns are not told again and again."""
    for _ in range(100):
        watch.goes_on(seconds=1, reason="nothing answers there")
        watch.goes_on(seconds=1, reason="it is starting up")

    assert [("it is away", "nothing answers there"), ("it is away", "it is starting up")] == watch.said()


def test_what_fails_by_turns(watch: Watch) -> None:
    """As long as one thing goes well and another fails, it is not over."""
    for _ in range(20):
        watch.goes_on(seconds=1)
        watch.is_over(seconds=5)
    assert [("it is away", "no reason")] == watch.said()

    watch.is_over(seconds=20)

    assert [("it is back", "0:01:55")] == watch.said()


def test_outages_are_told_apart(watch: Watch) -> None:
    """Another outage is told as the first was, however soon it comes."""
    for _ in range(2):
        watch.goes_on(seconds=3)
        watch.is_over(seconds=11)

        assert [("it is away", "no reason"), ("it is back", "0:00:03")] == watch.said()
