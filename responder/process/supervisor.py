"""
The first process: binds every socket, starts the others, restarts what dies, forwards signals. Nothing else.

It outlives its children, so it keeps the sockets: what arrives while a child restarts waits in the kernel. To stay
small it imports next to nothing; the command line reads the configuration and then becomes this program (`become`),
handing over a plan in an anonymous file.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import structlog

from responder import logs
from responder.logs import REMINDER, Seldom
from responder.process import systemd
from responder.process.child import send_orders
from responder.process.listeners import Address, Sockets, bind_all, close_all

STOP_CONTROL = 3.0
"""Seconds the control process may take to finish what it acknowledged half; the nameservers wait for it."""

STOP_NAMESERVERS = 1.0
"""Seconds for the nameservers after that. Together below the 5 s that we promise, and the 10 s that Docker waits."""

SHORT_LIFE = 1.0
"""Seconds: a child that lived shorter, or was never ready, is restarted with growing delays, any other at once."""

MAX_DELAY = 5.0
"""Seconds between two starts of a child that keeps dying."""

FEED_BACKLOG = 128

LOOK_INTERVAL = 5.0
"""Seconds between looks at the children: for signs of life, and should a signal that tells of a death be missed."""

READY_INTERVAL = 0.1
"""Seconds between looks until all children have said that they are ready: systemd waits for that."""

SILENCE = 30.0
"""Seconds without a sign of life after which a child hangs, and is killed. It gives one every second."""

KEPT_FOR_NAMESERVERS = (
    *("PATH", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "PYTHONHOME", "PYTHONUNBUFFERED"),
    "JOURNAL_STREAM",  # whether stderr is the journal, which wants priorities
)
"""The only environment variables a nameserver process sees."""

_log = structlog.get_logger("supervisor")

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to bind, and the settings that the control process gets (they hold secrets: never printed)."""

    dns: list[Address]
    api: list[Address]
    admin: list[Address]
    processes: int
    settings: dict[str, Any]

    def bind(self) -> tuple[Sockets, list[str]]:
        """All sockets by purpose, and what could not be bound, one line each."""
        return bind_all(self.dns, self.api, self.admin, processes=self.processes)


def cannot_bind(plan: Plan) -> list[str]:
    """Try all of *plan*, let go of it again, and say what could not be bound."""
    sockets, faults = plan.bind()
    close_all(sockets)
    return faults


def become(plan: Plan) -> NoReturn:
    """Replace this process by a supervisor that carries out *plan*. Raises `OSError`, naming what cannot be run."""
    number = os.memfd_create("plan", 0)  # stays open across the exec
    with os.fdopen(number, "wb", closefd=False) as file:
        file.write(json.dumps(asdict(plan)).encode())
        file.seek(0)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execv(sys.executable, [sys.executable, "-P", "-m", "responder.process.supervisor", str(number)])  # noqa: S606
    except OSError as fault:  # it does not name the file: a Python in somebody's home, for example
        os.close(number)
        raise OSError(fault.errno, fault.strerror, sys.executable) from None


def main() -> int:
    """Carry out the plan in the file descriptor that is named by the only argument."""
    with os.fdopen(int(sys.argv[1]), "rb") as file:
        plan = Plan(**json.load(file))
    logs.configure(**plan.settings["log"])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # whoever started us may have ignored it, and then we would too
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    directory = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if directory:
        return _supervise(plan, Path(directory))
    with tempfile.TemporaryDirectory(prefix="responder-") as temporary:
        return _supervise(plan, Path(temporary))


def _supervise(plan: Plan, directory: Path) -> int:
    sockets, faults = plan.bind()
    feed = directory / "feed.sock"
    try:
        sockets["feed"] = [_bind_feed(feed)]
    except BlockingIOError:
        faults.append(f"another responder is running with RUNTIME_DIRECTORY={directory}: give each its own")
    except OSError as fault:
        faults.append(f"cannot create {feed}: {fault.strerror or fault}")
    try:
        for text in faults:
            _log.critical("cannot start", reason=text)
        return 1 if faults else _start(plan, sockets, feed).run()
    finally:
        close_all(sockets)


