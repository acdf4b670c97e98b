"""
What is one for all tests: the PostgreSQL server, how Hypothesis goes about its work, and the signals that the programs
they start find.

Hypothesis tries the same examples every time, takes as long as a busy machine does, and remembers nothing; look further
with `--hypothesis-profile=default`. `nohup` has SIGHUP ignored, a script's `&` has SIGINT and SIGQUIT, and that is
inherited; a handler is not.
"""

from __future__ import annotations

import signal

from hypothesis import settings

from tests.support.postgres import postgres_server

__all__ = ["postgres_server"]

settings.load_profile("ci")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a test by the argument, not by a packet: that has a random id, but each process must find the same tests."""
    return argname if isinstance(val, bytes) and len(val) > 16 else None


def pytest_configure() -> None:
    """Go on ignoring what is ignored, but by a handler."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
