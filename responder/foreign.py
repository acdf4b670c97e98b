"""What other programs and libraries produce, made fit for use here: texts, JSON, and the reasons of their errors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any


def printable(text: str) -> str:
    """*text* with a space for each character that would command a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def json_object(octets: bytes) -> dict[str, Any]:
    """The JSON object in *octets*; an empty one if there is none."""
    try:
        document = json.loads(octets)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def system_reason(fault: OSError) -> str:
    """The reason that the operating system gives for *fault*, to follow a colon."""
    fallback = "it takes too long" if isinstance(fault, TimeoutError) else "the system gives no reason"
    return fault.strerror.lower() if fault.strerror else fallback


@contextmanager
def explaining(refusal: Callable[[str], Exception]) -> Iterator[None]:
    """Raise *refusal* of the reason in place of an `OSError`."""
    try:
        yield
    except OSError as fault:
        raise refusal(system_reason(fault)) from None


def fault_text(details: Mapping[str, Any]) -> str:
    """What is wrong with a value according to pydantic, to follow the name of the value. It quotes no input."""
    match details["type"]:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            return "is not known here"
        case "value_error":
            return str(details["ctx"]["error"])
        case _:
            return str(details["msg"]).replace("Input should be", "must be")
