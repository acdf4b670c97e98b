"""
The key file: 32 random octets. The secrets of DNS updates are made from them (`tokens.secret.tsig_secret`), and so is
the key that encrypts private keys in the database (`store.sealing`).

It is kept apart from the database, so that a copy of one of the two is of no use. The first process that needs it makes
it, the service or a command; several may try at the same time.
"""

from __future__ import annotations

import base64
import os
import secrets
import stat
from binascii import Error as NotBase64
from collections.abc import Callable
from pathlib import Path

from responder.errors import CannotStart
from responder.files import atomicfile, directory
from responder.foreign import explaining

KEY_OCTETS = 32
"""Octets of the key. The file has them in base64, as `openssl rand -base64 32` prints them."""

MAX_FILE = 1024
"""Octets that are read of a file: more than a key file has."""

NEW_KEY_FILE = (
    "what was made with another one is of no use: keys of DNS updates, encrypted private keys in the database"
)
"""What a new key file means if there was another one before."""

_OTHERS, _OTHERS_OF_ROOTS = 0o077, 0o037


def read_key(path: Path, *, on_new: Callable[[], object] = lambda: None) -> bytes:
    """
    The key in the file at *path*. If there is no file, it is made, and *on_new* is called.

    Raises `CannotStart` if the file cannot be read or made, has no key, or if other users may read it.
    """
    hint = "check dns.update.key_file, and that this user may use it"
    with explaining(lambda why: CannotStart(f"cannot read or make the key file {path}: {why}: {hint}")):
        if not path.exists() and _make(path):
            on_new()
        text = _read(path)
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except NotBase64:
        key = b""
    if len(key) != KEY_OCTETS:
        raise CannotStart(
            f"the key file {path} does not hold {KEY_OCTETS} octets in base64: restore it from a backup, or make "
            "another one with `openssl rand -base64 32`, after which every key for DNS updates is a new one"
        )
    return key


def _read(path: Path) -> bytes:
    # Without O_NONBLOCK, opening a pipe or a device may wait for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise CannotStart(f"the key file {path} is not a file: set dns.update.key_file to one")
        # Files on a volume of Kubernetes belong to root, and a group may read them. PostgreSQL accepts the same.
        of_root = status.st_uid == 0 and os.geteuid() != 0
        if status.st_mode & (_OTHERS_OF_ROOTS if of_root else _OTHERS):
            raise CannotStart(f"the key file {path} is open to other users: chmod 600 {path}")
        return file.read(MAX_FILE)


def _make(path: Path) -> bool:
    """Make a key file at *path*. Returns False if another process was faster."""
    directory.make(path.parent)
    text = base64.b64encode(secrets.token_bytes(KEY_OCTETS)) + b"\n"
    return atomicfile.create(path, text, of_directory=True)  # the service must be able to read what root made
