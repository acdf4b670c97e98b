"""
The first process: binds every socket, starts the others, restarts what dies, forwards signals. Nothing else.

It outlives its children, so it keeps the sockets: what arrives while a child restarts waits in the kernel. To stay
small it imports next to nothing; the command line reads the configuration and then becomes this program (`become`),
handing over a plan in an anonymous file.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

import structlog

from responder import logs
from responder.logs import REMINDER, Seldom
from responder.process import systemd
from responder.process.children import Child, introduce
from responder.process.lifeline import Message, Word
from responder.process.listeners import SocketAddress, Sockets, bind_all, close_all
from responder.process.prctl import hide_memory, pass_on_no_capabilities, set_name
from responder.process.scheduling import pass_on_realtime
from responder.process.users import User, for_nameservers

STOP_CONTROL = 3.0
"""Seconds the control process may take to finish what it acknowledged half; the nameservers wait for it."""

STOP_NAMESERVERS = 1.0
"""Seconds for the nameservers after that. Together below the 5 s that we promise, and the 10 s that Docker waits."""

PATIENCE = 30
"""Seconds that the service manager is asked to wait for longer, each time, while the control process waits."""

LOOK_INTERVAL = 5.0
"""Seconds between looks at the children: whether they respond, and should the signal of a death be missed."""

_log = structlog.get_logger("supervisor")

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGIO)
"""What the supervisor waits for. SIGIO means that a child has reported something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """
    What to bind, how many nameservers answer, how many more stand by, and the settings that the control process gets
    (they hold secrets: never printed). The addresses of a section in *free* may come later. *faults* are why the
    configuration is not the one that these settings are from.
    """

    dns: list[SocketAddress]
    api: list[SocketAddress]
    admin: list[SocketAddress]
    processes: int
    spares: int
    settings: dict[str, Any]
    free: list[str]
    faults: list[str]

    def bind(self) -> tuple[Sockets, list[str]]:
        """All sockets by purpose, and what could not be bound, one line each."""
        return bind_all(self.dns, self.api, self.admin, processes=self.processes, free=self.free)


def cannot_bind(plan: Plan) -> list[str]:
    """Try all of *plan*, let go of it again, and return what could not be bound."""
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
    hide_memory()  # the plan has secrets: the database's password, for example
    with os.fdopen(int(sys.argv[1]), "rb") as file:
        plan = Plan(**json.load(file))
    logs.configure(**plan.settings["log"])
    set_name("responder")
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # our parent may have ignored it, and then we would too
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    sockets, faults = plan.bind()
    pass_on_no_capabilities()
    if plan.settings["dns"]["realtime"]:
        pass_on_realtime()
    try:
        for text in faults:
            _log.critical("cannot start", reason=text)
        return 1 if faults else _supervisor(plan, sockets).run()
    finally:
        close_all(sockets)


def _supervisor(plan: Plan, sockets: Sockets) -> Supervisor:
    """The supervisor of *plan*, none of whose children lives yet."""
    control_sockets = {purpose: _numbers(sockets[purpose]) for purpose in ("api", "admin")}
    # It is one instance, however often it is restarted.
    orders = {"settings": plan.settings, "faults": plan.faults, "instance": os.urandom(8).hex()}
    control = Child("control", "responder.control", control_sockets, orders)
    user = _user_of_nameservers(plan.settings["dns"]["user"])
    share = len(sockets["udp"]) // plan.processes
    places = {f"udp {n + 1}": _numbers(sockets["udp"][n * share : (n + 1) * share]) for n in range(plan.processes)}
    nameservers = [
        Child(
            f"nameserver {n + 1}",
            "responder.nameserver",
            {**places, "tcp": _numbers(sockets["tcp"])},
            {"log": plan.settings["log"], "dns": plan.settings["dns"], "user": user.name if user else ""},
            bare=True,
            user=user,
        )
        for n in range(plan.processes + plan.spares)
    ]
    status = "going on with the configuration of an earlier start: the new one has faults" if plan.faults else ""
    return Supervisor(control, nameservers, places=plan.processes, status=status)


def _user_of_nameservers(wanted: str) -> User | None:
    """Whom they run as; None if that is the user of the service, which the log reports with the reason."""
    user = for_nameservers(wanted)
    if isinstance(user, User):
        return user
    log = _log.warning if wanted else _log.info
    log("nameservers run as the user of the service", reason=user)
    return None


