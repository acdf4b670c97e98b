"""
The findings of the doctor: ticks, notes and crosses, each cross with its fix. They are printed elsewhere.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum

from responder.doctor.questions import DNS_PORT, Server
from responder.names import Name


class Mark(Enum):
    """The result of a check: it passed, it passed with a note, or something has to be fixed."""

    TICK = "tick"
    NOTE = "note"
    CROSS = "cross"


class CheckName(Enum):
    """What is checked, by its name in the documentation."""

    DELEGATION = "delegation"
    GLUE = "glue"
    NAMESERVER = "nameserver name"
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
"""Shows recent warnings and errors of a service under systemd."""


@dataclass(frozen=True, slots=True)
class Fix:
    """An instruction that ends with a colon, and the exact records or commands for it."""

    instruction: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. A cross always has a fix; a note may have one."""

    check: CheckName
    mark: Mark
    text: str
    fix: Fix | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """All findings about one zone, one hostname, or the API, which is named by its URL."""

    subject: Name | str
    findings: tuple[Finding, ...]


def tick(check: CheckName, text: str) -> Finding:
    return Finding(check, Mark.TICK, text)


def note(check: CheckName, text: str, fix: Fix | None = None) -> Finding:
    return Finding(check, Mark.NOTE, text, fix)


def cross(check: CheckName, text: str, instruction: str, *lines: str) -> Finding:
    return Finding(check, Mark.CROSS, text, Fix(instruction, lines))


def witnesses(these: Sequence[Server], among: Collection[object], zone: Name) -> str:
    """The servers of *zone* that agree: *these*, of all that replied (*among*)."""
    return f"every server of {zone}" if len(these) == len(among) else ", ".join(map(str, these))


def catch_up(zone: Name, server: Server, name: Name, rrtype: str) -> tuple[str, str]:
    """The fix if only some servers of *zone* are wrong: instruction and command."""
    return (
        f"other servers of {zone} differ, so check its zone transfers; then this shows the same at each of them:",
        dig(server, name, rrtype, "+norecurse"),
    )


def dig(server: Server, name: Name | str, rrtype: str, *options: str) -> str:
    """The command that queries a server, quoted for a shell."""
    port = () if server.port == DNS_PORT else ("-p", str(server.port))
    return shlex.join(["dig", f"@{server.address}", *port, str(name), rrtype, *options])
