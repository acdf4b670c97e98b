"""
A reload, before anything is given up: the program that is installed now checks whether it could go on from here.

The supervisor starts it with one more option, and offers its sockets. It reads the configuration, tries all that it
needs, binds what is missing, and answers with the plan of a new supervisor, or with what is wrong. Nothing here knows
what is in a plan: that may be another version's.
"""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from responder.process import parcel
from responder.process.parcel import memory_file
from responder.process.prctl import pass_on_capabilities, pass_on_no_capabilities

OPTION = "--take-over"
"""The option of `responder serve`, followed by the number of the descriptor to answer through."""

FORM = 1
"""The form of an offer, and of what a supervisor hands over to the next one. A program refuses all others."""

DEADLINE = 300.0
"""Seconds that the check may take: it needs one or two, many more on a busy machine, and there is no hurry."""

_QUOTED = 300
"""Characters of the last line that a program wrote which ended without an answer."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a new program may take over: the *sockets* of the service, and where its log goes."""

    sockets: list[socket.socket]
    log: int


@dataclass(frozen=True, slots=True)
class Conclusion:
    """
    What came of a check: the *command* that runs a new supervisor, its *plan* (an anonymous file) and *sockets*, by
    descriptor; or the *faults* that keep it from going on.
    """

    command: Sequence[str] = ()
    plan: int = -1
    sockets: Sequence[int] = ()
    faults: Sequence[str] = ()


class Candidate:
    """The program that checks whether it could go on, as the supervisor sees it. Raises `OSError`."""

    def __init__(self, command: Sequence[str], sockets: Sequence[socket.socket]) -> None:
        self._until = time.monotonic() + DEADLINE
        self._log = os.memfd_create("log")
        self._socket, theirs = parcel.pair()
        try:
            with theirs:
                fcntl.fcntl(self._socket, fcntl.F_SETFL, os.O_NONBLOCK)
                parcel.send(self._socket, {"form": FORM}, [2, *(sock.fileno() for sock in sockets)])
                pass_on_capabilities()
                self._process = subprocess.Popen(
                    [*command, OPTION, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stderr=self._log,  # until it knows where its log goes
                    pass_fds=[theirs.fileno()],
                    process_group=0,
                )
        except BaseException:
            self._close()
            raise
        finally:
            pass_on_no_capabilities()

    @property
    def pid(self) -> int:
        return self._process.pid

    def conclusion(self) -> Conclusion | None:
        """What came of it; None if it is not known yet."""
        if self._process.poll() is None:
            if time.monotonic() < self._until:
                return None
            self.give_up()
            return Conclusion(faults=[f"the check of the new program took more than {DEADLINE:.0f} s"])
        received = parcel.receive(self._socket)
        last = self._last_line()
        self._close()
        if received is None:
            return Conclusion(faults=[f"the new program cannot be run: {last or f'status {self._process.returncode}'}"])
        document, descriptors = received
        if "faults" in document:
            return Conclusion(faults=document["faults"])
        return Conclusion(command=document["command"], plan=memory_file(document["plan"]), sockets=descriptors)

    def give_up(self) -> None:
        """End it, even in the middle of its work."""
        self._process.kill()
        self._process.wait()
        self._close()

    def _last_line(self) -> str:
        with suppress(OSError):
            lines = os.pread(self._log, 1 << 20, 0).decode(errors="replace").strip().splitlines()
            return lines[-1][:_QUOTED] if lines else ""
        return ""

    def _close(self) -> None:
        self._socket.close()
        os.close(self._log)


def receive_offer(number: int) -> tuple[socket.socket, Offer | None]:
    """The socket to answer through, in the candidate, and the offer; None if its form is not known here."""
    sock = socket.socket(fileno=number)
    sock.set_inheritable(False)
    received = parcel.receive(sock)
    if received is None or received[0].get("form") != FORM:
        return sock, None
    log, *sockets = received[1]
    return sock, Offer([socket.socket(fileno=each) for each in sockets], log)


def accept(sock: socket.socket, command: Sequence[str], plan: Any, sockets: Sequence[socket.socket]) -> None:
    """Report that a supervisor with this *plan* can go on; *command* runs it."""
    parcel.send(sock, {"command": list(command), "plan": plan}, [each.fileno() for each in sockets])


def refuse(sock: socket.socket, faults: Sequence[str]) -> None:
    """Report that it cannot, and why."""
    parcel.send(sock, {"faults": list(faults)}, [])
