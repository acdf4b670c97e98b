"""
Landlock: denies a process access to files, to new TCP connections, and to other processes (landlock(7)).

There is no maintained package for it, and it needs three system calls only. Rights that the kernel does not know are
left out. A kernel without Landlock changes nothing.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import responder

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same number on every architecture
_VERSION_FLAG, _PATH_BENEATH = 1, 1

# linux/landlock.h: how many of the rights to files each version knows.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_READ_FILE, _READ_DIRECTORY = 1 << 2, 1 << 3
_TCP_BIND_AND_CONNECT = 0b11
_TCP_SINCE = 4
_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11
_SCOPES_SINCE = 6

_libc = ctypes.CDLL(None, use_errno=True)


def enter() -> int:
    """
    Restrict this process for good: it can read the files of Python, and use the sockets that it has.

    Returns the version of Landlock that was used, 0 if the kernel has none. It takes `gain_no_privileges` first. Call
    it while there is one thread.
    """
    version = _libc.syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    if version < 1:
        return 0
    handled = struct.pack(
        "QQQ",
        (1 << _FILE_RIGHTS[min(version, max(_FILE_RIGHTS))]) - 1,
        _TCP_BIND_AND_CONNECT if version >= _TCP_SINCE else 0,
        _ABSTRACT_SOCKETS_AND_SIGNALS if version >= _SCOPES_SINCE else 0,
    )
    size = 24 if version >= _SCOPES_SINCE else 16 if version >= _TCP_SINCE else 8
    rules = _libc.syscall(_CREATE_RULESET, handled, size, 0)
    if rules < 0:
        return 0
    try:
        _let_read(rules, _where_python_is())
        return version if _libc.syscall(_RESTRICT_SELF, rules, 0) == 0 else 0
    finally:
        os.close(rules)


def _where_python_is() -> Iterable[str]:
    """
    The directories with the modules of Python, which are read when they are first needed.

    In a checkout, as in a development install, only the package is included: a database may be next to it.
    """
    package = Path(responder.__file__).parent
    places = {Path(path) for path in (*sys.path, sys.prefix, sys.base_prefix) if path}
    if (package.parent / "pyproject.toml").exists():
        places = places - {package.parent} | {package}
    return {str(place) for place in places if place.is_dir()}


def _let_read(rules: int, directories: Iterable[str]) -> None:
    for directory in directories:
        with suppress(OSError):
            descriptor = os.open(directory, os.O_PATH | os.O_CLOEXEC)
            try:
                rule = struct.pack("=Qi", _READ_FILE | _READ_DIRECTORY, descriptor)
                _libc.syscall(_ADD_RULE, rules, _PATH_BENEATH, rule, 0)
            finally:
                os.close(descriptor)
