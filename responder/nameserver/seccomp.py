"""
seccomp: takes from a process every system call that a nameserver does not need (seccomp(2)).

The tables have what is allowed, so a call that a later kernel brings is denied as well. It fails with ENOSYS, as on a
kernel that does not have it, and the C library then tries an older one. A call that is allowed, but not with these
arguments, fails with EPERM. There is no maintained package for this, and it is one system call and a kind of jump.

Descriptors are handed to the process, so it makes none: no `socket`, `connect` or `bind` of any family, and no file is
opened for writing. It starts no process and no thread, and no call remains that names another process.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from responder.nameserver.udp import IP_PKTINFO
from responder.process.prctl import SET_NAME, set_seccomp_filter

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""By name: the column of the tables below, and AUDIT_ARCH_... of linux/audit.h. On others there is no filter."""


@dataclass(frozen=True, slots=True)
class Arg:
    """What the lower half of an argument has to be, as far as *mask* goes; the upper half means nothing in these."""

    index: int
    value: int
    mask: int = 0xFFFFFFFF


_FIONBIO, _FIOCLEX, _TIOCOUTQ, _TCGETS = 0x5421, 0x5451, 0x5411, 0x5401  # asm-generic/ioctls.h
_F_GETFD, _F_SETFD, _F_GETFL, _F_DUPFD_CLOEXEC = 1, 2, 3, 1030  # linux/fcntl.h
_WRITING = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC
_PROT_WRITE, _PROT_EXEC = 2, 4  # asm-generic/mman-common.h

_OPTIONS = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY),
    (socket.SOL_SOCKET, socket.SO_LINGER),
    (socket.IPPROTO_IP, IP_PKTINFO),
    (socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO),
)

ALLOWED: dict[str, tuple[int | None, int | None]] = {
    # What a query takes: wait, receive, and over TCP accept and write. `sendto` and `sendmsg` are below.
    "epoll_wait": (232, None),
    "epoll_pwait": (281, 22),
    "epoll_ctl": (233, 21),
    "recvfrom": (45, 207),
    "recvmsg": (47, 212),
    "accept4": (288, 242),
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    # What asyncio asks of its sockets, and `listen` of those that are bound already.
    "listen": (50, 201),
    "getsockname": (51, 204),
    "getpeername": (52, 205),
    "getsockopt": (55, 209),
    # Memory. `mmap` and `mprotect` are below.
    "brk": (12, 214),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "madvise": (28, 233),
    # Time, randomness, locks, and itself.
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "gettimeofday": (96, 169),
    "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101),
    "getrandom": (318, 278),
    "futex": (202, 98),
    "sched_yield": (24, 124),
    "getpid": (39, 172),
    "gettid": (186, 178),
    # Signals that it gets, and its end.
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    "exit": (60, 93),
    "exit_group": (231, 94),
    # Modules of Python that are needed late, and the source lines of a traceback; Landlock limits them.
    "stat": (4, None),
    "lstat": (6, None),
    "fstat": (5, 80),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "lseek": (8, 62),
    "pread64": (17, 67),
    "readv": (19, 65),
    "writev": (20, 66),
    "getdents64": (217, 61),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "getcwd": (79, 17),
}
"""Number of each call that is allowed as it is, on x86_64 and aarch64; None if the architecture does not have it."""

