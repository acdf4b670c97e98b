"""An examination as a whole: the zones side by side, then the hostnames, reported in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

from responder.config import ZoneSettings
from responder.doctor import api, authorities, delegation, hostname, nameservers, probe, service
from responder.doctor.api import Api
from responder.doctor.caa import Policy
from responder.doctor.questions import DNS_PORT, Asker, Server
from responder.doctor.report import Finding, Section
from responder.doctor.service import Service
from responder.doctor.walk import Walk
from responder.errors import CannotExamine, ResponderError
from responder.names import Name
from responder.store import Operation, Store
from responder.tokens.serving import Serving
from responder.tokens.token import Grant

DEADLINE = 180.0
"""Seconds for everything. A delegation in order takes one or two; one whose every server is silent, about a minute."""


@dataclass(frozen=True, slots=True)
class Patient:
    """A hostname to look at: its grant, a token that covers it, and whether its wildcard matters, too."""

    grant: Grant
    token_id: UUID
    wildcard: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """
    What to look at, and from where. Without an *api* or a *service*, that is left out; *serving* is what the whole
    configuration serves.

    *resolvers* are tried in order, at *resolver_port*; every other server is asked at *port*. Values are presented
    only with a store to *write* to.
    """

    zones: Sequence[ZoneSettings]
    serving: Serving
    serials: Mapping[Name, int]
    patients: Sequence[Patient]
    policy: Policy
    resolvers: Sequence[str]
    resolver_port: int = DNS_PORT
    port: int = DNS_PORT
    write: Store | None = None
    api: Api | None = None
    service: Service | None = None


async def examine(case: Case, *, waiting: Callable[[str], None], found: Callable[[Section], None]) -> list[Section]:
    """
    Look at everything: the zones and the API side by side, then the hostnames.

    *found* is told each section in order, as soon as it is complete; *waiting*, which server is waited for. Raises
    `CannotExamine` if no resolver answers, or if time runs out.
    """
    try:
        async with asyncio.timeout(DEADLINE):
            resolvers = [Server("the resolver", address, case.resolver_port) for address in case.resolvers]
            walk = await Walk.start(Asker(waiting), resolvers, case.port)
            return await _examine(case, walk, found)
    except TimeoutError:
        raise CannotExamine(
            f"not everything could be looked at within {DEADLINE:.0f} s: check fewer hostnames at once"
        ) from None


async def _examine(case: Case, walk: Walk, found: Callable[[Section], None]) -> list[Section]:
    serving: dict[Name, list[Server]] = {}
    first = [_examine_zone(case, walk, zone, serving) for zone in case.zones]
    zones = await _in_order([*first, *([_examine_api(walk, case.api)] if case.api is not None else [])], found)
    if case.service is not None and (findings := service.examine(case.service)):
        zones.append(Section("the service", tuple(findings)))
        found(zones[-1])
    hosts = await _in_order((_examine_host(case, walk, patient, serving) for patient in case.patients), found)
    return [*zones, *hosts]


async def _in_order(
    examinations: Iterable[Coroutine[None, None, Section]], found: Callable[[Section], None]
) -> list[Section]:
    """Do all at once, and tell of each in order."""
    tasks = [asyncio.create_task(examination) for examination in examinations]
    sections = []
    try:
        for task in tasks:
            sections.append(await task)
            found(sections[-1])
    finally:
        # Whatever happened: none may be left behind with a value that is to be cleaned up.
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return sections


async def _examine_zone(case: Case, walk: Walk, zone: ZoneSettings, serving: dict[Name, list[Server]]) -> Section:
    servers = await nameservers.find(walk, zone)
    above, (ours, serving[zone.name]) = await asyncio.gather(
        delegation.examine(walk, zone),
        nameservers.examine(walk, zone, servers, case.serials.get(zone.name)),
    )
    return Section(zone.name, (*above, *ours))


async def _examine_api(walk: Walk, place: Api) -> Section:
    return Section(f"the API at {place.place.url}", tuple(await api.examine(walk, place)))


async def _examine_host(case: Case, walk: Walk, patient: Patient, serving: Mapping[Name, Sequence[Server]]) -> Section:
    grant = patient.grant
    zone = next(zone for zone in case.zones if zone.name == grant.apex)
    servers = serving[zone.name]
    findings, caa = await asyncio.gather(hostname.examine(walk, grant, servers), _examine_caa(case, walk, patient))
    if case.write is None:
        findings += await hostname.examine_path(walk, grant)
    else:  # and the resolver has not been asked yet, so that it has nothing to forget
        apply = partial(_apply, case.write, case.serving)
        findings += await probe.examine(walk, apply, patient.token_id, grant, servers, zone.negative_ttl)
    return Section(grant.hostname, (*findings, *caa))


async def _apply(store: Store, serving: Serving, operation: Operation) -> None:
    (outcome,) = (await store.apply([operation], serving=serving, now=datetime.now(UTC))).outcomes
    if isinstance(outcome, ResponderError):
        raise outcome


async def _examine_caa(case: Case, walk: Walk, patient: Patient) -> list[Finding]:
    if not patient.grant.names_a_host:
        return []  # an account for names that nobody told us; what it is granted is not what a certificate names
    apexes = case.serving.apexes
    return await authorities.examine(walk, patient.grant, case.policy, apexes, wildcard=patient.wildcard)
