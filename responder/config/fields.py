"""
The types of single settings, such as endpoints, durations, names and addresses, and the errors about them.

`settings` and `api` use them; nothing here knows which setting a value belongs to.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

import limits
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator

from responder.addresses import Address as Address
from responder.addresses import Network, host_text
from responder.dns.zonetext import UNITS, rname
from responder.errors import Invalid
from responder.names import Name
from responder.tokens.network import network_fault, parse_network

SQLITE_URL = "sqlite+aiosqlite:////var/lib/responder/responder.db"
POSTGRESQL_URL = "postgresql+asyncpg://USER:PASSWORD@HOST/DATABASE"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An IP address and a port to listen on; port 0 lets the system choose one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, *, example: int = 53) -> Self:
        """
        Read `192.0.2.1:53` or `[2001:db8::1]:53`; *example* is the port that errors propose if it is missing.

        Raises `Invalid`, also for names of hosts, because a nameserver must not need DNS to start.
        """
        if "%" in text:  # RFC 4007, section 11; to Python, such a zone may be any text, a port included
            raise Invalid(
                f'"{text}" has an interface after "%", which is not supported: write an address without it, '
                f'such as "[::]:{example}", which includes link-local addresses'
            )
        if (address := _address(text.strip("[]"))) is not None:
            host, _, port = text.rpartition(":")
            if ":" in host and _address(host) is not None and port.isdecimal():
                both = f'"{cls(host, int(port))}" or "{cls(text, example)}"'
                raise Invalid(f'"{text}" is ambiguous: write IPv6 addresses in brackets, as in {both}')
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

    @property
    def reachable(self) -> Endpoint:
        """The endpoint by which this machine itself reaches what listens here."""
        return Endpoint({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host), self.port)

    def __str__(self) -> str:
        return f"{host_text(self.host)}:{self.port}"


def parse_duration(text: str) -> int:
    """Seconds in *text*: a number of them, or a number with s, m, h, d or w. Raises `Invalid`."""
    match = re.fullmatch(r"([0-9]{1,9})([smhdw]?)", text)
    if match is None:
        raise Invalid(f'"{text[:40]}" is not a time: write seconds, or a number with s, m, h, d or w, as in "24h"')
    return int(match[1]) * UNITS[match[2]]


def parse_base_url(text: str) -> str:
    """The base URL of an API, without a slash at its end. Raises `Invalid`."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:  # brackets without an IPv6 address, or an invalid port
        parts, port = urlsplit(""), 0
    plain = re.fullmatch(r"[!-~]+", text) and not set(text) & set('@?#"\\<>')
    if not plain or parts.scheme not in ("https", "http") or not parts.hostname or port == 0:
        raise Invalid(f'"{text[:80]}" is not a URL such as "https://responder.example.com"')
    return text.rstrip("/")


class Faults(ValueError):
    """Raised by a validator for several faults, or for faults in the key *within* the value that it validates."""

    def __init__(self, faults: tuple[str, ...], within: tuple[str, ...] = ()) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults
        self.within = within


def read_by(
    parse: Callable[[str], object], *kinds: type, expected: str = "text in quotes", written: Any = str
) -> PlainValidator:
    """
    Parse text with *parse*, whose `Invalid` explains the fault. Values of *kinds* are valid as they are; *written* is
    what the JSON schema has.
    """

    def validate(value: object) -> object:
        if isinstance(value, kinds) and not isinstance(value, bool):
            return value
        if not isinstance(value, str):
            raise ValueError(f"must be {expected}")
        try:
            value.encode()  # JSON can hold half of a surrogate pair, which is not valid Unicode
            return parse(value)
        except UnicodeEncodeError:
            raise ValueError("is not valid Unicode") from None
        except Invalid as fault:
            raise ValueError(str(fault)) from None

    return PlainValidator(validate, json_schema_input_type=written)


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


def _parse_network(text: str) -> Network:
    try:
        return parse_network(text)
    except ValueError:
        raise Invalid(network_fault(text)) from None


def _parse_listen_url(text: str) -> str:
    """A URL of PostgreSQL; "" for the same database; "off" for none."""
    if text in ("", "off"):
        return text
    if not text.startswith("postgresql+asyncpg://"):
        raise Invalid(f'is not a URL of PostgreSQL: write it as "{POSTGRESQL_URL}", or "off" to disable it')
    return _parse_url(text)