class Supervisor:
    """
    Keeps the children running until a signal asks it to stop.

    Every nameserver begins as a spare: it loads and follows the feed, and reads no packet. A place is a set of sockets,
    and each of the *places* is given to one nameserver that has loaded. When that one is dead, so that it certainly
    reads no packet any more, a spare gets its place at once. *status* is for the service manager, once all is ready.
    """

    def __init__(self, control: Child, nameservers: list[Child], *, places: int, status: str = "") -> None:
        self._control = control
        self._nameservers = nameservers
        self._children = [control, *nameservers]
        self._places = range(1, places + 1)
        self._watchdog = systemd.watchdog_interval()
        self._status = status
        self._announced = self._has_waited = False

    def run(self) -> int:
        """Returns the exit status: 0 when it was asked to stop, 1 when the control process never came up."""
        while True:
            self._start_those_due()
            received = signal.sigtimedwait(_SIGNALS, self._patience())
            if received is not None and received.si_signo in (signal.SIGTERM, signal.SIGINT):
                systemd.notify("STOPPING=1")
                _log.info("stopping the service", signal=signal.Signals(received.si_signo).name)
                self._stop()
                _log.info("stopped")
                return 0
            self._reap()
            self._listen()
            self._fill_places()
            if self._control.process is None and not self._control.was_ready:
                _log.critical("the control process could not start; its last event has the reason")
                self._stop()
                return 1

    def _start_those_due(self) -> None:
        for child in self._children:
            if child.due is not None and child.due <= time.monotonic() and self._is_wanted(child):
                self._start(child)

    def _is_wanted(self, child: Child) -> bool:
        """A spare can wait until queries are answered at every place: starting costs processor time."""
        living = [nameserver for nameserver in self._nameservers if nameserver.process is not None]
        return child is self._control or len(living) < len(self._places) or self._all_answer()

    def _start(self, child: Child) -> None:
        living = [nameserver for nameserver in self._nameservers if nameserver.process is not None]
        if child is not self._control:
            child.start()
            self._introduce(child)
            return
        child.start([nameserver.pid for nameserver in living])
        for nameserver in living:
            self._introduce(nameserver)

    def _introduce(self, nameserver: Child) -> None:
        """Have it follow the control process, if both run."""
        if nameserver.process is not None and self._control.process is not None:
            introduce(self._control, nameserver)
            if nameserver.answers_at:
                self._control.notify(Message(Word.SERVE, nameserver.pid))

    def _patience(self) -> float:
        """Seconds that may pass until there is something to do, if no signal comes."""
        due = [
            child.due - time.monotonic() for child in self._children if child.due is not None and self._is_wanted(child)
        ]
        return max(0.0, min([*due, LOOK_INTERVAL, self._watchdog or LOOK_INTERVAL]))

    def _listen(self) -> None:
        """Read the reports of the children, do what the control process asks, and kill what is unresponsive."""
        for child in self._children:
            was_answering = child.answers_at
            wanted = child.listen()
            if child is self._control:
                self._kill(wanted)
            if child.answers_at and not was_answering:
                self._control.notify(Message(Word.SERVE, child.pid))
            if child.is_back():
                child.is_missed, child.deaths = False, Seldom(REMINDER)
                _log.warning("a process is running again", process=child.name)  # seen where its deaths are
            if child.hangs():
                _log.error("a process is unresponsive; killing it", process=child.name)
                child.signal(signal.SIGKILL)
        self._announce()
        if self._watchdog is not None:
            systemd.notify("WATCHDOG=1")

    def _announce(self) -> None:
        """Have the service manager know once when all is ready, and meanwhile that it takes its time for a reason."""
        if self._announced:
            return
        if self._control.is_ready and self._all_answer():
            self._announced = True
            systemd.notify("READY=1")
            if self._status or self._has_waited:
                systemd.notify(f"STATUS={self._status}")
        elif self._control.is_waiting:
            self._has_waited = True
            systemd.notify(f"EXTEND_TIMEOUT_USEC={PATIENCE * 1_000_000}\nSTATUS=waiting for the database")

    def _kill(self, pids: Sequence[int]) -> None:
        """Kill nameservers for the control process: they may answer from old data, or were taken over."""
        for nameserver in self._nameservers:
            if nameserver.pid in pids:
                nameserver.signal(signal.SIGKILL)

    def _all_answer(self) -> bool:
        return {nameserver.answers_at for nameserver in self._nameservers} >= {*self._places}

    def _fill_places(self) -> None:
        """Give each place that is free to a nameserver that has loaded."""
        taken = {nameserver.place for nameserver in self._nameservers}
        spares = [nameserver for nameserver in self._nameservers if nameserver.is_ready and not nameserver.place]
        for place, spare in zip([place for place in self._places if place not in taken], spares, strict=False):
            spare.place = place
            spare.notify(Message(Word.SERVE, place))

    def _reap(self) -> None:
        """Bury the dead; report the untimely ones."""
        dead = [child for child in self._children if child.process is not None and child.process.poll() is not None]
        for child in dead:
            status, pid = child.process.returncode if child.process is not None else 0, child.pid
            cause = f"killed by signal {-status}" if status < 0 else f"exited with status {status}"
            child.bury()
            if child is not self._control:
                self._control.notify(Message(Word.DIED, pid))
            if child is self._control and not child.was_ready:
                _log.error("a process died", process=child.name, cause=cause)
            else:
                self._report(child, cause)

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


def _numbers(sockets: list[socket.socket]) -> list[int]:
    return [sock.fileno() for sock in sockets]


if __name__ == "__main__":
    sys.exit(main())
