"""
A document and any number of descriptors, sent through a Unix socket (SOCK_SEQPACKET) from one program to another.

The document travels in an anonymous file, so it may be long, and hold secrets.
"""

from __future__ import annotations

import json
import os
import socket
from typing import Any

AT_ONCE = 200
"""Descriptors in one message; the kernel takes 253 (SCM_MAX_FD in unix(7))."""

_MORE, _LAST = b"more", b"last"


def pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a new socket for parcels and other messages."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(sock: socket.socket, document: Any, descriptors: list[int]) -> None:
    """Send *document*, in JSON, and *descriptors*. Raises `OSError`."""
    file = memory_file(document)
    try:
        rest = [file, *descriptors]
        while rest:
            now, rest = rest[:AT_ONCE], rest[AT_ONCE:]
            socket.send_fds(sock, [_MORE if rest else _LAST], now)
    finally:
        os.close(file)


def receive(sock: socket.socket) -> tuple[Any, list[int]] | None:
    """The document and the descriptors; None if they did not arrive as a whole. Waits, if *sock* blocks."""
    received: list[int] = []
    word = _MORE
    try:
        while word == _MORE:
            word, descriptors, _, _ = socket.recv_fds(sock, len(_MORE), AT_ONCE, socket.MSG_CMSG_CLOEXEC)
            received += descriptors
    except OSError:
        word = b""
    if word != _LAST:
        for number in received:
            os.close(number)
        return None
    return read_memory_file(received[0]), received[1:]


def memory_file(document: Any) -> int:
    """The descriptor of an anonymous file that holds *document*, in JSON, and that programs run later inherit."""
    number = os.memfd_create("document", 0)
    with os.fdopen(number, "wb", closefd=False) as file:
        file.write(json.dumps(document).encode())
        file.seek(0)
    return number


def read_memory_file(number: int) -> Any:
    """The document in an anonymous file, which is closed."""
    with os.fdopen(number, "rb") as file:
        return json.load(file)
