"""
What a nameserver process gives up before it reads its first packet, so that an attacker who takes it over gains little.
"""

from __future__ import annotations

import resource

import structlog

from responder.feed import Sandbox
from responder.nameserver import landlock, seccomp
from responder.process.prctl import gain_no_privileges, hide_memory

_log = structlog.get_logger("nameserver")


def enter(user: str = "") -> Sandbox:
    """
    From now on, run no program, start no process, write no core, open no file but to read Python's own, and make no
    connection.

    Returns what is in force. *user* is the name of the user that nameservers alone run as; "" if there is none. Call it
    while there is one thread.
    """
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    hide_memory()
    gain_no_privileges()
    sandbox = Sandbox(landlock=landlock.enter(), seccomp=seccomp.enter(), user=user)
    log = _log.info if sandbox.is_complete else _log.warning
    log("in the sandbox", landlock=sandbox.landlock, seccomp=sandbox.seccomp, user=sandbox.user)
    return sandbox
