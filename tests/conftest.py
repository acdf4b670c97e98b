"""
What is one for all tests: the PostgreSQL server, and the signals that the programs they start find.

`nohup` has SIGHUP ignored, a script's `&` has SIGINT and SIGQUIT, and that is inherited; a handler is not.
"""

from __future__ import annotations

import signal

from tests.postgres import postgres_server

__all__ = ["postgres_server"]


def pytest_configure() -> None:
    """Go on ignoring what is ignored, but by a handler."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