def _parse_header(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", text):
        raise Invalid(f'"{text[:40]}" is not the name of a header: write one like "X-Forwarded-For"')
    return text


def _parse_identifier(text: str) -> str:
    if len(text) > 255 or not text.isascii() or not text.isprintable():
        raise Invalid("must be at most 255 printable ASCII characters")
    return text


_ZONE_LABEL = re.compile(rb"[a-z0-9_-]+")
_HOST_LABEL = re.compile(rb"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
"""RFC 1123, section 2.1."""


def is_host(name: Name) -> bool:
    """Whether *name* can be that of a host on the Internet: more than one label, and no address."""
    labels = name.labels
    return len(labels) > 1 and all(map(_HOST_LABEL.fullmatch, labels)) and not labels[-1].isdigit()


def without_url(text: str) -> Name:
    """The host in *text*, which may be a URL, or have a port or a path."""
    host = text.partition("://")[2] or text
    return Name.parse(re.split("[:/]", host, maxsplit=1)[0] or ".")


def _parse_apex(text: str) -> Name:
    name = Name.parse(text)
    if name.labels and all(map(_ZONE_LABEL.fullmatch, name.labels)) and not name.labels[-1].isdigit():
        return name
    if is_host(meant := without_url(text)):
        raise Invalid(f'"{text}" is not the name of a zone: write "{meant}"')
    raise Invalid(f'"{text}" cannot be a zone here: write the name that the zone above delegates to this server')


def _parse_count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise Invalid("must be a number")
    return int(text)


def _parse_hostmaster(text: str) -> str:
    rname(text)
    return text


def _parse_rate(text: str) -> str:
    try:
        rates = limits.parse_many(text)
    except ValueError:
        rates = []
    if len(rates) != 1 or rates[0].amount < 1:  # 0 rejects all clients, and of several only the first counts
        raise Invalid(f'"{text[:40]}" is not a rate: write one like "100/minute"')
    return text


def _parse_url(text: str) -> str:
    """The URL of a supported database. Errors do not quote it, because it may hold a password."""
    scheme, _, rest = text.partition("://")
    if scheme == "sqlite+aiosqlite":
        if not re.fullmatch(r"/[^?]*[^/?].*", rest) or ":memory:" in rest:
            raise Invalid(f'names no file: write "{SQLITE_URL}", or three slashes before a relative path')
        if "?" in rest:
            raise Invalid('has a "?" after the path, but SQLite takes no options here: remove it and what follows')
    elif scheme == "postgresql+asyncpg":
        if not re.fullmatch(r"([^:/?@]*(:[^?@]*)?@)?(\[[^]@]*\]|[^]:/?@]*)(:[0-9]+)?/[^/?@]+(\?.*)?", rest):
            raise Invalid(f'names no database: write "{POSTGRESQL_URL}", with %XX for special characters in it')
    else:
        raise Invalid(f'is not a URL of a supported database: write "{SQLITE_URL}" or "{POSTGRESQL_URL}"')
    return text


def _parse_host(text: str) -> Name | None:
    """The name of a host; None for ""."""
    if not text:
        return None
    name = Name.parse(text)
    if name.labels and all(map(_HOST_LABEL.fullmatch, name.labels)):
        return name
    example = meant if is_host(meant := without_url(text)) else "responder.example.com"
    raise Invalid(f'"{text}" is not the name of a host: write it like "{example}"')


def _check_not_empty(items: tuple[object, ...]) -> tuple[object, ...]:
    if not items:
        raise ValueError("must not be empty")
    return items


NOT_EMPTY = AfterValidator(_check_not_empty)  # unlike min_length, it does not count faulty items as missing
AsText = PlainSerializer(str)
NameField = Annotated[Name, read_by(Name.parse, Name), AsText]
Apex = Annotated[Name, read_by(_parse_apex, Name), AsText]
_MaybeText = PlainSerializer(lambda name: str(name or ""))
HostField = Annotated[Name | None, read_by(_parse_host, Name, type(None)), _MaybeText]
AddressField = Annotated[Address, read_by(_parse_address, IPv4Address, IPv6Address), AsText]
NetworkField = Annotated[Network, read_by(_parse_network, IPv4Network, IPv6Network), AsText]
Identifier = Annotated[str, read_by(_parse_identifier)]
HeaderField = Annotated[str, read_by(_parse_header)]
Hostmaster = Annotated[str, read_by(_parse_hostmaster)]
Rate = Annotated[str, read_by(_parse_rate)]
DatabaseUrl = Annotated[str, read_by(_parse_url)]
ListenUrl = Annotated[str, read_by(_parse_listen_url)]
BaseUrl = Annotated[str, read_by(lambda text: parse_base_url(text) if text else text)]
_Number = int | Annotated[str, Field(pattern="^[0-9]{1,9}$")]
_Time = int | Annotated[str, Field(pattern="^[0-9]{1,9}[smhdw]?$")]
WholeNumber = Annotated[int, read_by(_parse_count, int, expected="a number", written=_Number)]
Seconds = Annotated[int, read_by(parse_duration, int, expected='seconds, or text like "24h"', written=_Time)]
Ttl = Annotated[Seconds, Field(ge=1, le=86_400)]
DnsEndpoint = Annotated[Endpoint, read_by(Endpoint.parse, Endpoint), AsText]
ApiEndpoint = Annotated[Endpoint, read_by(partial(Endpoint.parse, example=443), Endpoint), AsText]
AdminEndpoint = Annotated[Endpoint, read_by(partial(Endpoint.parse, example=8054), Endpoint), AsText]


class SettingsSection(BaseModel):
    """A table of the configuration file."""

    model_config = ConfigDict(frozen=True, extra="forbid")
