"""
Let atheris (libFuzzer) search for inputs that a target's `check` objects to, led by the branches they take.

    python -m tests.fuzz respond -max_total_time=600 /tmp/found tests/fuzz/corpus
    python -m tests.fuzz update -max_total_time=600 /tmp/found tests/fuzz/corpus-update

Options and directories are libFuzzer's: what is new goes into the first directory, the others are only read.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any


def main() -> None:
    """Fuzz until told to stop by an option, or by a finding: then the input is left in a file."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["responder"]):
        target = importlib.import_module(f"tests.fuzz.{sys.argv.pop(1)}")
    atheris.Setup(sys.argv, target.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
