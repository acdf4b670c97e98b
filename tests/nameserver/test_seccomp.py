"""
What the filter of system calls keeps from a process, tried from inside a process of its own, without Landlock.

The kernel of this machine answers for its architecture; for the other one, the filter is run by hand.
"""

from __future__ import annotations

import errno
import json
import os
import re
import struct
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from responder.nameserver.seccomp import ALLOWED, CONDITIONAL, program_for
from tests.support.processes import PATIENCE
from tests.support.requirements import lacking

MACHINES = ("x86_64", "aarch64")

TRY = """
import ctypes, fcntl, json, mmap, os, signal, socket, struct, sys

attempts, directory, sibling = json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3])
libc = ctypes.CDLL(None, use_errno=True)
os.chdir(directory)
kept = open("file", "w")
listener = socket.create_server(("127.0.0.1", 0))
address = listener.getsockname()
client = socket.create_connection(address)
accepted, _ = listener.accept()
unix = socket.socket(socket.AF_UNIX)
unix.bind("unix")
unix.listen()
udp = socket.socket(type=socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", 0))
pair = socket.socketpair()
unconnected = [socket.socket() for _ in range(4)]  # as if they had been handed over
other = udp.getsockname()

def call(result):
    if result == -1:
        raise OSError(ctypes.get_errno(), "")

if len(sys.argv) > 4:
    from responder.nameserver.seccomp import enter
    from responder.process.prctl import gain_no_privileges
    gain_no_privileges()
    assert enter()
outcomes = {}
for name, code in attempts.items():
    try:
        exec(code)
    except OSError as fault:
        outcomes[name] = fault.errno
    except RuntimeError:  # "can't start new thread"
        outcomes[name] = -1
    else:
        outcomes[name] = 0
print(json.dumps(outcomes))
"""

DENIED = {
    "TCP": "socket.create_connection(address)",
    "TCP by MPTCP": "socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262).connect(address)",
    "TCP by sendto with MSG_FASTOPEN": "unconnected.pop().sendto(b'', socket.MSG_FASTOPEN, address)",
    "TCP by sendmsg with MSG_FASTOPEN": "unconnected.pop().sendmsg([b''], [], socket.MSG_FASTOPEN, address)",
    "TCP by connect on a socket that is there": "unconnected.pop().connect(address)",
    "a Unix socket, such as PostgreSQL's": "socket.socket(socket.AF_UNIX).connect('unix')",
    "a new UDP socket": "socket.socket(type=socket.SOCK_DGRAM)",
    "a pair of sockets": "socket.socketpair()",
    "an address for a socket": "unconnected.pop().bind(('127.0.0.1', 0))",
    "the end of a socket that others listen on": "socket.socket(fileno=os.dup(unix.fileno())).shutdown(socket.SHUT_RD)",
    "a filter that outlives the process": (
        "code = ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, 0));"
        "udp.setsockopt(socket.SOL_SOCKET, 26, struct.pack('HP', 1, ctypes.addressof(code)))"
    ),
    "an option that outlives the process": "udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)",
    "limits of a sibling": "import resource; resource.prlimit(sibling, resource.RLIMIT_FSIZE, (1, 1))",
    "its own limits": "import resource; resource.prlimit(0, resource.RLIMIT_NOFILE, (64, 64))",
    "the processors of a sibling": "os.sched_setaffinity(sibling, {min(os.sched_getaffinity(0))})",
    "the scheduling of a sibling": "os.sched_setscheduler(sibling, os.SCHED_IDLE, os.sched_param(0))",
    "the niceness of a sibling": "os.setpriority(os.PRIO_PROCESS, sibling, 19)",
    "a signal": "os.kill(sibling, 0)",
    "a signal to a thread": "call(libc.tgkill(sibling, sibling, 0))",
    "a signal by a descriptor": "signal.pidfd_send_signal(os.pidfd_open(sibling), 0)",
    "a signal by input": "fcntl.fcntl(udp, fcntl.F_SETOWN, sibling)",
    "a signal by input, otherwise": "fcntl.ioctl(udp, 0x8901, struct.pack('i', sibling))",
    "the memory of a sibling": "call(libc.process_vm_readv(sibling, 0, 0, 0, 0, 0))",
    "a trace of a sibling": "call(libc.ptrace(16, sibling, 0, 0)); os.waitpid(sibling, 0x40000000)",
    "the mode of a file": "os.chmod('file', 0o600)",
    "the mode of an open file": "os.fchmod(kept.fileno(), 0o600)",  # not of stdin, which is a device of the machine
    "the owner of a file": "os.chown('file', os.getuid(), os.getgid())",
    "an attribute of a file": "os.setxattr('file', 'user.x', b'')",
    "the times of a file": "os.utime('file')",
    "a file to write": "open('file', 'r+')",
    "a file to append to": "open('file', 'a')",
    "a file of its own": "open('new', 'w')",
    "a directory": "os.mkdir('directory')",
    "a link": "os.symlink('file', 'link')",
    "another name": "os.rename('file', 'other'); os.rename('other', 'file')",
    "the end of a file": "os.truncate('file', 0)",
    "an anonymous file": "os.close(os.memfd_create('x'))",
    "a process": "if os.fork() == 0: os._exit(0)",
    "a process by another call": "import subprocess; subprocess.run(['true'])",
    "a thread": "import threading; threading.Thread(target=print, kwargs={'end': ''}).start()",
    "namespaces": "call(libc.unshare(0x10000000))",
    "rings of calls": "call(libc.syscall(425, 1, bytes(120)))",
    "a program in the kernel": "call(libc.syscall({'x86_64': 321}.get(os.uname().machine, 280), 0, bytes(120), 120))",
    "keys of the kernel": "call(libc.syscall({'x86_64': 250}.get(os.uname().machine, 219), 0, -3, 1))",
    "counters of the kernel": "import ctypes; call(libc.prctl(32, 0, 0, 0, 0))",
    "memory to write and execute": "mmap.mmap(-1, 4096, prot=7)",
    "memory to write and then execute": (
        "memory = mmap.mmap(-1, 4096);"
        "call(libc.mprotect(ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(memory))), 4096, 5))"
    ),
}
"""Ways out, as an attacker who runs code in the process would try them. They work outside."""

