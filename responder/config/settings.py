"""
What can be set: the sections, their keys and defaults, and what makes a value or a combination of them a fault.

Nothing here knows where the values come from (see `sources`), or what they do in the modules that take them.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from responder.config.api import ApiSettings
from responder.config.fields import (
    NOT_EMPTY,
    SQLITE_URL,
    Address,
    AddressField,
    AdminEndpoint,
    Apex,
    Count,
    DatabaseUrl,
    DnsEndpoint,
    Endpoint,
    Faults,
    Hostmaster,
    Identifier,
    ListenUrl,
    NameField,
    NetworkField,
    Seconds,
    Section,
    Ttl,
)
from responder.dns.rrset import MAX_RRSET, RRset, RRType
from responder.dns.zone import Static
from responder.dns.zonetext import parse_records, rname, soa_rdata
from responder.errors import InvalidHostname, InvalidZone
from responder.names import Name
from responder.tokens.hostname import parse_hostname, zone_of
from responder.tokens.serving import Serving

SOA_REFRESH, SOA_RETRY, SOA_EXPIRE = 14_400, 3_600, 1_209_600
"""Seconds. They concern secondaries only; Zonemaster finds nothing to say about these."""

STATIC_TTL = 3_600
"""Seconds: the TTL of static records that have none of their own, unless it is set."""

Algorithm = Literal["hmac-sha256", "hmac-sha384", "hmac-sha512", "hmac-sha224", "hmac-sha1", "hmac-md5"]
"""How a DNS update may be signed (RFC 8945, section 6), the last three only if somebody asks for them."""

KEY_FILE = "tsig.key"
"""What the key file is called beside an SQLite database."""


class ZoneSettings(Section):
    """One zone: its name, its nameservers with their addresses (glue), its static records. TTLs are in seconds."""

    name: Apex
    hostmaster: Hostmaster
    txt_ttl: Annotated[Seconds, Field(ge=0, le=86_400)] = 0
    soa_ttl: Ttl = 5
    negative_ttl: Annotated[Seconds, Field(ge=1, le=300)] = 1
    static_ttl: Ttl = STATIC_TTL
    records: str = ""
    nameservers: Mapping[NameField, tuple[AddressField, ...]] = Field(default={}, validate_default=True)

    @field_validator("records")
    @classmethod
    def _check_records(cls, text: str, info: ValidationInfo) -> str:
        try:
            _records(text, info.data)
        except InvalidZone as fault:
            raise Faults(fault.faults) from None
        return text

    @field_validator("nameservers")
    @classmethod
    def _check_nameservers(
        cls, nameservers: Mapping[Name, tuple[Address, ...]], info: ValidationInfo
    ) -> Mapping[Name, tuple[Address, ...]]:
        if "name" in info.data:
            records = _records(info.data.get("records", ""), info.data)
            faults = (*_nameserver_faults(nameservers, info.data["name"]), *_clashes(nameservers, records))
            if faults:
                raise Faults(faults)
        return nameservers

    @cached_property
    def static(self) -> Static:
        """The zone's records: the SOA first, with serial 0, then what the nameservers make, then the rest."""
        mname = next(iter(self.nameservers))
        times = SOA_REFRESH, SOA_RETRY, SOA_EXPIRE, self.negative_ttl
        soa = RRset(self.name, RRType.SOA, self.soa_ttl, (soa_rdata(mname, rname(self.hostmaster), 0, *times),))
        ns, *glue = _nameserver_rrsets(self.name, self.nameservers, self.static_ttl)
        records = parse_records(self.records, self.name, default_ttl=self.static_ttl)
        if not any((rrset.owner, rrset.type) == (self.name, RRType.CAA) for rrset in records):
            # RFC 8659: nobody who gains a TXT in the zone shall get certificates for names in it.
            records += parse_records('@ CAA 0 issue ";"', self.name, default_ttl=self.static_ttl)
        return Static(apex=self.name, rrsets=(soa, ns, *glue, *records), txt_ttl=self.txt_ttl)


class RateLimitSettings(Section):
    """How many UDP replies a client network gets in a second. 0 replies: no limit."""

    replies_per_second: Annotated[Count, Field(ge=0, le=1_000_000)] = 500
    slip: Annotated[Count, Field(ge=0, le=100)] = 2
    exempt: tuple[NetworkField, ...] = ()


class UpdateSettings(Section):
    """Whether DNS updates are taken (RFC 2136), what their keys are made from, and which algorithms sign them."""

    enabled: bool = True
    key_file: str = ""
    algorithms: Annotated[tuple[Algorithm, ...], NOT_EMPTY] = ("hmac-sha256", "hmac-sha384", "hmac-sha512")


