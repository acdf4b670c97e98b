"""
The key file: 32 random octets that the secrets of DNS updates are made from (see `tokens.secret.tsig_secret`), and the
key that encrypts private keys in the database (see `store.sealing`).

It is kept apart from the database, so that a copy of either gives nothing away. Whoever needs it first makes it, be
that the service or the command line; several may try at once.
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

KEY_OCTETS = 32
"""Of the key itself. The file has them in base64, as `openssl rand -base64 32` prints them."""

MAX_FILE = 1024
"""Octets that are read of a file: more than enough to see that it is none of ours."""

NEW_KEY_FILE = (
    "what was made with another one is of no use: keys of DNS updates, encrypted private keys in the database"
)
"""What a new key file means where there was another."""

_OTHERS, _OTHERS_OF_ROOTS = 0o077, 0o037


def read_key(path: Path, *, on_new: Callable[[], object] = lambda: None) -> bytes:
    """
    The key in the file at *path*, which is made if there is none; *on_new* is called then.

    Raises `CannotStart` if it cannot be read or made, holds no key, or is open to others.
    """
    try:
        if not path.exists() and _make(path):
            on_new()
        text = _read(path)
    except OSError as fault:
        reason = os.strerror(fault.errno).lower() if fault.errno else "it cannot be reached"
        raise CannotStart(
            f"cannot read or make the key file {path}: {reason}: "
            "check dns.update.key_file, and that this user may use it"
        ) from None
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
    # A pipe or a device would keep us waiting for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise CannotStart(f"the key file {path} is not a file: set dns.update.key_file to one")
        # A volume of Kubernetes gives its files to root, and lets a group in. PostgreSQL draws the same line.
        of_root = status.st_uid == 0 and os.geteuid() != 0
        if status.st_mode & (_OTHERS_OF_ROOTS if of_root else _OTHERS):
            raise CannotStart(f"the key file {path} is open to other users: chmod 600 {path}")
        return file.read(MAX_FILE)


def _make(path: Path) -> bool:
    """Put a new key at *path*; False if another process was quicker."""
    directory.make(path.parent)
    text = base64.b64encode(secrets.token_bytes(KEY_OCTETS)) + b"\n"
    return atomicfile.create(
        path, text, of_directory=True
    )  # an administrator's command must not keep it from the service
