"""
What a supervisor is to run: made by the command line, handed over in an anonymous file.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn

from responder.process.listeners import SocketAddress, Sockets, bind_all, close_all, left_over
from responder.process.parcel import memory_file

MODULE = "responder.process.supervisor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """
    What to bind, how many nameservers answer, how many more stand by, and the settings that the control process gets
    (they hold secrets: never printed). The addresses of a section in *free* may come later. *faults* are why the
    configuration is not the one that these settings are from. *command* runs the same program anew, for a reload;
    *sockets* are how many are handed over for each purpose, if they are bound already.
    """

    dns: list[SocketAddress]
    api: list[SocketAddress]
    admin: list[SocketAddress]
    processes: int
    spares: int
    settings: dict[str, Any]
    free: list[str]
    faults: list[str]
    command: list[str] = field(default_factory=list)
    sockets: dict[str, int] = field(default_factory=dict)

    def bind(self, offered: Iterable[socket.socket] | None = None) -> tuple[Sockets, list[str]]:
        """All sockets by purpose, those *offered* if they fit, and what could not be bound, one line each."""
        return bind_all(self.dns, self.api, self.admin, processes=self.processes, free=self.free, offered=offered)

    def left_over(self) -> list[str]:
        """What systemd has bound and this does not need, one line each."""
        stream = {(socket.SOCK_STREAM, (host, port)) for host, port in (*self.dns, *self.api, *self.admin)}
        return left_over(stream | {(socket.SOCK_DGRAM, (host, port)) for host, port in self.dns})


def cannot_bind(plan: Plan) -> list[str]:
    """Try all of *plan*, let go of it again, and return what could not be bound."""
    sockets, faults = plan.bind()
    close_all(sockets)
    return faults


def program() -> list[str]:
    """The command line of a supervisor, as far as it is always the same: this very Python, and the module."""
    return [sys.executable, "-P", "-m", MODULE]


def become(plan: Plan) -> NoReturn:
    """Replace this process by a supervisor that carries out *plan*. Raises `OSError`, naming what cannot be run."""
    execute(program(), memory_file(asdict(plan)))


def execute(command: list[str], *descriptors: int) -> NoReturn:
    """
    Replace the program of this process by *command*, with the *descriptors* as further arguments. Raises `OSError`, and
    closes them, if it cannot be run.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execv(command[0], [*command, *map(str, descriptors)])  # noqa: S606
    except OSError as fault:  # it does not name the file: a Python in somebody's home, for example
        for number in descriptors:
            os.close(number)
        raise OSError(fault.errno, fault.strerror, command[0]) from None
