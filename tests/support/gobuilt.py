"""
Programs that Debian has not, and Go builds: `.ci/tools` puts them into .tools, and .ci/run calls it if there is a Go.
"""

from __future__ import annotations

import os
import shutil

import pytest

from tests.support.places import ROOT

TOOLS = ROOT / ".tools"


def find(name: str) -> str | None:
    """The path of the program, from .tools or wherever programs are."""
    return shutil.which(name, path=f"{TOOLS}{os.pathsep}{os.environ.get('PATH', os.defpath)}")


def require(name: str) -> str:
    """The path of the program; skips the test without it, or fails it where RESPONDER_REQUIRE_ALL=1 and there is Go."""
    found = find(name)
    if found is not None:
        return found
    if os.environ.get("RESPONDER_REQUIRE_ALL") == "1" and shutil.which("go"):
        pytest.fail(f"{name} is not installed, and RESPONDER_REQUIRE_ALL=1 asks for it: .ci/tools builds it")
    pytest.skip(f"{name} is not installed")