def _start(plan: Plan, sockets: dict[str, list[socket.socket]], feed: Path) -> Supervisor:
    """The supervisor of *plan*, none of whose children lives yet."""
    control_sockets = {purpose: _numbers(sockets[purpose]) for purpose in ("api", "admin", "feed")}
    control = Child("control", "responder.control", control_sockets, {"settings": plan.settings})
    share = len(sockets["udp"]) // plan.processes
    nameservers = [
        Child(
            f"nameserver {n + 1}",
            "responder.nameserver",
            {"udp": _numbers(sockets["udp"][n * share : (n + 1) * share]), "tcp": _numbers(sockets["tcp"])},
            {"feed": str(feed), "log": plan.settings["log"], "dns": plan.settings["dns"]},
            bare=True,
        )
        for n in range(plan.processes)
    ]
    return Supervisor(control, nameservers)


@dataclass(slots=True)
class Child:
    """A child process: how to start it, and how it fared."""

    name: str
    module: str
    sockets: dict[str, list[int]]
    orders: dict[str, Any]
    bare: bool = False
    process: subprocess.Popen[bytes] | None = None
    is_ready: bool = False
    was_ready: bool = False
    due: float | None = 0.0
    restarts: int = 0
    deaths: Seldom = field(default_factory=lambda: Seldom(REMINDER))
    is_missed: bool = False
    _lifeline: socket.socket | None = None
    _started: float = 0.0
    _heard: float = 0.0
    _delay: float = 0.0

    def start(self, nameservers: Sequence[int] = ()) -> None:
        """
        Start it, with nothing open but its sockets and its lifeline; later, if the system has no process to give.

        Its orders name the *nameservers* that are running, by process id.
        """
        self._started, self.due = time.monotonic(), None
        orders = self.orders | {
            "sockets": self.sockets,
            "nameservers": list(nameservers),
            "restarts": self.restarts,
        }
        environment = {k: v for k, v in os.environ.items() if not self.bare or k in KEPT_FOR_NAMESERVERS}
        try:
            self._lifeline, theirs = socket.socketpair()
            with theirs:
                send_orders(self._lifeline, json.dumps(orders).encode())
                self.process = subprocess.Popen(
                    [sys.executable, "-P", "-m", self.module],
                    stdin=theirs.fileno(),
                    pass_fds=[number for numbers in self.sockets.values() for number in numbers],
                    env=environment,
                    process_group=0,  # a terminal's Ctrl-C is for the supervisor, which stops all in the right order
                )
        except OSError as fault:
            _log.error("cannot start a process", process=self.name, reason=fault.strerror)
            self._retire()

    def bury(self) -> None:
        """Note that it died, whether it ever was ready, and when it may live again."""
        self.listen()
        self._retire()

    def _retire(self) -> None:
        if self._lifeline is not None:
            self._lifeline.close()
        short = not self.is_ready or time.monotonic() - self._started < SHORT_LIFE
        self._delay = min(max(2 * self._delay, 0.1), MAX_DELAY) if short else 0.0
        self.due = time.monotonic() + self._delay
        self.restarts += 1
        self.is_ready = False
        self._lifeline = self.process = None

    def listen(self) -> None:
        """Look whether it reported that it is ready, and has given signs of life since."""
        if self._lifeline is None:
            return
        try:
            said = self._lifeline.recv(4096, socket.MSG_DONTWAIT)
        except OSError:
            return
        if said:
            self.is_ready = self.was_ready = True
            self._heard = time.monotonic()

    @property
    def keeps_dying(self) -> bool:
        return self._delay >= MAX_DELAY

    def is_back(self) -> bool:
        """Whether it kept dying, and now lives."""
        return self.is_missed and self.is_ready and time.monotonic() - self._started >= SHORT_LIFE

    def hangs(self) -> bool:
        """Whether it was ready once, and has been silent for too long."""
        return self.is_ready and time.monotonic() - self._heard > SILENCE

    def signal(self, number: int) -> None:
        if self.process is not None:
            self.process.send_signal(number)


