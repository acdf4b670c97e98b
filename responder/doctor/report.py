"""
What the doctor says: ticks, notes and crosses, each cross with what mends it. How that is printed is not decided here.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum

from responder.doctor.questions import DNS_PORT, Server
from responder.names import Name


class Mark(Enum):
    """How a check ended: well; well enough, with something worth knowing; or with something to fix."""

    TICK = "tick"
    NOTE = "note"
    CROSS = "cross"


class Check(Enum):
    """What is looked at, by the names that the documentation has for it."""

    DELEGATION = "delegation"
    GLUE = "glue"
    PUBLIC = "public addresses"
    DS = "DS"
    REACHABLE = "reachable"
    UDP = "UDP"
    TCP = "TCP"
    AUTHORITY = "authority"
    SERIAL = "serial"
    EDNS = "EDNS"
    CASE = "letter case"
    KNOWN = "challenge name"
    CNAME = "CNAME"
    WILDCARD = "wildcard CNAME"
    TXT = "TXT beside it"
    RESOLVER = "resolver"
    CAA = "CAA"
    BINDING = "CAA binding"
    PROBE = "probe value"
    API = "API"
    CERTIFICATE = "certificate"
    DATABASE = "database"


LOG = "journalctl -u responder -p warning"
"""Shows what went wrong of late, where the service runs under systemd."""


@dataclass(frozen=True, slots=True)
class Fix:
    """What to do, ending in a colon, and the exact records or commands to do it with."""

    instruction: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check came to. A cross always has a fix, a note may have one."""

    check: Check
    mark: Mark
    text: str
    fix: Fix | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """All findings about one zone, one hostname, or the API, which is named by its URL."""

    subject: Name | str
    findings: tuple[Finding, ...]


def tick(check: Check, text: str) -> Finding:
    return Finding(check, Mark.TICK, text)


def note(check: Check, text: str, fix: Fix | None = None) -> Finding:
    return Finding(check, Mark.NOTE, text, fix)


def cross(check: Check, text: str, instruction: str, *lines: str) -> Finding:
    return Finding(check, Mark.CROSS, text, Fix(instruction, lines))


def witnesses(these: Sequence[Server], among: Collection[object], zone: Name) -> str:
    """Who says so: *these* of the servers of *zone*, of which as many as *among* were heard."""
    return f"every server of {zone}" if len(these) == len(among) else ", ".join(map(str, these))


def catch_up(zone: Name, server: Server, name: Name, rrtype: str) -> tuple[str, str]:
    """The fix of what only some servers of *zone* have wrong: instruction and command."""
    return (
        f"other servers of {zone} differ, so see to its zone transfers; then this shows the same everywhere:",
        dig(server, name, rrtype, "+norecurse"),
    )


def dig(server: Server, name: Name | str, rrtype: str, *options: str) -> str:
    """The command that asks a server, for a shell: what a name may hold, a shell might act on."""
    port = () if server.port == DNS_PORT else ("-p", str(server.port))
    return shlex.join(["dig", f"@{server.address}", *port, str(name), rrtype, *options])
