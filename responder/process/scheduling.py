"""
How a process that works little at a time gets the processor soon, on a machine that is busy.

A process that wakes up waits until the running one has had its turn, of a millisecond or several. One that asks the
kernel for shorter turns than others take (sched_setattr(2), since Linux 6.12) goes first, and takes no more in all. It
needs no privilege, unlike a better nice value or real-time priority. There is no package for it, and it is one system
call.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from contextlib import suppress

_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274, "riscv64": 274}

_LOWEST = 1
"""Of the real-time priorities (sched(7)); the threads of the kernel that need one have higher ones."""

_libc = ctypes.CDLL(None, use_errno=True)


def take_short_turns(seconds: float) -> None:
    """
    Have turns of *seconds* for this thread, and the threads that it starts. The kernel takes 0.1 ms to 0.1 s.

    Nothing happens on other architectures and older kernels, where system calls are filtered, and to a process that
    its administrator gave another policy than the ordinary one.
    """
    number = _SCHED_SETATTR.get(os.uname().machine)
    if number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    # struct sched_attr: size, policy, flags, niceness, and with SCHED_OTHER nothing but the first of three times.
    niceness = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = struct.pack("=IIQiIQQQ", 48, os.SCHED_OTHER, 0, niceness, 0, int(seconds * 1e9), 0, 0)
    _libc.syscall(number, 0, attributes, 0)


def pass_on_realtime() -> None:
    """Let processes that we start have that priority as other users, too, where we may have it ourselves."""
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_RTPRIO, (_LOWEST, _LOWEST))


def wait_for_nobody(beside: int) -> None:
    """
    Have real-time priority (SCHED_RR, sched(7)), as one of *beside* processes that do.

    Raises `OSError` if the kernel does not grant it, or if all of them together could have every core we may use:
    whatever else runs there would then get next to nothing.
    """
    if beside >= len(os.sched_getaffinity(0)):
        raise OSError("that needs a core more than there are such processes")
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(_LOWEST))
