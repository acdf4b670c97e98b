"""
The machine that is measured on: its cores, the CPU time of processes, its disk; and what a few figures come to.

Nothing here knows what is being measured.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.programs import descendants

_TICKS = os.sysconf("SC_CLK_TCK")
"""Units per second of the times in /proc (proc(5))."""

COURTEOUS = ("chrt", "--idle", "0")
"""In front of a command: it gets the time that nobody else wants (SCHED_IDLE), for it stands for somebody elsewhere."""

URGENT = ("chrt", "--fifo", "1") if os.geteuid() == 0 else ()
"""In front of the command that measures: it waits for nobody, so that it never times its own waiting. Takes root."""

_SYNCS = 200
_PAGE = 4096
"""Octets written before each sync: a page, as SQLite's log gets."""


@dataclass(frozen=True, slots=True)
class Cores:
    """One core for what is measured, another for everything else."""

    measured: int
    other: int

    @classmethod
    def pick(cls) -> Cores:
        """Two of those that we may use. Raises `SystemExit` on a machine that has only one."""
        usable = sorted(os.sched_getaffinity(0))
        if len(usable) < 2:
            raise SystemExit("the benchmarks need two cores: one for what is measured, one for what loads it")
        return cls(*usable[:2])


@dataclass(frozen=True, slots=True)
class Spread:
    """What came out of several rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: Iterable[float]) -> Spread:
        figures = sorted(figures)
        return cls(statistics.median(figures), figures[0], figures[-1])


def percentile(figures: Sequence[float], share: float) -> float:
    """The smallest of *figures* that at least *share* of them do not exceed."""
    return sorted(figures)[max(0, -int(-share * len(figures) // 1) - 1)]


def family(pid: int) -> list[int]:
    """A process and all that it started."""
    return [pid, *(process.pid for process in descendants(pid))]


def pin(pids: Iterable[int], core: int) -> None:
    """Keep every thread of these processes on one core; what they start later stays there, too."""
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {core})


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time that these processes have used, all their threads together."""
    return sum(_ticks(Path(f"/proc/{pid}/stat").read_text()) for pid in pids) / _TICKS


def own_seconds() -> float:
    """User and system time of this process and everything it started; what has ended counts once it was waited for."""
    return sum(os.times()[:4]) + cpu_seconds(process.pid for process in descendants(os.getpid()))


def busy_seconds(core: int) -> float:
    """Time that the core has spent on anything at all, the work of a hypervisor's other guests included."""
    (line,) = (line for line in Path("/proc/stat").read_text().splitlines() if line.startswith(f"cpu{core} "))
    user, nice, system, _, _, irq, softirq, steal = map(int, line.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICKS


def udp_drops(port: int) -> int:
    """Datagrams that came to the port, over IPv4, and that the kernel dropped because too many were waiting."""
    lines = [line.split() for line in Path("/proc/net/udp").read_text().splitlines()[1:]]
    return sum(int(line[-1]) for line in lines if int(line[1].rpartition(":")[2], 16) == port)


def sync_times(directory: Path) -> list[float]:
    """Seconds that this disk takes to keep one page for certain, several times over."""
    times = []
    path = directory / "sync"
    with path.open("wb", buffering=0) as file:
        for _ in range(_SYNCS):
            file.write(bytes(_PAGE))
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    path.unlink()
    return times


def processor() -> str:
    """What the kernel calls this processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _ticks(stat: str) -> int:
    fields = stat.rpartition(")")[2].split()  # the name before may hold spaces and parentheses
    return int(fields[11]) + int(fields[12])
