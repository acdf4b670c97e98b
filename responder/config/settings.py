"""
What can be set: the sections, their keys and defaults, and what makes a value or a combination of them a fault.

Nothing here knows where the values come from (see `sources`), or what they do in the modules that take them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import limits
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
    field_validator,
)

from responder.errors import Invalid, InvalidZone
from responder.names import Name
from responder.rrset import RRset, RRType
from responder.zone import Static
from responder.zonetext import parse_records, rname, soa_rdata

SOA_REFRESH, SOA_RETRY, SOA_EXPIRE = 14_400, 3_600, 1_209_600
"""Seconds. They concern secondaries only; Zonemaster finds nothing to say about these."""

STATIC_TTL = 3_600
"""Seconds: the TTL of static records that have none of their own, unless it is set."""

Address = IPv4Address | IPv6Address

Algorithm = Literal["hmac-sha256", "hmac-sha384", "hmac-sha512", "hmac-sha224", "hmac-sha1", "hmac-md5"]
"""How a DNS update may be signed (RFC 8945, section 6), the last three only if somebody asks for them."""

KEY_FILE = "tsig.key"
"""What the key file is called beside an SQLite database."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An IP address and a port to listen on; port 0 lets the system choose one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, *, example: int = 53) -> Self:
        """
        Read `192.0.2.1:53` or `[2001:db8::1]:53`; *example* is the port to propose where one is missing.

        Raises `Invalid`, also for names of hosts: a name server must not need one to start.
        """
        if (address := _address(text.strip("[]"))) is not None:
            raise Invalid(f'"{text}" has no port: write "{cls(str(address), example)}"')
        host, _, port = text.rpartition(":")
        if ":" in host and not re.fullmatch(r"\[.*\]", host):
            raise Invalid(f'"{text}" is ambiguous: write IPv6 addresses in brackets, as in "[::1]:{example}"')
        address = _address(host.strip("[]"))
        if address is None:
            raise Invalid(f'"{text}" does not start with an IP address: write one, as in "127.0.0.1:{example}"')
        if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65_535:
            raise Invalid(f'"{text}" does not end with a port: write "{cls(str(address), example)}"')
        return cls(str(address), int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_duration(text: str) -> int:
    """Seconds in *text*: a number of them, or a number with s, m, h, d or w. Raises `Invalid`."""
    match = re.fullmatch(r"([0-9]{1,9})([smhdw]?)", text)
    if match is None:
        raise Invalid(f'"{text[:40]}" is not a time: write seconds, or a number with s, m, h, d or w, as in "24h"')
    return int(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}[match[2]]


def parse_base_url(text: str) -> str:
    """A URL that paths such as `/update` can be put behind, without a slash at its end. Raises `Invalid`."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:  # brackets without an IPv6 address, or a port that is none
        parts, port = urlsplit(""), 0
    plain = re.fullmatch(r"[!-~]+", text) and not set(text) & set('@?#"\\<>')
    if not plain or parts.scheme not in ("https", "http") or not parts.hostname or port == 0:
        raise Invalid(f'"{text[:80]}" is not a URL such as "https://responder.example.com"')
    return text.rstrip("/")


class Faults(ValueError):
    """What a validator raises that has found several faults."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


def _read_by(parse: Callable[[str], object], *kinds: type, expected: str = "text in quotes") -> PlainValidator:
    """Reads text by *parse*, whose `Invalid` says what is wrong with it; values of *kinds* are good as they are."""

    def validate(value: object) -> object:
        if isinstance(value, kinds) and not isinstance(value, bool):
            return value
        if not isinstance(value, str):
            raise ValueError(f"must be {expected}")
        try:
            return parse(value)
        except Invalid as fault:
            raise ValueError(str(fault)) from None

    return PlainValidator(validate)


def _address(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _parse_address(text: str) -> Address:
    address = _address(text)
    if address is None or "%" in text:
        raise Invalid(f'"{text}" is not an IP address: write one like "192.0.2.1" or "2001:db8::1"')
    return address


def _parse_network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError:
        raise Invalid(f'"{text}" is not a network: write one like "192.0.2.0/24" or "2001:db8::/32"') from None


def _parse_identifier(text: str) -> str:
    if len(text) > 255 or not text.isascii() or not text.isprintable():
        raise Invalid("must be at most 255 printable ASCII characters")
    return text


def _parse_apex(text: str) -> Name:
    name = Name.parse(text)
    if not name.labels or name.labels[0] == b"*":
        raise Invalid(f'"{text}" cannot be a zone here: write the name that the zone above delegates to this server')
    return name


def _parse_count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise Invalid("must be a number")
    return int(text)


def _parse_hostmaster(text: str) -> str:
    rname(text)
    return text


def _parse_rate(text: str) -> str:
    try:
        limits.parse(text)
    except ValueError:
        raise Invalid(f'"{text[:40]}" is no rate: write one like "100/minute"') from None
    return text


def _parse_url(text: str) -> str:
    """A database that the store knows. Faults do not quote the URL, which may hold a password."""
    scheme, _, rest = text.partition("://")
    if scheme == "sqlite+aiosqlite":
        if not re.fullmatch(r"/[^?]*[^/?].*", rest) or ":memory:" in rest:
            raise Invalid(f'names no file: write "{_SQLITE}", or three slashes before a relative path')
    elif scheme == "postgresql+asyncpg":
        if not re.fullmatch(r"([^?]*@)?(\[[^]]*\]|[^]:/?@]*)(:[0-9]+)?/[^/?]+(\?.*)?", rest):
            raise Invalid(f'names no database: write "{_POSTGRESQL}", with %XX for what is special in the password')
    else:
        raise Invalid(f'is for no database that is supported: write "{_SQLITE}" or "{_POSTGRESQL}"')
    return text


_SQLITE = "sqlite+aiosqlite:////var/lib/responder/responder.db"
_POSTGRESQL = "postgresql+asyncpg://USER:PASSWORD@HOST/DATABASE"


def _check_not_empty(items: tuple[object, ...]) -> tuple[object, ...]:
    if not items:
        raise ValueError("must not be empty")
    return items


_NOT_EMPTY = AfterValidator(_check_not_empty)  # unlike min_length, it does not count faulty items as missing
_Text = PlainSerializer(str)
_Name = Annotated[Name, _read_by(Name.parse, Name), _Text]
_Apex = Annotated[Name, _read_by(_parse_apex, Name), _Text]
_Address = Annotated[Address, _read_by(_parse_address, IPv4Address, IPv6Address), _Text]
_Network = Annotated[IPv4Network | IPv6Network, _read_by(_parse_network, IPv4Network, IPv6Network), _Text]
_Identifier = Annotated[str, _read_by(_parse_identifier)]
_Hostmaster = Annotated[str, _read_by(_parse_hostmaster)]
_Rate = Annotated[str, _read_by(_parse_rate)]
_Url = Annotated[str, _read_by(_parse_url)]
_BaseUrl = Annotated[str, _read_by(lambda text: parse_base_url(text) if text else text)]
_Count = Annotated[int, _read_by(_parse_count, int, expected="a number")]
_Seconds = Annotated[int, _read_by(parse_duration, int, expected='seconds, or text like "24h"')]
_Ttl = Annotated[_Seconds, Field(ge=1, le=86_400)]
_Dns = Annotated[Endpoint, _read_by(Endpoint.parse, Endpoint), _Text]
_Api = Annotated[Endpoint, _read_by(partial(Endpoint.parse, example=443), Endpoint), _Text]
_Admin = Annotated[Endpoint, _read_by(partial(Endpoint.parse, example=8054), Endpoint), _Text]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ZoneSettings(_Section):
    """One zone: its name, its nameservers with their addresses (glue), its static records. TTLs are in seconds."""

    name: _Apex
    hostmaster: _Hostmaster
    txt_ttl: _Ttl = 1
    soa_ttl: _Ttl = 5
    negative_ttl: Annotated[_Seconds, Field(ge=1, le=300)] = 5
    static_ttl: _Ttl = STATIC_TTL
    records: str = ""
    nameservers: Mapping[_Name, tuple[_Address, ...]] = Field(default={}, validate_default=True)

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
        ns = RRset(self.name, RRType.NS, self.static_ttl, tuple(name.wire for name in self.nameservers))
        records = parse_records(self.records, self.name, default_ttl=self.static_ttl)
        if not any((rrset.owner, rrset.type) == (self.name, RRType.CAA) for rrset in records):
            # RFC 8659: nobody who gains a TXT in the zone shall get certificates for names in it.
            records += parse_records('@ CAA 0 issue ";"', self.name, default_ttl=self.static_ttl)
        return Static(apex=self.name, rrsets=(soa, ns, *self._glue(), *records), txt_ttl=self.txt_ttl)

    def _glue(self) -> Iterator[RRset]:
        for name, addresses in self.nameservers.items():
            for version, rrtype in ((4, RRType.A), (6, RRType.AAAA)):
                rdatas = dict.fromkeys(address.packed for address in addresses if address.version == version)
                if rdatas:
                    yield RRset(name, rrtype, self.static_ttl, tuple(rdatas))


class RateLimitSettings(_Section):
    """How many UDP replies a client network gets in a second. 0 replies: no limit."""

    replies_per_second: Annotated[_Count, Field(ge=0, le=1_000_000)] = 500
    slip: Annotated[_Count, Field(ge=0, le=100)] = 2
    exempt: tuple[_Network, ...] = ()


class UpdateSettings(_Section):
    """Whether DNS updates are taken (RFC 2136), what their keys are made from, and which algorithms sign them."""

    enabled: bool = True
    key_file: str = ""
    algorithms: Annotated[tuple[Algorithm, ...], _NOT_EMPTY] = ("hmac-sha256", "hmac-sha384", "hmac-sha512")


class DnsSettings(_Section):
    """Where DNS is answered, UDP and TCP, by how many nameserver processes, and what they tell of themselves."""

    listen: Annotated[tuple[_Dns, ...], _NOT_EMPTY] = (Endpoint("0.0.0.0", 53), Endpoint("::", 53))
    processes: Annotated[_Count, Field(ge=1, le=64)] = 1
    cookies: bool = True
    nsid: _Identifier = ""
    version: _Identifier = ""
    hostname: _Identifier = ""
    rate_limit: RateLimitSettings = RateLimitSettings()
    update: UpdateSettings = UpdateSettings()


class ApiLimitSettings(_Section):
    """
    How many requests are taken, in the notation of the `limits` library.

    *per_token* and *per_address* keep a client that runs in circles from starving the others; *failures*, of one
    address, keeps guessers and scanners from costing anything.
    """

    per_token: _Rate = "60000/minute"  # noqa: S105  # a rate
    per_address: _Rate = "120000/minute"
    failures: _Rate = "60/minute"


class RegistrationSettings(_Section):
    """
    Whether acme-dns's `/register` hands out accounts to whoever asks, from which networks (none named: any), and how
    many to one address.
    """

    enabled: bool = False
    allow_from: tuple[_Network, ...] = ()
    limit: _Rate = "10/hour"


class ApiSettings(_Section):
    """
    Where the API is served, at which URL its clients reach it ("" if nobody says), and how its TLS is made.

    What *trusted_proxies* say in `X-Forwarded-For` is believed, from nobody else.
    """

    listen: Annotated[tuple[_Api, ...], _NOT_EMPTY] = (Endpoint("0.0.0.0", 443),)
    url: _BaseUrl = ""
    tls: Literal["off"] = "off"
    trusted_proxies: tuple[_Network, ...] = ()
    limits: ApiLimitSettings = ApiLimitSettings()
    registration: RegistrationSettings = RegistrationSettings()


class AdminSettings(_Section):
    """Where health and metrics are served: to the machine itself, or to a network that is trusted."""

    listen: tuple[_Admin, ...] = (Endpoint("127.0.0.1", 8_054),)


class DatabaseSettings(_Section):
    """Where the state is kept; the URL may hold a password."""

    url: _Url = Field(_SQLITE, repr=False)
    auto_upgrade: bool = False


class ValuesSettings(_Section):
    """How long a challenge value stays if nobody cleans it up: by default, and at most if asked for. In seconds."""

    lifetime: Annotated[_Seconds, Field(ge=1)] = 86_400
    max_lifetime: Annotated[_Seconds, Field(ge=1)] = Field(604_800, validate_default=True)

    @field_validator("max_lifetime")
    @classmethod
    def _check_order(cls, max_lifetime: int, info: ValidationInfo) -> int:
        if max_lifetime < info.data.get("lifetime", 0):
            raise ValueError("is shorter than values.lifetime: raise it, or lower the other")
        return max_lifetime


class LogSettings(_Section):
    """What is logged, and how: JSON unless on a terminal (auto), always (json) or never (text)."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = "auto"


class Settings(_Section):
    """Everything that can be set. `load` reads it; its JSON form reads back as the same."""

    zones: Annotated[tuple[ZoneSettings, ...], _NOT_EMPTY]
    dns: DnsSettings = DnsSettings()
    api: ApiSettings = ApiSettings()
    admin: AdminSettings = AdminSettings()
    database: DatabaseSettings = DatabaseSettings()
    values: ValuesSettings = ValuesSettings()
    log: LogSettings = LogSettings()

    def effective(self) -> dict[str, object]:
        """What is in force, fit for JSON and for other people's eyes: the database's password is masked."""
        dump: dict[str, Any] = self.model_dump(mode="json")
        url = re.sub(r"^([^:]*://[^:/@]*:).*@", r"\1***@", self.database.url)
        dump["database"]["url"] = re.sub(r"([?&]password=)[^&]*", r"\1***", url)
        return dump

    @property
    def tsig_key_file(self) -> Path | None:
        """The file that keys of DNS updates are made from (see `keyfile`); None if nothing says where it is."""
        if self.dns.update.key_file:
            return Path(self.dns.update.key_file)
        scheme, _, rest = self.database.url.partition("://")
        if scheme == "sqlite+aiosqlite":
            return Path(rest.partition("?")[0][1:]).with_name(KEY_FILE)
        return None

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
        return warnings


def _records(text: str, data: Mapping[str, Any]) -> tuple[RRset, ...]:
    """The records of a zone of which *data* is valid so far. Raises `InvalidZone`."""
    if "name" not in data:
        return ()
    return parse_records(text, data["name"], default_ttl=data.get("static_ttl", STATIC_TTL))


def _nameserver_faults(nameservers: Mapping[Name, tuple[Address, ...]], apex: Name) -> Iterator[str]:
    if not nameservers:
        yield f'there is no nameserver: write "ns1.{apex}" = ["ITS PUBLIC ADDRESS"]'
    for name, addresses in nameservers.items():
        if name.is_within(apex) and not addresses:
            yield f'"{name}" is inside the zone and has no address: write "{name}" = ["ITS PUBLIC ADDRESS"]'
        if not name.is_within(apex) and addresses:
            yield f'"{name}" is outside the zone, where its addresses are not ours to give: write "{name}" = []'


def _clashes(nameservers: Mapping[Name, tuple[Address, ...]], records: tuple[RRset, ...]) -> Iterator[str]:
    for owner, rrtype in ((rrset.owner, rrset.type) for rrset in records if rrset.owner in nameservers):
        if rrtype in (RRType.A, RRType.AAAA):
            name = RRType(rrtype).name
            yield f'"{owner}" gets its addresses from [zones.nameservers]: remove its {name} from records'
        if rrtype == RRType.CNAME:
            yield f'"{owner}" has a CNAME in records, but no nameserver may (RFC 2181, section 10.3): remove it'