class DnsSettings(Section):
    """Where DNS is answered, UDP and TCP, by how many nameserver processes, and what they tell of themselves."""

    listen: Annotated[tuple[DnsEndpoint, ...], NOT_EMPTY] = (Endpoint("0.0.0.0", 53), Endpoint("::", 53))
    free_bind: bool = False
    processes: Annotated[Count, Field(ge=1, le=64)] = 1
    spare: bool = True
    user: str = ""
    realtime: bool = False
    cookies: bool = True
    nsid: Identifier = ""
    version: Identifier = ""
    hostname: Identifier = ""
    rate_limit: RateLimitSettings = RateLimitSettings()
    update: UpdateSettings = UpdateSettings()


class AdminSettings(Section):
    """Where health and metrics are served: to the machine itself, or to a network that is trusted."""

    listen: tuple[AdminEndpoint, ...] = (Endpoint("127.0.0.1", 8_054),)
    free_bind: bool = False


class DatabaseSettings(Section):
    """Where the state is kept; the URL may hold a password."""

    url: DatabaseUrl = Field(SQLITE_URL, repr=False)
    listen_url: ListenUrl = Field("", repr=False)
    auto_upgrade: bool = False

    @property
    def path(self) -> Path | None:
        """The file that it is; None if it is no file."""
        scheme, _, rest = self.url.partition("://")
        return Path(rest[1:]) if scheme == "sqlite+aiosqlite" else None

    @property
    def shown_url(self) -> str:
        """The URL, fit for other people's eyes."""
        return _masked(self.url)


class NodeSettings(Section):
    """
    This service among those on the same database: its *name* there (by default, that of the machine), the *address*
    that an administrator finds it by, and its *lease*, in seconds: other nodes wait as long for one that is silent.
    """

    name: Annotated[Identifier, Field(validate_default=True)] = ""
    address: Identifier = ""
    lease: Annotated[Seconds, Field(ge=3, le=60)] = 5

    @field_validator("name")
    @classmethod
    def _default_name(cls, name: str) -> str:
        return name or socket.gethostname()


class PropagationSettings(Section):
    """
    What a change waits for: *deadline* seconds for every live node. If one is late, its caller gets 503 (live), or 200
    with the names of those that serve it (any).
    """

    require: Literal["live", "any"] = "live"
    deadline: Annotated[float, Field(ge=0.1, le=8)] = 2.0


class ValuesSettings(Section):
    """How long a challenge value stays if nobody cleans it up: by default, and at most if asked for. In seconds."""

    lifetime: Annotated[Seconds, Field(ge=1)] = 86_400
    max_lifetime: Annotated[Seconds, Field(ge=1)] = Field(604_800, validate_default=True)

    @field_validator("max_lifetime")
    @classmethod
    def _check_order(cls, max_lifetime: int, info: ValidationInfo) -> int:
        if max_lifetime < info.data.get("lifetime", 0):
            raise ValueError("is shorter than values.lifetime: raise it, or lower the other")
        return max_lifetime


class LogSettings(Section):
    """What is logged, and how: JSON unless on a terminal (auto), always (json) or never (text)."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = "auto"


class Settings(Section):
    """Everything that can be set. `load` reads it; its JSON form reads back as the same."""

    zones: Annotated[tuple[ZoneSettings, ...], NOT_EMPTY]
    dns: DnsSettings = DnsSettings()
    api: ApiSettings = ApiSettings()
    admin: AdminSettings = AdminSettings()
    database: DatabaseSettings = DatabaseSettings()
    node: NodeSettings = NodeSettings()
    propagation: PropagationSettings = PropagationSettings()
    values: ValuesSettings = ValuesSettings()
    log: LogSettings = LogSettings()

    @field_validator("api")
    @classmethod
    def _check_host(cls, api: ApiSettings, info: ValidationInfo) -> ApiSettings:
        if api.tls != "acme" or api.hostname is None or "zones" not in info.data:
            return api
        if faults := tuple(_host_faults(api.hostname, info.data["zones"])):
            raise Faults(faults, ("hostname",))
        return api

    @cached_property
    def statics(self) -> tuple[Static, ...]:
        """The records of all zones, and the CAA that lets the API's own host have a certificate."""
        return tuple(_allow_api(zone.static, self.api) for zone in self.zones)

    @cached_property
    def digests(self) -> dict[Name, str]:
        """The apex of each zone, with the digest of its static records."""
        return {static.apex: static.digest for static in self.statics}

    @cached_property
    def serving(self) -> Serving:
        """Which zones are served, and where no value can be."""
        rrsets = [rrset for static in self.statics for rrset in static.rrsets]
        return Serving(
            apexes=frozenset(static.apex for static in self.statics),
            aliases=frozenset(rrset.owner for rrset in rrsets if rrset.type == RRType.CNAME),
        )

    def effective(self) -> dict[str, object]:
        """What is in force, fit for JSON and for other people's eyes: the database's password is masked."""
        dump: dict[str, Any] = self.model_dump(mode="json")
        for key in ("url", "listen_url"):
            dump["database"][key] = _masked(dump["database"][key])
        return dump

    @property
    def tsig_key_file(self) -> Path | None:
        """The file that keys of DNS updates are made from (see `keyfile`); None if nothing says where it is."""
        if self.dns.update.key_file:
            return Path(self.dns.update.key_file)
        return self.database.path.with_name(KEY_FILE) if self.database.path is not None else None

    def warnings(self) -> list[str]:
        """What is allowed, but leaves something out or will not work on the Internet."""
        warnings = [
            f"zones[{index}].nameservers: {address} of {name} is not a public address: no CA will ever ask there"
            for index, zone in enumerate(self.zones)
            for name, addresses in zone.nameservers.items()
            for address in addresses
            if not address.is_global or address.is_multicast
        ]
        if self.dns.update.enabled and self.tsig_key_file is None:
            warnings.append(
                "dns.update: there are no DNS updates, for nothing says where their key is: name a file in "
                "dns.update.key_file (on every node the same one), or set dns.update.enabled = false"
            )
        return warnings + self.api.warnings()


