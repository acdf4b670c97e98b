"""
Writing files so that they exist completely or not at all, even if this process or the machine stops in between.

The new file is written in the same directory, with its final mode from the start, and is moved to its place when it is
on disk. A failure is an `OSError`; the caller turns it into an error text.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PRIVATE = 0o600
"""The mode of a file that only its owner may read."""


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file next to *path*, which is written once and then moved to *path*. `new_file` makes one."""

    path: Path
    _place: Path
    _descriptor: int

    def write(self, content: bytes) -> None:
        """Write *content*, and wait until it is on disk."""
        with os.fdopen(self._descriptor, "wb", closefd=False) as file:
            file.write(content)
        os.fsync(self._descriptor)

    def replace(self) -> None:
        """Move the file to *path*, and replace a file that is there."""
        self._place.replace(self.path)
        _sync(self.path.parent)

    def add(self) -> bool:
        """
        Put the file at *path* if nothing is there; otherwise return False. Some file systems do not support this.
        """
        try:
            os.link(self._place, self.path)  # unlike renaming, this never replaces a file
        except FileExistsError:
            return False
        _sync(self.path.parent)
        return True


@contextmanager
def new_file(path: Path, *, mode: int = PRIVATE, of_directory: bool = False) -> Iterator[NewFile]:
    """
    An empty file for *path*. It is removed at the end if it was not moved to *path*.

    With *of_directory*, a file that root makes gets the owner of the directory.
    """
    place = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE)
    try:
        if of_directory and os.geteuid() == 0:
            owner = path.parent.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        os.fchmod(descriptor, mode)
        yield NewFile(path, place, descriptor)
    finally:
        os.close(descriptor)
        place.unlink(missing_ok=True)


def write(path: Path, content: bytes, *, mode: int = PRIVATE) -> None:
    """Write *content* to *path*, and replace a file that is there."""
    with new_file(path, mode=mode) as new:
        new.write(content)
        new.replace()


def create(path: Path, content: bytes, *, mode: int = PRIVATE, of_directory: bool = False) -> bool:
    """As `write`, but if there is a file at *path*, it stays, and False is returned. *of_directory*: see `new_file`."""
    with new_file(path, mode=mode, of_directory=of_directory) as new:
        new.write(content)
        return new.add()


def _sync(directory: Path) -> None:
    """Wait until the names in a directory are on disk. This is not possible if this user may not read the directory."""
    with suppress(PermissionError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
