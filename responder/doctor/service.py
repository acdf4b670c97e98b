"""Findings about the service on this machine: what it reports of itself, and warnings about its database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from responder.doctor.report import LOG, CheckName, Finding, cross, note, tick

_DATABASE = ("store", "writing", "database")
"""The readiness checks about the database. DNS and the API are checked from outside."""


@dataclass(frozen=True, slots=True)
class ServiceReport:
    """
    The readiness *checks*, each "ok" or what is wrong; none if the service does not respond. *warnings* are those of
    the store.
    """

    checks: Mapping[str, str]
    warnings: Sequence[str] = ()


def examine(service: ServiceReport) -> list[Finding]:
    """A finding for each fault, or a tick if the service can store changes."""
    found = [_judge(name, service.checks[name]) for name in _DATABASE if service.checks.get(name, "ok") != "ok"]
    if service.checks.get("writing") == "ok" and not found:
        found.append(tick(CheckName.DATABASE, "the service on this machine can store changes"))
    return [*found, *(note(CheckName.DATABASE, warning) for warning in service.warnings)]


def _judge(name: str, result: str) -> Finding:
    if result.startswith("new: "):
        return note(CheckName.DATABASE, f"it is {result}")
    text = result.removeprefix("failed: ")
    what = "changes cannot be stored" if name == "writing" else "the service cannot use it"
    return cross(CheckName.DATABASE, f"{what}: {text}", "fix that; then the log reports that it works again:", LOG)
