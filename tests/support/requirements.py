"""What a test needs and a machine may lack."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def lacking(what: str) -> NoReturn:
    """Skip the test, or fail it where RESPONDER_REQUIRE_ALL=1, as in CI: *what* says which part of it is missing."""
    if os.environ.get("RESPONDER_REQUIRE_ALL") == "1":
        pytest.fail(f"{what}, and RESPONDER_REQUIRE_ALL=1 asks for it")
    pytest.skip(what)
