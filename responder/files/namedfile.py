"""
Reading small files that a user names, in the configuration or on the command line, with limits on time and size.

Every failure is an `Invalid` with the path and the reason why it "cannot be read".
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
from responder.foreign import explaining

PIPE_DEADLINE = 10.0
"""Seconds in which a pipe must deliver everything: a user may have to type a password first."""

STDIN = Path("-")
"""The name of standard input, where a pipe is allowed."""

_ANOTHER_USER = "another user can write it: if you trust it, name it with --config"


def read(path: Path, most: int, *, pipes: bool = False, ours: bool = False) -> bytes:
    """
    The content of the file at *path*, at most *most* octets. Raises `Invalid`.

    With *pipes*, *path* may also be `-` for standard input, a pipe (the shell makes one of `<(command)`), or a device
    such as `/dev/null`. Code that reads a file repeatedly, or while it does other work, must not use this. With *ours*,
    a file that a user other than root and the current one can write is refused. This is for files that no user named.
    """
    with explaining(lambda reason: Invalid(f"{path}: cannot be read: {reason}")):
        if pipes and path == STDIN:
            content = sys.stdin.buffer.read(most + 1)
        else:
            content = _read(path, most + 1, pipes=pipes, ours=ours)
    if len(content) > most:
        raise Invalid(f"{path}: cannot be read: it is longer than {most >> 10} KiB")
    return content


def read_text(path: Path, most: int, *, pipes: bool = False, ours: bool = False) -> str:
    """The same as `read`, for text in UTF-8."""
    try:
        return read(path, most, pipes=pipes, ours=ours).decode()
    except UnicodeDecodeError:
        raise Invalid(f"{path}: is not UTF-8 text") from None


def _read(path: Path, most: int, *, pipes: bool, ours: bool) -> bytes:
    # Without O_NONBLOCK, opening a pipe waits for a process that writes into it.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        # The owner of a symbolic link decides which file is read. The mode of a link has no meaning.
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
    content, until = b"", monotonic() + PIPE_DEADLINE
    while len(content) < most:
        if not readable.poll(max(0.0, until - monotonic()) * 1000):
            raise TimeoutError(errno.ETIMEDOUT, "no process writes into it")
        piece = os.read(descriptor, most - len(content))
        if not piece:
            break
        content += piece
    return content
