"""
IPv6 addresses to come from. A machine may have but one, `::1`; in a network of its own a test may have any. Needs
root, and a kernel that lets it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from tests.support.processes import wait_until
from tests.support.requirements import lacking

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_SIOCSIFADDR, _SIOCSIFFLAGS = 0x8916, 0x8914  # linux/sockios.h
_IFF_UP = 1


@dataclass(frozen=True, slots=True)
class Network:
    """Makes sockets there, for whoever to use: a socket stays where it was made."""

    _inside: ThreadPoolExecutor

    def socket(self, address: str, port: int = 0) -> socket.socket:
        """A TCP socket bound to that IPv6 *address*."""
        return self._inside.submit(_bound, address, port).result()

    def run(self, work: Callable[[], T]) -> T:
        """What *work* returns in the thread that is there."""
        return self._inside.submit(work).result()

    def add(self, *addresses: str) -> None:
        """Give it these IPv6 *addresses*, too."""
        self._inside.submit(_add, addresses).result()


@contextmanager
def network(addresses: Sequence[str]) -> Iterator[Network]:
    """A network that nothing is in but these IPv6 *addresses*. Only the thread that makes its sockets is there."""
    with ThreadPoolExecutor(max_workers=1) as inside:
        try:
            inside.submit(_enter, addresses).result()
        except OSError as fault:  # EPERM, but ENOSPC where a machine has forbidden them, and more without IPv6
            lacking(f"a network of its own is not to be had here ({fault.strerror})")
        yield Network(inside)


def _enter(addresses: Sequence[str]) -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    with socket.socket() as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("=16sH14x", b"lo", _IFF_UP))
    _add(addresses)


def _add(addresses: Sequence[str]) -> None:
    with socket.socket(socket.AF_INET6) as sock:
        for address in addresses:
            packed = socket.inet_pton(socket.AF_INET6, address)
            fcntl.ioctl(sock, _SIOCSIFADDR, packed + struct.pack("=Ii", 128, socket.if_nametoindex("lo")))
    for address in addresses:
        wait_until(lambda address=address: _is_there(address), f"{address} is there")  # type: ignore[misc]


def _is_there(address: str) -> bool:
    """Whether the kernel is done with looking for others that have the address (RFC 4862, section 5.4)."""
    try:
        _bound(address, 0).close()
    except OSError:
        return False
    return True


def _bound(address: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6)
    try:
        sock.bind((address, port))
    except OSError:
        sock.close()
        raise
    return sock
