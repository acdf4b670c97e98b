"""Ports for programs that are told which one to listen on, and start only later."""

from __future__ import annotations

import os
import random
import socket


def share(numbers: range) -> range:
    """Those of *numbers* that are left to this process, if several run tests side by side (pytest-xdist)."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return numbers[worker :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))]


_PORTS = share(range(15_000, 32_000))
"""Below what Linux gives to outgoing sockets, so that no other program takes a port between two starts of a program."""

_untried = iter(random.sample(_PORTS, len(_PORTS)))


def free_port() -> int:
    """A port that nobody uses on any loopback address, neither over UDP nor over TCP; another one every time."""
    return next(filter(is_free, _untried))


def is_free(port: int) -> bool:
    """Whether a server could listen on the port, over UDP and TCP. Closed connections do not count."""
    with socket.socket(type=socket.SOCK_DGRAM) as udp, socket.socket(type=socket.SOCK_STREAM) as tcp:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            udp.bind(("0.0.0.0", port))
            tcp.bind(("0.0.0.0", port))
            tcp.listen()
        except OSError:
            return False
    return True
