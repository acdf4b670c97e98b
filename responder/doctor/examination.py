"""Examines everything: the zones at the same time, then the hostnames. Sections are reported in order."""

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
from responder.doctor.service import ServiceReport
from responder.doctor.walk import Walk
from responder.errors import CannotExamine, ResponderError
from responder.names import Name
from responder.store import Operation, Store
from responder.tokens.serving import Serving
from responder.tokens.token import Grant

DEADLINE = 180.0
"""Seconds for everything. A good delegation takes one or two; one whose servers are all silent, about a minute."""


@dataclass(frozen=True, slots=True)
class Patient:
    """A hostname to examine: its grant, a token that covers it, and whether its wildcard is examined, too."""

    grant: Grant
    token_id: UUID
    wildcard: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """
    What to examine, and with which resolvers. Without *api* or *service*, that part is skipped. *serving* is what the
    whole configuration serves.

    *resolvers* are tried in order, at *resolver_port*; all other servers are queried at *port*. Test values are
    presented only if there is a store to *write* to.
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
    service: ServiceReport | None = None


async def examine(case: Case, *, waiting: Callable[[str], None], found: Callable[[Section], None]) -> list[Section]:
    """
    Examine everything: the zones and the API at the same time, then the hostnames.

    *found* is called with each section in order, as soon as it is complete; *waiting* with the server that is waited
    for. Raises `CannotExamine` if no resolver replies, or if it takes too long.
    """
    try:
        async with asyncio.timeout(DEADLINE):
            resolvers = [Server("the resolver", address, case.resolver_port) for address in case.resolvers]
            walk = await Walk.start(Asker(waiting), resolvers, case.port)
            return await _examine(case, walk, found)
    except TimeoutError:
        raise CannotExamine(
            f"the check did not finish within {DEADLINE:.0f} s: check fewer hostnames at once"
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
    """Run all at the same time, and report each in order."""
    tasks = [asyncio.create_task(examination) for examination in examinations]
    sections = []
    try:
        for task in tasks:
            sections.append(await task)
            found(sections[-1])
    finally:
        # In every case: no task may be left behind with a value that has to be cleaned up.
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
    findings, caa = await asyncio.gather(
        hostname.examine(walk, grant, servers, zone.nameservers.keys()), _examine_caa(case, walk, patient)
    )
    if case.write is None:
        findings += await hostname.examine_path(walk, grant)
    else:  # the resolver was not queried yet, so it has nothing in its cache
        apply = partial(_apply, case.write, case.serving)
        findings += await probe.examine(walk, apply, patient.token_id, grant, servers, zone.negative_ttl)
    return Section(grant.hostname, (*findings, *caa))


async def _apply(store: Store, serving: Serving, operation: Operation) -> None:
    (outcome,) = (await store.apply([operation], serving=serving, now=datetime.now(UTC))).outcomes
    if isinstance(outcome, ResponderError):
        raise outcome


async def _examine_caa(case: Case, walk: Walk, patient: Patient) -> list[Finding]:
    if not patient.grant.names_a_host:
        return []  # an account of acme-dns: its hostnames are unknown
    apexes = case.serving.apexes
    return await authorities.examine(walk, patient.grant, case.policy, apexes, wildcard=patient.wildcard)
