"""
The interface to systemd: the sockets that it hands over, and notifications of readiness and of the watchdog.

See sd_listen_fds(3) and sd_notify(3). If systemd did not start the service, these functions do nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket

FIRST_DESCRIPTOR = 3
"""SD_LISTEN_FDS_START of sd_listen_fds(3)."""


def inherited_sockets() -> list[socket.socket]:
    """The Internet sockets that systemd handed to this very process."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    sockets = []
    for number in range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(os.environ.get("LISTEN_FDS", "0"))):
        sock = socket.socket(fileno=number)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sockets.append(sock)
        else:
            sock.detach()
    return sockets


def notify(state: str) -> None:
    """Notify systemd of *state*, such as READY=1. Errors are ignored, because the service can run without systemd."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        sock.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


def watchdog_interval() -> float | None:
    """Seconds between two watchdog notifications (WATCHDOG=1), a third of the limit; None if systemd expects none."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = int(os.environ.get("WATCHDOG_USEC", "0"))
    return microseconds / 1e6 / 3 if microseconds else None
