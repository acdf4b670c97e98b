"""What a process asks of the kernel for itself, as the kernel and its other processes see it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.programs import descendants
from tests.support.places import ROOT
from tests.support.ports import free_port
from tests.support.processes import PATIENCE, wait_until
from tests.support.service import write_configuration


def run(code: str) -> str:
    """What a process prints that imports the module and runs *code*."""
    code = f"import ctypes; from responder.process.prctl import *\nlibc = ctypes.CDLL(None)\n{code}"
    return subprocess.run([sys.executable, "-c", code], stdout=-1, check=True, timeout=PATIENCE, text=True).stdout


def test_name() -> None:
    """A process goes by its new name; what is too long is cut."""
    assert "spare\n" == run("set_name('spare'); print(open('/proc/self/comm').read(), end='')")
    assert "a-name-that-is-\n" == run(
        "set_name('a-name-that-is-too-long'); print(open('/proc/self/comm').read(), end='')"
    )


def test_hidden_memory() -> None:
    """It is dumped nowhere, by the flag that counts for programs that collect cores, and by the limit."""
    assert "1 0\n" == run("before = libc.prctl(3); hide_memory(); print(before, libc.prctl(3))")
    assert "(0, 0)\n" == run("hide_memory(); print(resource.getrlimit(resource.RLIMIT_CORE))")


def test_a_filter_that_is_none() -> None:
    """What the kernel does not take is reported."""
    assert "False\n" == run("gain_no_privileges(); print(set_seccomp_filter(bytes(8)))")


def test_no_core(tmp_path: Path) -> None:
    """
    A supervisor that crashes leaves no core, where the system would have one written: it has the settings, and with
    them the password of the database.
    """
    if resource.getrlimit(resource.RLIMIT_CORE)[1] != resource.RLIM_INFINITY:
        pytest.skip("this process may not have cores")
    ports = {purpose: free_port() for purpose in ("dns", "api", "admin")}
    configuration = str(write_configuration(tmp_path, **ports))
    unlimited = ["sh", "-c", 'ulimit -c unlimited; exec "$@"', "sh"]
    command = [*unlimited, sys.executable, "-m", "responder", "--config", configuration, "serve"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (tmp_path / "log").open("wb") as log:
        service = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
    try:
        wait_until(lambda: any("responder.nameserver" in each.command for each in descendants(service.pid)), "it runs")
        service.send_signal(signal.SIGSEGV)
        _, status = os.waitpid(service.pid, 0)
    finally:
        service.kill()
        service.returncode = 0  # it was waited for

    assert signal.SIGSEGV == os.WTERMSIG(status)
    assert not os.WCOREDUMP(status)
    assert [] == list(tmp_path.glob("core*"))
