"""
How a process that does little work at a time gets the processor soon on a busy machine.

A process that wakes up waits until the time slice of the running process ends, after one or more milliseconds. A
process that asks the kernel for shorter time slices (sched_setattr(2), since Linux 6.12) runs first, and gets no more
time in total. It needs no privilege for that, unlike for a better nice value or real-time priority. There is no
package for it, and it is one system call.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from contextlib import suppress

_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274, "riscv64": 274}

_LOWEST = 1
"""The lowest real-time priority (sched(7)); threads of the kernel have higher ones."""

_libc = ctypes.CDLL(None, use_errno=True)


def take_short_slices(seconds: float) -> None:
    """
    Set time slices of *seconds* for this thread and the threads that it starts. The kernel allows 0.1 ms to 0.1 s.

    This does nothing on other architectures, on older kernels, where system calls are filtered, and in a process that
    has another scheduling policy than the default.
    """
    number = _SCHED_SETATTR.get(os.uname().machine)
    if number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    # struct sched_attr: size, policy, flags, niceness, and with SCHED_OTHER nothing but the first of three times.
    niceness = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = struct.pack("=IIQiIQQQ", 48, os.SCHED_OTHER, 0, niceness, 0, int(seconds * 1e9), 0, 0)
    _libc.syscall(number, 0, attributes, 0)


def pass_on_realtime() -> None:
    """Allow child processes that run as other users to have real-time priority, if this process may have it."""
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_RTPRIO, (_LOWEST, _LOWEST))


def take_realtime_priority(beside: int) -> None:
    """
    Take real-time priority (SCHED_RR, sched(7)), as one of *beside* processes that do.

    Raises `OSError` if the kernel does not allow it, or if these processes could occupy all cores of this process:
    other programs would then get almost no time.
    """
    if beside >= len(os.sched_getaffinity(0)):
        raise OSError("that needs a core more than there are such processes")
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(_LOWEST))