class Supervisor:
    """Keeps the children running until it is told to stop."""

    def __init__(self, control: Child, nameservers: list[Child]) -> None:
        self._control = control
        self._nameservers = nameservers
        self._children = [control, *nameservers]
        self._watchdog = systemd.watchdog_interval()
        self._announced = False

    def run(self) -> int:
        """Returns the exit status: 0 when told to stop, 1 when the control process never came up."""
        while True:
            for child in self._children:
                if child.due is not None and child.due <= time.monotonic():
                    child.start(self._living_nameservers() if child is self._control else ())
            received = signal.sigtimedwait(_SIGNALS, self._patience())
            if received is not None and received.si_signo in (signal.SIGTERM, signal.SIGINT):
                systemd.notify("STOPPING=1")
                _log.info("stopping the service", signal=signal.Signals(received.si_signo).name)
                self._stop()
                _log.info("stopped")
                return 0
            self._reap()
            self._listen()
            if self._control.process is None and not self._control.was_ready:
                _log.critical("the control process could not start; its last event has the reason")
                self._stop()
                return 1

    def _patience(self) -> float:
        """Seconds that may pass until there is something to do, if no signal comes."""
        due = [child.due - time.monotonic() for child in self._children if child.due is not None]
        look = LOOK_INTERVAL if self._announced else READY_INTERVAL
        return max(0.0, min([*due, look, self._watchdog or look]))

    def _listen(self) -> None:
        """Pass the children's signs of life on to systemd, and make an end of whoever gives none."""
        for child in self._children:
            child.listen()
            if child.is_back():
                child.is_missed, child.deaths = False, Seldom(REMINDER)
                _log.warning("a process is running again", process=child.name)  # seen where its deaths are
            if child.hangs():
                _log.error("a process is unresponsive; killing it", process=child.name)
                child.signal(signal.SIGKILL)
        if not self._announced and all(child.is_ready for child in self._children):
            self._announced = True
            systemd.notify("READY=1")
        if self._watchdog is not None:
            systemd.notify("WATCHDOG=1")

    def _living_nameservers(self) -> list[int]:
        """Those that answer while the control process starts: it must call nothing live that they do not serve."""
        return [child.process.pid for child in self._nameservers if child.process is not None]

    def _reap(self) -> list[Child]:
        """Bury the dead; report the untimely ones."""
        dead = [child for child in self._children if child.process is not None and child.process.poll() is not None]
        for child in dead:
            status = child.process.returncode if child.process is not None else 0
            cause = f"killed by signal {-status}" if status < 0 else f"exited with status {status}"
            child.bury()
            if child is self._control and not child.was_ready:
                _log.error("a process died", process=child.name, cause=cause)
            else:
                self._report(child, cause)
        return dead

    def _report(self, child: Child, cause: str) -> None:
        """Each death is a line; when they come as fast as they may, one now and then, until it is running again."""
        more = child.deaths.due(cause) if child.keeps_dying else 0
        if more is not None:
            details = {"more": more} if more else {}
            _log.error("a process died; starting it again", process=child.name, cause=cause, **details)
        child.is_missed = child.keeps_dying

    def _stop(self) -> None:
        """First the control process, whose callers wait for the nameservers; then those; by force what is left."""
        for group, seconds in (([self._control], STOP_CONTROL), (self._nameservers, STOP_NAMESERVERS)):
            for child in group:
                child.signal(signal.SIGTERM)
            deadline = time.monotonic() + seconds
            for child in group:
                if child.process is not None:
                    try:
                        child.process.wait(max(0.0, deadline - time.monotonic()))
                    except subprocess.TimeoutExpired:
                        _log.error("a process does not stop; killing it", process=child.name)
                        child.process.kill()
                        child.process.wait()


def _bind_feed(path: Path) -> socket.socket:
    # The directory is ours for as long as this process lives, and the socket in it: nameservers know it by its path.
    fcntl.flock(os.open(path.parent, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
    path.unlink(missing_ok=True)  # left by a supervisor that was killed
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(path))
        path.chmod(0o600)
        sock.listen(FEED_BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _numbers(sockets: list[socket.socket]) -> list[int]:
    return [sock.fileno() for sock in sockets]


if __name__ == "__main__":
    sys.exit(main())
