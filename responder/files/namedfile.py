"""
The small files that people name, in the configuration or on the command line: read whole, in bounded time and size.

Whatever is in the way is an `Invalid` that says the same everywhere: the path, and why it "cannot be read".
"""

from __future__ import annotations

import errno
import os
import select
import stat
import sys
from pathlib import Path
from time import monotonic

from responder.errors import Invalid

PATIENCE = 10.0
"""Seconds that a pipe may take to say all: whoever writes into it may have to type a password first."""

STDIN = Path("-")
"""How standard input is named where a file may be a pipe."""

_ANOTHER_USER = "another user can write it, so it is only read where it is named: use --config if you trust it"


def read(path: Path, most: int, *, pipes: bool = False, ours: bool = False) -> bytes:
    """
    The content of the file at *path*, of *most* octets.

    With *pipes* it may also be `-` for standard input, a pipe, as the shell makes of `<(command)`, or a device, such as
    `/dev/null` for nothing at all; code that reads a file again and again, or beside other work, cannot use them. With
    *ours*, a file that a user other than root and us can write is refused: for files that are found, not named. Raises
    `Invalid`.
    """
    try:
        if pipes and path == STDIN:
            content = sys.stdin.buffer.read(most + 1)
        else:
            content = _read(path, most + 1, pipes=pipes, ours=ours)
    except OSError as fault:
        raise Invalid(f"{path}: cannot be read: {(fault.strerror or type(fault).__name__).lower()}") from None
    if len(content) > most:
        raise Invalid(f"{path}: cannot be read: it is longer than {most >> 10} KiB")
    return content


def read_text(path: Path, most: int, *, pipes: bool = False, ours: bool = False) -> str:
    """As `read`, for text in UTF-8."""
    try:
        return read(path, most, pipes=pipes, ours=ours).decode()
    except UnicodeDecodeError:
        raise Invalid(f"{path}: is not UTF-8 text") from None


def _read(path: Path, most: int, *, pipes: bool, ours: bool) -> bytes:
    # Without O_NONBLOCK, opening a pipe waits for somebody who writes into it.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        # Who owns a symbolic link decides what is read, and the mode of a link says nothing.
        if ours and (_is_foreign(path.lstat()) or _is_foreign(status) or status.st_mode & stat.S_IWOTH):
            raise PermissionError(errno.EPERM, _ANOTHER_USER)
        kind = stat.S_IFMT(status.st_mode)
        if kind not in (stat.S_IFREG, stat.S_IFDIR) and not (pipes and kind in (stat.S_IFIFO, stat.S_IFCHR)):
            raise OSError(errno.EINVAL, "it is not a file")
        return _take(descriptor, most)
    finally:
        os.close(descriptor)


def _is_foreign(status: os.stat_result) -> bool:
    return status.st_uid not in (0, os.geteuid())


def _take(descriptor: int, most: int) -> bytes:
    readable = select.poll()
    readable.register(descriptor, select.POLLIN)
    content, until = b"", monotonic() + PATIENCE
    while len(content) < most:
        if not readable.poll(max(0.0, until - monotonic()) * 1000):
            raise TimeoutError(errno.ETIMEDOUT, "nobody writes into it")
        piece = os.read(descriptor, most - len(content))
        if not piece:
            break
        content += piece
    return content
