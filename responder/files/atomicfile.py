"""
Files that are there completely or not at all, whatever becomes of this process or of the machine.

A draft is written beside the place, with its mode from the first moment on, and put there once it is on disk. What goes
wrong is an `OSError`, for the caller to put into words.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PRIVATE = 0o600
"""The mode of a file that nobody else may read."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A file beside *path*, to be written once, and then put there. Get one from `draft`."""

    path: Path
    _place: Path
    _descriptor: int

    def write(self, content: bytes) -> None:
        """Give it its content, and wait until that is on disk."""
        with os.fdopen(self._descriptor, "wb", closefd=False) as file:
            file.write(content)
        os.fsync(self._descriptor)

    def replace(self) -> None:
        """Put it in the place of whatever is at *path*."""
        self._place.replace(self.path)
        _sync(self.path.parent)

    def add(self) -> bool:
        """Put it at *path*; False if something is there, which then stays. Some file systems have no way to do that."""
        try:
            os.link(self._place, self.path)  # unlike a renaming, this leaves alone what somebody put there meanwhile
        except FileExistsError:
            return False
        _sync(self.path.parent)
        return True


@contextmanager
def draft(path: Path, *, mode: int = PRIVATE, of_directory: bool = False) -> Iterator[Draft]:
    """
    An empty draft for *path*; it is gone at the end, put there or not.

    With *of_directory*, one that root makes belongs to whoever has the directory.
    """
    place = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE)
    try:
        if of_directory and os.geteuid() == 0:
            owner = path.parent.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        os.fchmod(descriptor, mode)
        yield Draft(path, place, descriptor)
    finally:
        os.close(descriptor)
        place.unlink(missing_ok=True)


def write(path: Path, content: bytes, *, mode: int = PRIVATE) -> None:
    """Put *content* in the place of whatever is at *path*."""
    with draft(path, mode=mode) as new:
        new.write(content)
        new.replace()


def create(path: Path, content: bytes, *, mode: int = PRIVATE, of_directory: bool = False) -> bool:
    """As `write`, but whatever is at *path* stays, and the answer is False. *of_directory* is as in `draft`."""
    with draft(path, mode=mode, of_directory=of_directory) as new:
        new.write(content)
        return new.add()


def _sync(directory: Path) -> None:
    """See that the names in a directory are on disk, if we may read it: there are some where one may only write."""
    with suppress(PermissionError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
