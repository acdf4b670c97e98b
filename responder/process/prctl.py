"""
What a process asks of the kernel for itself (prctl(2)). There is no package for it, and it is one system call.
"""

from __future__ import annotations

import ctypes

_SET_NAME = 15  # linux/prctl.h

_libc = ctypes.CDLL(None, use_errno=True)


def set_name(name: str) -> None:
    """Have the process shown as *name*, of 15 octets at most, where programs are listed by name (ps, top, pgrep)."""
    _libc.prctl(_SET_NAME, name.encode(), 0, 0, 0)