DEPENDING = {"rings of calls", "a program in the kernel", "keys of the kernel", "counters of the kernel", "namespaces"}
"""Those that do not work everywhere outside: not in every kernel, or for root only."""

ALLOWED_ATTEMPTS = {
    "UDP": "udp.sendto(b'x', other); assert udp.recvfrom(9) == (b'x', other)",
    "UDP with an address": "udp.setsockopt(socket.IPPROTO_IP, 8, 1); udp.sendto(b'x', other); udp.recvmsg(9, 99)",
    "a feed": "pair[0].send(b'x'); assert pair[1].recv(9) == b'x'",
    "queries over TCP": "client.send(b'x'); assert accepted.recv(9) == b'x'",
    "a new connection": "listener.setblocking(False)\ntry: listener.accept()\nexcept BlockingIOError: pass",
    "a reset": "accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); accepted.close()",
    "what is not sent yet": "fcntl.ioctl(client, 0x5411, bytes(4))",
    "a module that is needed late": "import xml.dom.minidom, sqlite3, decimal",
    "a file to read": "open('file').close()",
    "memory": "bytes(50_000_000)",
    "its name": "call(libc.prctl(15, b'x', 0, 0, 0))",
    "randomness": "os.urandom(5000)",
    "time": "import time; time.sleep(0.001)",
    "signals": "signal.signal(signal.SIGTERM, signal.SIG_DFL)",
    "a traceback": "import traceback\ntry: 1 / 0\nexcept ZeroDivisionError: traceback.format_exc()",
}


@cache
def outcomes(directory: Path, *, inside: bool) -> dict[str, int]:
    """The errno of each attempt, 0 if it worked: from a process in the filter, or from one that is not."""
    attempts = ALLOWED_ATTEMPTS | DENIED
    directory = directory / ("inside" if inside else "outside")
    directory.mkdir()
    with subprocess.Popen(["sleep", "3600"]) as sibling:
        try:
            command = [sys.executable, "-c", TRY, json.dumps(attempts), str(directory), str(sibling.pid)]
            run = subprocess.run(
                command + ["enter"] * inside, stdin=subprocess.DEVNULL, stdout=-1, check=True, timeout=PATIENCE
            )
        finally:
            sibling.kill()
    result: dict[str, int] = json.loads(run.stdout)
    return result


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if os.uname().machine not in MACHINES:
        pytest.skip("there is no table for this architecture")
    return tmp_path_factory.mktemp("seccomp")


@pytest.mark.parametrize("attempt", DENIED)
def test_ways_out(directory: Path, attempt: str) -> None:
    """What works outside is denied inside."""
    if attempt not in DEPENDING:
        assert 0 == outcomes(directory, inside=False)[attempt]
    assert outcomes(directory, inside=True)[attempt] in (errno.ENOSYS, errno.EPERM, -1)


@pytest.mark.parametrize("attempt", ALLOWED_ATTEMPTS)
def test_what_it_needs_still_works(directory: Path, attempt: str) -> None:
    """All that a nameserver does works inside."""
    assert 0 == outcomes(directory, inside=True)[attempt]


def test_every_other_call(directory: Path) -> None:
    """No call that is not in the tables does anything, by any number that a kernel may know, those of x32 included."""
    code = (
        "import ctypes, errno, json, os, sys\n"
        "from responder.nameserver.seccomp import enter\n"
        "from responder.process.prctl import gain_no_privileges\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "gain_no_privileges(); assert enter()\n"
        "def denied(number):\n"
        "    ctypes.set_errno(0)\n"
        "    return libc.syscall(number, 0, 0, 0, 0, 0, 0) == -1 and ctypes.get_errno() == errno.ENOSYS\n"
        "print(json.dumps([number for number in json.loads(sys.argv[1]) if not denied(number)]))"
    )
    column = MACHINES.index(os.uname().machine)
    known = {numbers[column] for table in (ALLOWED, CONDITIONAL) for numbers in table.values()}
    if column == 0:
        known |= {335, 336}  # uretprobe and uprobe, which no filter sees: the kernel kills who makes them
    numbers = [number for number in range(1100) if number not in known]
    x32 = [0x40000000 | number for number in range(600)]
    command = [sys.executable, "-c", code, json.dumps([*numbers, *x32] if column == 0 else numbers)]

    run = subprocess.run(command, stdout=-1, check=True, timeout=PATIENCE)

    assert [] == json.loads(run.stdout)


