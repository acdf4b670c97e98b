"""
SIGHUP: the program that is installed now takes the place of this one, in the same process, if it can go on from here.

Until then nothing is given up, and a fault leaves everything as it is.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Sequence

import structlog

from responder.process import systemd
from responder.process.candidate import Candidate, Conclusion
from responder.process.children import Child
from responder.process.plan import execute
from responder.process.prctl import pass_on_capabilities, pass_on_no_capabilities
from responder.process.succession import Estate, bequeath, inheritable

_log = structlog.get_logger("supervisor")


class Reload:
    """One reload after the other. *command* runs the new program, which is offered the *sockets* of the *instance*."""

    def __init__(self, command: Sequence[str], sockets: Sequence[socket.socket], instance: str) -> None:
        self._command = command
        self._sockets = sockets
        self._instance = instance
        self._candidate: Candidate | None = None
        self._announces = False

    @property
    def is_checking(self) -> bool:
        return self._candidate is not None

    def begin(self, *, announces: bool) -> None:
        """
        Have the new program check what it needs. A check that is under way may be of what was there before.

        A service that is ready *announces* the reload to the service manager; another one has not finished its start.
        """
        self.give_up()
        self._announces = announces
        if announces:
            systemd.notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        _log.info("reloading: the program and the configuration that are there now are checked")
        inherited = systemd.inherited_sockets()
        try:
            self._candidate = Candidate(self._command, [*self._sockets, *inherited])
        except OSError as fault:
            self._refuse([f"{self._command[0] if self._command else 'the program'}: {fault.strerror}"])
        finally:
            for sock in inherited:
                sock.detach()

    def go_on(self, children: Iterable[Child]) -> None:
        """If the new program can go on with the *children*, become it; if it cannot, report that."""
        if self._candidate is None or (conclusion := self._candidate.conclusion()) is None:
            return
        self._candidate = None
        if conclusion.faults:
            self._refuse(conclusion.faults)
            return
        self._become(conclusion, children)

    def give_up(self) -> None:
        """End a check that is under way."""
        if self._candidate is not None:
            self._candidate.give_up()
            self._candidate = None

    def _become(self, conclusion: Conclusion, children: Iterable[Child]) -> None:
        """Returns only if the new program cannot be run."""
        inheritable(conclusion.sockets, on=True)
        estate = Estate(sockets=conclusion.sockets, instance=self._instance, children=bequeath(children))
        pass_on_capabilities()
        try:
            execute([*conclusion.command], conclusion.plan, estate.write())
        except OSError as fault:
            pass_on_no_capabilities()
            for number in conclusion.sockets:
                os.close(number)
            inheritable([heirloom.lifeline for heirloom in estate.children], on=False)
            self._refuse([f"{fault.filename}: {fault.strerror}"])

    def _refuse(self, faults: Sequence[str]) -> None:
        for reason in faults:
            _log.error("the reload was refused; the service goes on as before", reason=reason)
        ready = "READY=1\n" if self._announces else ""
        systemd.notify(f"{ready}STATUS=the reload was refused; the service goes on as before: {faults[0]}")
