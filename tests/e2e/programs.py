"""
Programs as the end-to-end tests use them: finding one, starting it, waiting for it, ending it.

Every program runs in a process group of its own, so that stopping it takes its children along, and writes all
that it says into one log file, which conftest shows when a test fails. It stays in our session: Linux gives each
session its share of the processors, whatever the niceness of those in it (sched(7), autogroups). Nothing here knows
one program from another.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

from tests.support.processes import PATIENCE, rest
from tests.support.requirements import lacking

LOGS: list[Path] = []
"""The log file of every program started so far."""

_T = TypeVar("_T")

_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where Debian keeps its servers; an ordinary user's PATH lacks it."""

_GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL."""


def require(name: str) -> str:
    """The path of the program; skips the test if it is missing, or fails it where RESPONDER_REQUIRE_ALL=1."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_PATH}")
    return path if path is not None else lacking(f"{name} is not installed")


def wait_until(condition: Callable[[], _T | None], what: str, seconds: float = PATIENCE) -> _T:
    """What *condition* gives as soon as that is true; fails the test, naming *what*, if it never is."""
    deadline = time.monotonic() + seconds
    while True:
        began = time.thread_time()
        if outcome := condition():
            return outcome
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:g} s: {what}")
        time.sleep(rest(began, 0.02))


class Program:
    """A program that a test started. It has to be stopped, whatever happens; `running` sees to that."""

    def __init__(self, arguments: Sequence[str], log: Path, *, cwd: Path, environment: Mapping[str, str]) -> None:
        if log not in LOGS:
            LOGS.append(log)
        self.name = log.stem
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                arguments,
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until_ready(self, ready: Callable[[], object]) -> None:
        """Wait until *ready* gives something true; a program that ends before fails the test at once."""
        wait_until(lambda: self._process.poll() is not None or ready(), f"{self.name} is ready")
        if self._process.poll() is not None:
            pytest.fail(f"{self.name} ended with status {self._process.returncode} instead of starting")

    def wait(self, seconds: float = PATIENCE) -> int:
        """Its exit status, once it has ended; negative is the number of the signal that ended it."""
        return self._process.wait(seconds)

    def terminate(self) -> None:
        """Send SIGTERM to the program itself, as an init system would."""
        self._process.terminate()

    def kill(self) -> None:
        """Send SIGKILL to the program itself and to none of its children, and wait for its end."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it and what is left of its process group. Does nothing if there is nothing to end."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@contextmanager
def running(
    arguments: Sequence[str], directory: Path, *, environment: Mapping[str, str] | None = None
) -> Iterator[Program]:
    """
    Run a program in *directory*, where its log file is, too, until the block ends.

    *environment* is what it finds besides the variables that the tests themselves run with.
    """
    log = directory / f"{Path(arguments[0]).name}.log"
    program = Program(arguments, log, cwd=directory, environment={**os.environ, **(environment or {})})
    try:
        yield program
    finally:
        program.stop()


@dataclass(frozen=True, slots=True)
class Process:
    """Any process of this machine, told apart from a later one of the same *pid* by its time of *birth*."""

    pid: int
    birth: str
    parent: int = field(compare=False)
    command: str = field(compare=False)
    name: str = field(compare=False)
    """What it calls itself, of at most 15 characters."""

    @property
    def alive(self) -> bool:
        """Whether it still runs. One that is dead and only waits for its parent to notice does not."""
        return self in processes()

    def kill(self) -> None:
        """Send it SIGKILL, unless it has ended already."""
        if self.alive:
            os.kill(self.pid, signal.SIGKILL)


def processes() -> list[Process]:
    """Everything that runs on this machine now."""
    return [process for entry in Path("/proc").glob("[0-9]*") if (process := _read(entry)) is not None]


def descendants(pid: int) -> list[Process]:
    """The children of a process, and theirs."""
    everything = processes()
    family = {pid}
    while more := {each.pid for each in everything if each.parent in family} - family:
        family |= more
    return [each for each in everything if each.pid in family - {pid}]


def _read(entry: Path) -> Process | None:
    """Read one directory of /proc (proc(5)); None if that process has ended."""
    try:
        # The second field is the program's name in parentheses, and may itself hold spaces and parentheses.
        head, _, tail = (entry / "stat").read_bytes().rpartition(b")")
        state, parent, *rest = tail.decode().split()
        command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    name = head.partition(b"(")[2].decode(errors="replace")
    return None if state in "ZX" else Process(int(entry.name), rest[17], int(parent), command, name)