# The filter, run by hand


def verdict(machine: str, number: int, *arguments: int, architecture: int | None = None) -> int:
    """What the filter for *machine* says of a call, as the kernel would run it (linux/filter.h)."""
    program = program_for(machine)
    assert program is not None
    arguments += (0,) * (6 - len(arguments))
    data = struct.pack("=IIQ6Q", number, architecture or ARCHITECTURES[machine], 0, *arguments)
    instructions = list(struct.iter_unpack("HBBI", program))
    accumulator, at = 0, 0
    while True:
        code, when_true, when_false, operand = instructions[at]
        at += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, operand)
            case 0x54:
                accumulator &= operand
            case 0x15:
                at += when_true if accumulator == operand else when_false
            case 0x06:
                return int(operand)
            case _:
                pytest.fail(f"the filter has an instruction {code:#x}")


ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
I386, ARM = 0x40000003, 0x40000028
ALLOW, NO_SUCH_CALL, NOT_PERMITTED = 0x7FFF0000, 0x00050000 | errno.ENOSYS, 0x00050000 | errno.EPERM


@pytest.mark.parametrize("machine", MACHINES)
def test_verdicts(machine: str) -> None:
    """On either architecture exactly the calls of the tables are allowed, and by their own numbers only."""
    column = MACHINES.index(machine)
    allowed = {numbers[column] for numbers in ALLOWED.values()} - {None}
    conditional = {numbers[column] for numbers in CONDITIONAL.values()} - {None}
    verdicts = {number: verdict(machine, number, *[(1 << 64) - 1] * 6) for number in range(1100)}

    assert allowed == {number for number, given in verdicts.items() if given == ALLOW}
    assert conditional == {number for number, given in verdicts.items() if given == NOT_PERMITTED}
    assert {ALLOW, NOT_PERMITTED, NO_SUCH_CALL} == {*verdicts.values()}
    for architecture in (I386, ARM, ARCHITECTURES[MACHINES[1 - column]]):
        assert {NO_SUCH_CALL} == {verdict(machine, number, architecture=architecture) for number in range(600)}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("call", "good", "bad"),
    [
        ("sendto", (3, 0, 1, 0x40), (3, 0, 1, 0x20000040)),
        ("sendmsg", (3, 0, 0x40), (3, 0, 0x20000000)),
        ("openat", (0, 0, os.O_CLOEXEC | os.O_DIRECTORY), (0, 0, os.O_WRONLY)),
        ("openat", (0, 0, os.O_RDONLY), (0, 0, os.O_CREAT)),
        ("openat", (0, 0, os.O_RDONLY), (0, 0, os.O_RDWR)),
        ("setsockopt", (3, 6, 1), (3, 1, 1)),
        ("setsockopt", (3, 1, 13), (3, 6, 13)),
        ("ioctl", (3, 0x5421), (3, 0x8901)),
        ("fcntl", (3, 1030), (3, 8)),
        ("mmap", (0, 4096, 3), (0, 4096, 7)),
        ("mmap", (0, 4096, 5), (0, 4096, 6)),
        ("mprotect", (0, 4096, 1), (0, 4096, 5)),
        ("prctl", (15,), (4,)),
    ],
)
def test_arguments(machine: str, call: str, good: tuple[int, ...], bad: tuple[int, ...]) -> None:
    """A call with conditions is allowed with arguments that meet them, and else refused."""
    number = CONDITIONAL[call][MACHINES.index(machine)]
    assert isinstance(number, int)

    assert (ALLOW, NOT_PERMITTED) == (verdict(machine, number, *good), verdict(machine, number, *bad))


def test_other_architectures() -> None:
    """Where there is no table there is no filter."""
    assert program_for("riscv64") is None


HEADERS = {
    "x86_64": ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", r"#define __NR_(\w+) (\d+)"),
    "aarch64": ("/usr/include/asm-generic/unistd.h", r"#define __NR(?:3264)?_(\w+) (\d+)"),
}
"""Where the kernel's headers have the numbers; those of 64 bits on aarch64 are the generic ones."""


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers(machine: str) -> None:
    """The numbers are those of the kernel's headers; a call that an architecture lacks has none."""
    header, pattern = HEADERS[machine]
    if not Path(header).exists():
        lacking(f"{header} is missing (linux-libc-dev)")
    numbers = {name: int(number) for name, number in re.findall(pattern, Path(header).read_text())}
    if machine == "aarch64":
        numbers["newfstatat"] = numbers.pop("fstatat")
    column = MACHINES.index(machine)

    for name, row in (ALLOWED | CONDITIONAL).items():
        assert (name, numbers.get(name)) == (name, row[column])
