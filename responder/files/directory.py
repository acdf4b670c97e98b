"""Directories that a program makes for its files, where an administrator's command must not lock the service out."""

from __future__ import annotations

import os
from pathlib import Path

MODE = 0o700
"""Only the owner may look into them."""


def make(path: Path) -> None:
    """
    Make the directory at *path*, and what is missing above it. One that root makes belongs to the owner of the
    directory that it is in. Raises `OSError`.
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
    # The owner of the directory above may put a symbolic link there at any time: it must not lead us elsewhere.
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    finally:
        os.close(descriptor)
