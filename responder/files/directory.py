"""Making directories. A directory that root makes gets the right owner, so that the service can use it."""

from __future__ import annotations

import os
from pathlib import Path

MODE = 0o700
"""Only the owner may use the directory."""


def make(path: Path) -> None:
    """
    Make the directory *path*, and those above it that are missing. A directory that root makes gets the owner of the
    directory above it. Raises `OSError`.
    """
    if path.exists():
        return
    make(path.parent)
    try:
        path.mkdir(mode=MODE)
    except FileExistsError:  # another process was quicker
        return
    if os.geteuid() == 0:
        _hand_over(path)


def _hand_over(path: Path) -> None:
    owner = path.parent.stat()
    # The owner of the directory above may replace it by a symbolic link at any time, which must not be followed.
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    finally:
        os.close(descriptor)
