"""
The orders that the supervisor gives to its children, as JSON documents: what each of them has to know to do its work.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """For every child: the numbers of its *sockets* by purpose, and how often it was started before."""

    sockets: dict[str, list[int]] = field(default_factory=dict)
    restarts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlOrders(Orders):
    """
    For the control process: the *settings* as JSON, the *faults* of a newer configuration that cannot be used, and the
    *instance* of the service, which stays the same in restarts and reloads.

    *again* means that the instance already served before its supervisor began, so that this is a reload. *nameservers*
    are the process ids of those that run already, and *elders* of those that run from before a reload. A child that
    *waits* does no work until the supervisor reports that it is its turn.
    """

    settings: dict[str, Any]
    faults: list[str]
    instance: str
    again: bool
    nameservers: list[int] = field(default_factory=list)
    elders: list[int] = field(default_factory=list)
    waits: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NameserverOrders(Orders):
    """For a nameserver: the sections `log` and `dns` of the settings as JSON, and the *user* it is to become, or ""."""

    log: dict[str, Any]
    dns: dict[str, Any]
    user: str