def _masked(url: str) -> str:
    """*url* without its password."""
    return re.sub(r"([?&]password=)[^&]*", r"\1***", re.sub(r"^([^:]*://[^:/@]*:).*@", r"\1***@", url))


def _host_faults(hostname: Name, zones: tuple[ZoneSettings, ...]) -> Iterator[str]:
    """What keeps *hostname* from getting a certificate through our own zones, with a CAA of its own."""
    # At the top of a zone, its CAA would speak for every name in it.
    apex = zone_of(hostname, (zone.name for zone in zones))
    if apex in (None, hostname):
        yield f'"{hostname}" must be a name below a zone of ours, such as "api.{zones[0].name}"'
        return
    rrsets = (rrset for zone in zones for rrset in zone.static.rrsets)
    if any(rrset.type == RRType.CNAME and rrset.owner == hostname for rrset in rrsets):
        yield f'"{hostname}" is a CNAME in the records of its zone: give it addresses instead'
    try:
        parse_hostname(str(hostname))
    except InvalidHostname as fault:
        yield str(fault)


def _allow_api(static: Static, api: ApiSettings) -> Static:
    """*static*, with a CAA for the API's own host if its records have none: the zone's says that nobody may issue."""
    caa = api.caa_records()
    if not caa or api.hostname is None or not api.hostname.is_within(static.apex):
        return static
    if any((rrset.owner, rrset.type) == (api.hostname, RRType.CAA) for rrset in static.rrsets):
        return static
    return replace(static, rrsets=(*static.rrsets, *parse_records(caa, static.apex, default_ttl=STATIC_TTL)))


def _records(text: str, data: Mapping[str, Any]) -> tuple[RRset, ...]:
    """The records of a zone of which *data* is valid so far. Raises `InvalidZone`."""
    if "name" not in data:
        return ()
    return parse_records(text, data["name"], default_ttl=data.get("static_ttl", STATIC_TTL))


def _nameserver_rrsets(apex: Name, nameservers: Mapping[Name, tuple[Address, ...]], ttl: int) -> Iterator[RRset]:
    """What the nameservers of a zone make: its NS records, then their addresses."""
    yield RRset(apex, RRType.NS, ttl, tuple(name.wire for name in nameservers))
    for name, addresses in nameservers.items():
        for version, rrtype in ((4, RRType.A), (6, RRType.AAAA)):
            rdatas = dict.fromkeys(address.packed for address in addresses if address.version == version)
            if rdatas:
                yield RRset(name, rrtype, ttl, tuple(rdatas))


def _nameserver_faults(nameservers: Mapping[Name, tuple[Address, ...]], apex: Name) -> Iterator[str]:
    if not nameservers:
        yield f'there is no nameserver: write "ns1.{apex}" = ["ITS PUBLIC ADDRESS"]'
    for name, addresses in nameservers.items():
        if b"*" in name.labels:
            yield f'"{name}" is not the name of a host'
        if name.is_within(apex) and not addresses:
            yield f'"{name}" is inside the zone and has no address: write "{name}" = ["ITS PUBLIC ADDRESS"]'
        if not name.is_within(apex) and addresses:
            yield f'"{name}" is outside the zone, where its addresses are not ours to give: write "{name}" = []'
    for rrset in _nameserver_rrsets(apex, nameservers, STATIC_TTL):
        if rrset.octets > MAX_RRSET:
            what = f'{len(rrset.rdatas)} {RRType(rrset.type).name} records of "{rrset.owner}"'
            yield f"no reply can hold the {what}: remove some of them"


def _clashes(nameservers: Mapping[Name, tuple[Address, ...]], records: tuple[RRset, ...]) -> Iterator[str]:
    for owner, rrtype in ((rrset.owner, rrset.type) for rrset in records if rrset.owner in nameservers):
        if rrtype in (RRType.A, RRType.AAAA):
            name = RRType(rrtype).name
            yield f'"{owner}" gets its addresses from [zones.nameservers]: remove its {name} from records'
        if rrtype == RRType.CNAME:
            yield f'"{owner}" has a CNAME in records, but no nameserver may (RFC 2181, section 10.3): remove it'
