"""
The settings: their sections, keys and defaults, and which values and combinations of values are invalid.

Nothing here knows where the values come from (see `sources`), or how other modules use them.
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
    SettingsSection,
    Ttl,
    WholeNumber,
)
from responder.config.nameservers import clashes, nameserver_faults, nameserver_rrsets
from responder.dns.rrset import RRset, RRType
from responder.dns.zone import Static
from responder.dns.zonetext import parse_records, rname, soa_rdata
from responder.errors import InvalidHostname, InvalidZone
from responder.names import Name
from responder.tokens.hostname import parse_hostname, zone_of
from responder.tokens.serving import Serving

SOA_REFRESH, SOA_RETRY, SOA_EXPIRE = 14_400, 3_600, 1_209_600
"""Seconds, for secondaries only. Zonemaster accepts these values without a remark."""

STATIC_TTL = 3_600
"""Seconds: the default TTL of static records."""

Algorithm = Literal["hmac-sha256", "hmac-sha384", "hmac-sha512", "hmac-sha224", "hmac-sha1", "hmac-md5"]
"""How a DNS update may be signed (RFC 8945, section 6), the last three only if they are set."""

KEY_FILE = "tsig.key"
"""Name of the key file in the directory of an SQLite database."""


class ZoneSettings(SettingsSection):
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
            faults = (*nameserver_faults(nameservers, info.data["name"]), *clashes(nameservers, records))
            if faults:
                raise Faults(faults)
        return nameservers

    @cached_property
    def static(self) -> Static:
        """The zone's records: the SOA first, with serial 0, then what the nameservers make, then the rest."""
        mname = next(iter(self.nameservers))
        times = SOA_REFRESH, SOA_RETRY, SOA_EXPIRE, self.negative_ttl
        soa = RRset(self.name, RRType.SOA, self.soa_ttl, (soa_rdata(mname, rname(self.hostmaster), 0, *times),))
        ns, *glue = nameserver_rrsets(self.name, self.nameservers, self.static_ttl)
        records = parse_records(self.records, self.name, default_ttl=self.static_ttl)
        if not any((rrset.owner, rrset.type) == (self.name, RRType.CAA) for rrset in records):
            # RFC 8659: who can set a TXT record in the zone must not get certificates for names in it.
            records += parse_records('@ CAA 0 issue ";"', self.name, default_ttl=self.static_ttl)
        return Static(apex=self.name, rrsets=(soa, ns, *glue, *records), txt_ttl=self.txt_ttl)


class RateLimitSettings(SettingsSection):
    """How many UDP replies a client network gets in a second; 0 means no limit."""

    replies_per_second: Annotated[WholeNumber, Field(ge=0, le=1_000_000)] = 500
    slip: Annotated[WholeNumber, Field(ge=0, le=100)] = 2
    exempt: tuple[NetworkField, ...] = ()


class UpdateSettings(SettingsSection):
    """Whether DNS updates are accepted (RFC 2136), the file for their keys, and the algorithms of their signatures."""

    enabled: bool = True
    key_file: str = ""
    algorithms: Annotated[tuple[Algorithm, ...], NOT_EMPTY] = ("hmac-sha256", "hmac-sha384", "hmac-sha512")


class DnsSettings(SettingsSection):
    """Where DNS is served, by how many nameserver processes, and what these report about themselves."""

    listen: Annotated[tuple[DnsEndpoint, ...], NOT_EMPTY] = (Endpoint("0.0.0.0", 53), Endpoint("::", 53))
    free_bind: bool = False
    processes: Annotated[WholeNumber, Field(ge=1, le=64)] = 1
    spare: bool = True
    user: str = ""
    realtime: bool = False
    cookies: bool = True
    nsid: Identifier = ""
    version: Identifier = ""
    hostname: Identifier = ""
    rate_limit: RateLimitSettings = RateLimitSettings()
    update: UpdateSettings = UpdateSettings()


class AdminSettings(SettingsSection):
    """Where health and metrics are served: to this machine, or to a trusted network."""

    listen: tuple[AdminEndpoint, ...] = (Endpoint("127.0.0.1", 8_054),)
    free_bind: bool = False


class DatabaseSettings(SettingsSection):
    """Where the state is stored; the URL may hold a password."""

    url: DatabaseUrl = Field(SQLITE_URL, repr=False)
    listen_url: ListenUrl = Field("", repr=False)
    auto_upgrade: bool = False

    @property
    def path(self) -> Path | None:
        """The file of an SQLite database; None for PostgreSQL."""
        scheme, _, rest = self.url.partition("://")
        return Path(rest[1:]) if scheme == "sqlite+aiosqlite" else None

    @property
    def shown_url(self) -> str:
        """The URL without its password, for output."""
        return _masked(self.url)


class NodeSettings(SettingsSection):
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


class PropagationSettings(SettingsSection):
    """
    What a change waits for: *deadline* seconds for every live node. If one is late, its caller gets 503 (live), or 200
    with the names of those that serve it (any).
    """

    require: Literal["live", "any"] = "live"
    deadline: Annotated[float, Field(ge=0.1, le=8)] = 2.0


