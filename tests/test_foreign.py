"""What other programs send is fit for use: texts without control characters, JSON objects, reasons in one line."""

from __future__ import annotations

import errno

import pytest

from responder.errors import CannotStart
from responder.foreign import explaining, json_object, printable


def test_control_characters() -> None:
    """Characters that would command a terminal, or reverse the text that follows, become spaces."""
    assert printable("a\x1b[2Jb\nc\u202ed é") == "a [2Jb c d é"


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b'{"a": [1]}', {"a": [1]}),
        (b"[1]", {}),
        (b"", {}),
        (b"\xff", {}),
        (b"<html>", {}),
        pytest.param(b"[" * 100_000, {}, id="nested too deep"),
    ],
)
def test_json_object(octets: bytes, expected: dict[str, object]) -> None:
    """Anything but a JSON object counts as an empty one."""
    assert json_object(octets) == expected


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on device"),
        (TimeoutError(), "it takes too long"),
        (OSError(), "the system gives no reason"),
    ],
)
def test_explaining(fault: OSError, reason: str) -> None:
    """An error of the operating system becomes one of ours, with its reason and without a traceback of both."""
    cannot_write = explaining(lambda why: CannotStart(f"cannot write: {why}"))
    with pytest.raises(CannotStart, match=f"^cannot write: {reason}$") as raised, cannot_write:
        raise fault
    assert raised.value.__suppress_context__


def test_no_error() -> None:
    """Without an error, nothing is raised."""
    with explaining(CannotStart):
        pass