CONDITIONAL: dict[str, tuple[int | None, int | None, tuple[tuple[Arg, ...], ...]]] = {
    # Replies, over UDP. MSG_FASTOPEN would connect a TCP socket.
    "sendto": (44, 206, ((Arg(3, 0, socket.MSG_FASTOPEN),),)),
    "sendmsg": (46, 211, ((Arg(2, 0, socket.MSG_FASTOPEN),),)),
    # By asyncio, to reset a connection, and to learn which address was asked. Others would last on sockets that outlive
    # the process: a filter, for example, that drops all packets.
    "setsockopt": (54, 208, tuple((Arg(1, level), Arg(2, option)) for level, option in _OPTIONS)),
    # Non-blocking connections, and how much they have not sent yet; whether a file is a terminal. Not who gets SIGIO.
    "ioctl": (16, 29, tuple((Arg(1, command),) for command in (_FIONBIO, _FIOCLEX, _TIOCOUTQ, _TCGETS))),
    "fcntl": (72, 25, tuple((Arg(1, command),) for command in (_F_GETFD, _F_SETFD, _F_GETFL, _F_DUPFD_CLOEXEC))),
    # Files to read, such as modules.
    "open": (2, None, ((Arg(1, 0, _WRITING),),)),
    "openat": (257, 56, ((Arg(2, 0, _WRITING),),)),
    # Memory that can be written or executed, not both, and none that becomes executable later.
    "mmap": (9, 222, ((Arg(2, 0, _PROT_WRITE),), (Arg(2, 0, _PROT_EXEC),))),
    "mprotect": (10, 226, ((Arg(2, 0, _PROT_EXEC),),)),
    # Its own name.
    "prctl": (157, 167, ((Arg(0, SET_NAME),),)),
}
"""As `ALLOWED`, with the conditions: of one of the groups, all arguments are as given."""


def enter() -> bool:
    """
    Give up all other calls, for good. Returns whether the kernel did that, and there is a table for its architecture.

    It takes `gain_no_privileges` first. Call it while there is one thread.
    """
    program = program_for(os.uname().machine)
    return program is not None and set_seccomp_filter(program)


def program_for(machine: str) -> bytes | None:
    """The filter for an architecture, as the kernel takes it (linux/filter.h); None where there is no table for it."""
    if machine not in _ARCHITECTURES:
        return None
    column, architecture = _ARCHITECTURES[machine]
    program = [
        # Another architecture's calls have other numbers: those of 32-bit programs, on both of ours.
        _load(_ARCHITECTURE),
        *_unless_equal(architecture, [_give(_DENY)]),
        _load(_NUMBER),
    ]
    for x86_64, aarch64, groups in CONDITIONAL.values():
        if (number := (x86_64, aarch64)[column]) is not None:
            program += _when_equal(number, [*_check(groups), _give(_REFUSE)])
    for numbers in ALLOWED.values():
        if (number := numbers[column]) is not None:
            program += _when_equal(number, [_give(_ALLOW)])
    return b"".join([*program, _give(_DENY)])


def _check(groups: tuple[tuple[Arg, ...], ...]) -> Iterator[bytes]:
    """Allow the call if one of *groups* holds, or else go on."""
    for group in groups:
        body = [_give(_ALLOW)]
        for arg in reversed(group):
            body = [_load(_ARGUMENTS + 8 * arg.index), _and(arg.mask), *_when_equal(arg.value, body)]
        yield from body


_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
"""Where things are in `struct seccomp_data` (linux/seccomp.h). Both architectures are little-endian: of an argument the
lower half comes first."""

_ALLOW = 0x7FFF0000  # linux/seccomp.h
_DENY, _REFUSE = (0x00050000 | number for number in (errno.ENOSYS, errno.EPERM))


def _load(offset: int) -> bytes:
    return struct.pack("HBBI", 0x20, 0, 0, offset)  # BPF_LD | BPF_W | BPF_ABS


def _and(mask: int) -> bytes:
    return struct.pack("HBBI", 0x54, 0, 0, mask)  # BPF_ALU | BPF_AND | BPF_K


def _when_equal(value: int, body: list[bytes]) -> list[bytes]:
    return [struct.pack("HBBI", 0x15, 0, len(body), value), *body]  # BPF_JMP | BPF_JEQ | BPF_K


def _unless_equal(value: int, body: list[bytes]) -> list[bytes]:
    return [struct.pack("HBBI", 0x15, len(body), 0, value), *body]


def _give(verdict: int) -> bytes:
    return struct.pack("HBBI", 0x06, 0, 0, verdict)  # BPF_RET | BPF_K
