"""
The user that nameservers run as, where the service may give them one of their own (capabilities(7)).

What a process may do to others goes by the user: signals, limits, the mode of files, connections to PostgreSQL that it
admits by user. So a nameserver with a user of its own has nothing in common with the control process.
"""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PREFERRED = ("responder-dns", "nobody")
"""The users that are taken, the first that the system has, if the settings name none."""

_NEEDED = {"CAP_KILL": 5, "CAP_SETGID": 6, "CAP_SETUID": 7}
"""The capabilities that it takes, with their numbers (linux/capability.h): to change users, and to kill as another."""


@dataclass(frozen=True, slots=True)
class User:
    """A user of this system, and its group."""

    name: str
    uid: int
    gid: int


def for_nameservers(wanted: str) -> User | str:
    """The user of the name *wanted*, or of `PREFERRED` if that is ""; or the reason why they cannot have one."""
    if lacking := [name for name, number in _NEEDED.items() if not _capabilities() >> number & 1]:
        return f"the service has no {', '.join(lacking)}"
    user = _find((wanted,) if wanted else PREFERRED)
    if isinstance(user, User) and not _can_run_python(user):
        return f"user {user.name} cannot read {sys.executable} and the modules of the service"
    return user


def _capabilities() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))


def _find(names: Sequence[str]) -> User | str:
    for name in names:
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            if entry.pw_uid in (0, os.getuid()):
                return f"user {name} is that of the service, or root"
            return User(name, entry.pw_uid, entry.pw_gid)
    return f"there is no user {' or '.join(names)}"


def _can_run_python(user: User) -> bool:
    """Whether the user can, as an installation in the home of another user is out of reach."""
    if pid := os.fork():
        return os.waitpid(pid, 0)[1] == 0
    try:
        os.setgroups([])
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
        here = [sys.executable, os.__file__, __file__]
        os._exit(0 if all(os.access(path, os.R_OK) for path in here) else 1)
    finally:
        os._exit(1)
