"""What a process writes to stderr once its logs are set up, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

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
