"""
What every program that a test starts finds, however the tests were started: signals that are not ignored.

`nohup` has SIGHUP ignored, a script's `&` has SIGINT and SIGQUIT, and that is inherited; a handler is not.
"""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Go on ignoring what is ignored, but by a handler."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
