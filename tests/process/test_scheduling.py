"""What the kernel makes of wishes for the processor, in processes of their own."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys

import pytest

from tests.support.processes import PATIENCE

CODE = """
import os, sys, threading
from pathlib import Path
from responder.process import scheduling

def show():
    print(Path("/proc/thread-self/sched").read_text())

"""

SHOW_POLICY = "print(os.sched_getscheduler(0), os.sched_getparam(0).sched_priority)"


def run(code: str) -> str:
    """What a process prints that runs *code*; `show()` there prints the kernel's figures of the thread."""
    return subprocess.run([sys.executable, "-c", CODE + code], stdout=-1, check=True, timeout=PATIENCE).stdout.decode()


def slices(code: str) -> list[int]:
    """Nanoseconds of a time slice whenever *code* shows them. Needs a kernel that lets a process choose."""
    version = tuple(map(int, platform.release().split(".")[:2]))
    if version < (6, 12) or platform.machine() not in ("x86_64", "aarch64"):
        pytest.skip("before Linux 6.12 a process cannot choose its time slices")
    return [int(figure) for figure in re.findall(r"se\.slice +: +(\d+)", run(code))]


def test_slices_are_short() -> None:
    """The kernel notes what was asked for; at first there was something longer."""
    before, after = slices("show(); scheduling.take_short_slices(0.0001); show()")

    assert 100_000 == after < before


def test_threads_have_them_too() -> None:
    """The threads of the database among them, which are started later."""
    code = "scheduling.take_short_slices(0.0005); t = threading.Thread(target=show); t.start(); t.join()"

    assert [500_000] == slices(code)


def test_niceness_stays() -> None:
    """Whoever is nice stays so."""
    before, after = run("print(os.nice(5)); scheduling.take_short_slices(0.0001); print(os.nice(0))").split()

    assert min(os.nice(0) + 5, 19) == int(before) == int(after)


def test_other_policies_stay() -> None:
    """What the administrator chose, such as batch processing, is left alone."""
    code = (
        "os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0)); scheduling.take_short_slices(0.0001)\n"
        "print(os.sched_getscheduler(0) == os.SCHED_BATCH)"
    )

    assert "True" == run(code).strip()


@pytest.mark.parametrize("machine", ["unheard-of", "x86_64"])
def test_where_there_is_no_such_thing(machine: str) -> None:
    """On another architecture, or where the system call is refused, nothing happens."""
    code = (
        "from unittest.mock import Mock; os.uname = lambda: Mock(machine=sys.argv[-1])\n"
        "scheduling._libc = Mock(); scheduling._libc.syscall.return_value = -1\n"
        "scheduling.take_short_slices(0.0001); print(scheduling._libc.syscall.call_count)"
    )
    process = subprocess.run([sys.executable, "-c", CODE + code, machine], stdout=-1, check=True, timeout=PATIENCE)

    assert {"unheard-of": "0", "x86_64": "1"}[machine] == process.stdout.decode().strip()


def test_real_time_priority() -> None:
    """The lowest there is, for somebody who may have it."""
    if os.geteuid() != 0:
        pytest.skip("real-time priority takes root")
    code = "scheduling.take_realtime_priority(len(os.sched_getaffinity(0)) - 1)\n" + SHOW_POLICY

    assert f"{os.SCHED_RR} 1" == run(code).strip()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("beside = len(os.sched_getaffinity(0))", "needs a core more"),
        ("beside = 0; os.getuid() or os.setuid(65534)", "permitted"),
    ],
    ids=["it would starve the others", "not permitted"],
)
def test_no_real_time_priority(code: str, reason: str) -> None:
    """Without the right to it (what root was is given up first), or where nobody else would get a core."""
    code += "\ntry: scheduling.take_realtime_priority(beside)\nexcept OSError as error: print(error)\n" + SHOW_POLICY

    refusal, policy = run(code).splitlines()

    assert reason in refusal
    assert f"{os.SCHED_OTHER} 0" == policy