class ValuesSettings(SettingsSection):
    """Seconds after which a challenge value expires: by default, and the most that a client may request."""

    lifetime: Annotated[Seconds, Field(ge=1)] = 86_400
    max_lifetime: Annotated[Seconds, Field(ge=1)] = Field(604_800, validate_default=True)

    @field_validator("max_lifetime")
    @classmethod
    def _check_order(cls, max_lifetime: int, info: ValidationInfo) -> int:
        if max_lifetime < info.data.get("lifetime", 0):
            raise ValueError("is less than values.lifetime: raise it, or lower values.lifetime")
        return max_lifetime


class LogSettings(SettingsSection):
    """What is logged, and how: JSON unless on a terminal (auto), always (json) or never (text)."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = "auto"


class Settings(SettingsSection):
    """All settings. `load` reads them; their JSON form can be read again."""

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
        """The records of all zones, with the CAA record that allows a certificate for the API's own host."""
        return tuple(_allow_api(zone.static, self.api) for zone in self.zones)

    @cached_property
    def digests(self) -> dict[Name, str]:
        """The apex of each zone, with the digest of its static records."""
        return {static.apex: static.digest for static in self.statics}

    @cached_property
    def serving(self) -> Serving:
        """Which zones are served, and the names that cannot have values."""
        rrsets = [rrset for static in self.statics for rrset in static.rrsets]
        return Serving(
            apexes=frozenset(static.apex for static in self.statics),
            aliases=frozenset(rrset.owner for rrset in rrsets if rrset.type == RRType.CNAME),
        )

    def effective(self) -> dict[str, object]:
        """The values in force, for JSON, with the password of the database masked."""
        dump: dict[str, Any] = self.model_dump(mode="json")
        for key in ("url", "listen_url"):
            dump["database"][key] = _masked(dump["database"][key])
        return dump

    @property
    def tsig_key_file(self) -> Path | None:
        """The file that keys of DNS updates are made from (see `keyfile`); None if it is not set."""
        if self.dns.update.key_file:
            return Path(self.dns.update.key_file)
        return self.database.path.with_name(KEY_FILE) if self.database.path is not None else None

    def warnings(self) -> list[str]:
        """Settings that are valid, but disable something or do not work on the internet."""
        warnings = [
            f"zones[{index}].nameservers: {address} of {name} is not a public address: CAs cannot reach it"
            for index, zone in enumerate(self.zones)
            for name, addresses in zone.nameservers.items()
            for address in addresses
            if not address.is_global or address.is_multicast
        ]
        if self.dns.update.enabled and self.tsig_key_file is None:
            warnings.append(
                "dns.update: DNS updates are disabled: no key file is configured: name one in dns.update.key_file "
                "(the same on every node), or set dns.update.enabled = false"
            )
        return warnings + self.api.warnings()


def _masked(url: str) -> str:
    """*url* without its password."""
    return re.sub(r"([?&]password=)[^&]*", r"\1***", re.sub(r"^([^:]*://[^:?]*:).*@", r"\1***@", url))


def _host_faults(hostname: Name, zones: tuple[ZoneSettings, ...]) -> Iterator[str]:
    """Why *hostname* cannot get a certificate through our own zones, with a CAA record of its own."""
    # At the apex of a zone, its CAA would apply to all names in the zone.
    apex = zone_of(hostname, (zone.name for zone in zones))
    if apex in (None, hostname):
        yield f'"{hostname}" must be a name below a zone of ours, such as "api.{zones[0].name}"'
        return
    types = {rrset.type for zone in zones for rrset in zone.static.rrsets if rrset.owner == hostname}
    if RRType.CNAME in types:
        yield f'"{hostname}" is a CNAME in the records of its zone: give it addresses instead'
    elif not types & {RRType.A, RRType.AAAA}:
        yield f'"{hostname}" has no address in the records of its zone: add one to zones.records'
    try:
        parse_hostname(str(hostname))
    except InvalidHostname as fault:
        yield str(fault)


def _allow_api(static: Static, api: ApiSettings) -> Static:
    """*static*, with a CAA for the API's own host if it has none: the CAA of the zone forbids issuance."""
    caa = api.caa_records()
    if not caa or api.hostname is None or not api.hostname.is_within(static.apex):
        return static
    if any((rrset.owner, rrset.type) == (api.hostname, RRType.CAA) for rrset in static.rrsets):
        return static
    return replace(static, rrsets=(*static.rrsets, *parse_records(caa, static.apex, default_ttl=STATIC_TTL)))


def _records(text: str, data: Mapping[str, Any]) -> tuple[RRset, ...]:
    """The records of a zone; *data* is its valid settings so far. Raises `InvalidZone`."""
    if "name" not in data:
        return ()
    return parse_records(text, data["name"], default_ttl=data.get("static_ttl", STATIC_TTL))
