"""
What a process asks of the kernel for itself (prctl(2)). There is no package for it, and it is one system call.
"""

from __future__ import annotations

import ctypes
import resource
import struct

SET_NAME = 15  # linux/prctl.h, as the next ones
_SET_DUMPABLE = 4
_SET_NO_NEW_PRIVS = 38
_SET_SECCOMP, _FILTER = 22, 2
_CAP_AMBIENT, _RAISE, _CLEAR_ALL = 47, 2, 4
_MOST_CAPABILITIES = 64

_prctl = ctypes.CDLL(None, use_errno=True).prctl
_prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]


def set_name(name: str) -> None:
    """Have the process shown as *name*, of 15 octets at most, where programs are listed by name (ps, top, pgrep)."""
    text = ctypes.create_string_buffer(name.encode())
    _prctl(SET_NAME, ctypes.addressof(text), 0, 0, 0)


def gain_no_privileges() -> None:
    """Have no program that is run from now on gain privileges by its file. That is irrevocable."""
    _prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def pass_on_no_capabilities() -> None:
    """Have programs that we run from now on get none of our capabilities, unless we are root (capabilities(7))."""
    _prctl(_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0)


def pass_on_capabilities() -> None:
    """
    Have a program that we run next keep the capabilities that were passed on to us, those that are inheritable and
    permitted: a new program of the supervisor needs what the old one has.
    """
    for number in range(_MOST_CAPABILITIES):  # the kernel refuses all others
        _prctl(_CAP_AMBIENT, _RAISE, number, 0, 0)


def hide_memory() -> None:
    """
    Have no core written, not even to a program that collects cores, for which limits do not count. Another process of
    the same user cannot read our memory, either. It ends with execve(2).
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_SET_DUMPABLE, 0, 0, 0, 0)


def set_seccomp_filter(program: bytes) -> bool:
    """
    Have system calls go through *program*, instructions of linux/filter.h, for good. Returns whether the kernel does
    that.

    It takes `gain_no_privileges` first.
    """
    instructions = ctypes.create_string_buffer(program, len(program))
    described = ctypes.create_string_buffer(struct.pack("HP", len(program) // 8, ctypes.addressof(instructions)))
    return bool(_prctl(_SET_SECCOMP, _FILTER, ctypes.addressof(described), 0, 0) == 0)
