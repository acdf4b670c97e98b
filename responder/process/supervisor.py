"""
The first process: binds every socket, starts the others, restarts what dies, forwards signals. Nothing else.

It outlives its children, so it keeps the sockets: what arrives while a child restarts waits in the kernel. To stay
small it imports next to nothing; the command line reads the configuration and then becomes this program, handing over a
plan in an anonymous file (`plan`). In a reload, another version of this program takes its place (`reload`).
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

import structlog

from responder import logs
from responder.logs import REMINDER, Seldom
from responder.process import systemd
from responder.process.children import Child, introduce
from responder.process.lifeline import Message, Word
from responder.process.listeners import Sockets, close_all
from responder.process.orders import ControlOrders, NameserverOrders
from responder.process.parcel import read_memory_file
from responder.process.plan import Plan
from responder.process.prctl import hide_memory, pass_on_no_capabilities, set_name
from responder.process.reload import Reload
from responder.process.scheduling import pass_on_realtime
from responder.process.succession import CONTROL, Elders, Estate
from responder.process.users import User, for_nameservers

STOP_CONTROL = 3.0
"""Seconds the control process may take to finish what it acknowledged half; the nameservers wait for it."""

STOP_NAMESERVERS = 1.0
"""Seconds for the nameservers after that. Together below the 5 s that we promise, and the 10 s that Docker waits."""

START_EXTENSION = 30
"""Seconds that the service manager is asked to wait for longer, each time, while the control process waits."""

LOOK_INTERVAL = 5.0
"""Seconds between looks at the children: whether they respond, and should the signal of a death be missed."""

LOOK_INTERVAL_IN_RELOAD = 0.5
"""The same while something has a deadline: a check, or a process that is to end."""

_log = structlog.get_logger("supervisor")

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGIO)
"""What the supervisor waits for. SIGIO means that a child has reported something."""


def main() -> int:
    """
    Carry out the plan in the file descriptor that is the first argument. A second one is what an earlier program in
    this process hands over.
    """
    hide_memory()  # the plan has secrets: the database's password, for example
    plan = Plan(**read_memory_file(int(sys.argv[1])))
    estate = Estate.read(int(sys.argv[2])) if len(sys.argv) > 2 else None
    logs.configure(**plan.settings["log"])
    set_name("responder")
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # our parent may have ignored it, and then we would too
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    sockets, faults = plan.bind() if estate is None else (estate.by_purpose(plan.sockets), [])
    pass_on_no_capabilities()
    if plan.settings["dns"]["realtime"]:
        pass_on_realtime()
    try:
        for text in faults:
            _log.critical("cannot start", reason=text)
        return 1 if faults else _supervisor(plan, sockets, estate).run()
    finally:
        close_all(sockets)


def _supervisor(plan: Plan, sockets: Sockets, estate: Estate | None = None) -> Supervisor:
    """The supervisor of *plan*, none of whose own children lives yet."""
    control_sockets = {purpose: _numbers(sockets[purpose]) for purpose in ("api", "admin")}
    # It is one instance, however often it is restarted or reloaded.
    instance = os.urandom(8).hex() if estate is None else estate.instance
    orders = ControlOrders(settings=plan.settings, faults=plan.faults, instance=instance, again=estate is not None)
    control = Child(CONTROL, "responder.control", control_sockets, asdict(orders))
    control.was_ready = estate is not None  # should it not come up, the service goes on nevertheless
    user = _user_of_nameservers(plan.settings["dns"]["user"])
    theirs = NameserverOrders(log=plan.settings["log"], dns=plan.settings["dns"], user=user.name if user else "")
    places = {purpose: _numbers(group) for purpose, group in sockets.items() if purpose.startswith("udp ")}
    nameservers = [
        Child(
            f"nameserver {n + 1}",
            "responder.nameserver",
            {**places, "tcp": _numbers(sockets["tcp"])},
            asdict(theirs),
            bare=True,
            user=user,
        )
        for n in range(plan.processes + plan.spares)
    ]
    return Supervisor(
        control,
        nameservers,
        places=plan.processes,
        status="going on with the configuration of an earlier start: the new one has faults" if plan.faults else "",
        elders=Elders([Child.adopt(heirloom) for heirloom in estate.children] if estate else []),
        command=plan.command,
        sockets=[*itertools.chain(*sockets.values())],
        instance=instance,
    )


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

    *elders* are to be replaced. *command* runs the program that replaces this one in a reload, and that gets the
    *sockets*.
    """

    def __init__(
        self,
        control: Child,
        nameservers: list[Child],
        *,
        places: int,
        status: str = "",
        elders: Elders | None = None,
        command: Sequence[str] = (),
        sockets: Sequence[socket.socket] = (),
        instance: str = "",
    ) -> None:
        self._control = control
        self._nameservers = nameservers
        self._children = [control, *nameservers]
        self._places = range(1, places + 1)
        self._watchdog = systemd.watchdog_interval()
        self._status = status
        self._announced = self._has_waited = False
        self._elders = elders or Elders()
        self._is_reloading = bool(self._elders)
        self._has_begun = False
        self._reload = Reload(command, sockets, instance)

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
            if received is not None and received.si_signo == signal.SIGHUP:
                self._reload.begin(announces=self._announced)
            self._reap()
            self._listen()
            self._fill_places()
            self._succeed()
            self._reload.go_on([*self._children, *self._elders.children])
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
        return child is self._control or len(self._living) < len(self._places) or self._all_answer()

    @property
    def _living(self) -> list[Child]:
        return [nameserver for nameserver in self._nameservers if nameserver.process is not None]

    def _start(self, child: Child) -> None:
        if child is not self._control:
            child.start()
            self._introduce(child)
            return
        self._has_begun = not self._elders.controls
        child.start(
            nameservers=[nameserver.pid for nameserver in self._living],
            elders=[nameserver.pid for nameserver in self._elders.nameservers],
            waits=not self._has_begun,
        )
        for nameserver in self._living:
            self._introduce(nameserver)

    def _introduce(self, nameserver: Child) -> None:
        """Have it follow the control process, if both run."""
        if nameserver.process is not None and self._control.process is not None:
            introduce(self._control, nameserver)
            if nameserver.answers_at:
                self._control.notify(Message(Word.SERVE, nameserver.pid))

    def _succeed(self) -> None:
        """Have the elders retire as soon as others can do their work, and the control process begin after them."""
        prepared = [nameserver for nameserver in self._nameservers if nameserver.is_prepared]
        self._elders.retire(
            control=self._control.is_prepared and len(prepared) >= len(self._places),
            nameservers=self._control.is_ready and self._all_answer(),
        )
        if not self._elders.controls and not self._has_begun and self._control.process is not None:
            self._has_begun = True
            self._control.notify(Message(Word.TAKE_OVER))

    def _patience(self) -> float:
        """Seconds that may pass until there is something to do, if no signal comes."""
        due = [
            child.due - time.monotonic() for child in self._children if child.due is not None and self._is_wanted(child)
        ]
        if self._reload.is_checking or any(child.is_retiring for child in self._elders.children):
            due.append(LOOK_INTERVAL_IN_RELOAD)
        return max(0.0, min([*due, LOOK_INTERVAL, self._watchdog or LOOK_INTERVAL]))

    def _listen(self) -> None:
        """Read the reports of the children, do what the control process asks, and kill what is unresponsive."""
        self._elders.listen()
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
        for child in [*self._children, *self._elders.children]:
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
        if self._control.is_ready and self._all_answer() and not self._elders:
            self._announced = True
            systemd.notify("READY=1")
            if self._status or self._has_waited or self._is_reloading:
                systemd.notify(f"STATUS={self._status}")
            if self._is_reloading:
                _log.info("reloaded")
        elif self._control.is_waiting:
            self._has_waited = True
            systemd.notify(f"EXTEND_TIMEOUT_USEC={START_EXTENSION * 1_000_000}\nSTATUS=waiting for the database")

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
        for child, pid, code in self._elders.reap():
            if child.name != CONTROL:
                self._control.notify(Message(Word.DIED, pid))
            if not child.is_retiring:
                _log.error("a process died; its successor takes over", process=child.name, cause=_cause(code))
        for child in self._children:
            if child.process is None or (status := child.process.poll()) is None:
                continue
            pid, cause = child.pid, _cause(status)
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
        self._reload.give_up()
        controls = [self._control, *self._elders.controls]
        nameservers = [*self._nameservers, *self._elders.nameservers]
        for group, seconds in ((controls, STOP_CONTROL), (nameservers, STOP_NAMESERVERS)):
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


def _cause(status: int) -> str:
    return f"killed by signal {-status}" if status < 0 else f"exited with status {status}"


def _numbers(sockets: list[socket.socket]) -> list[int]:
    return [sock.fileno() for sock in sockets]


if __name__ == "__main__":
    sys.exit(main())
