"""The settings of the API: where it listens, how it gets its certificate, and how much each client may do."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from responder.config.fields import (
    NOT_EMPTY,
    ApiEndpoint,
    BaseUrl,
    Endpoint,
    HeaderField,
    HostField,
    NetworkField,
    Rate,
    Seconds,
    SettingsSection,
    read_by,
)
from responder.errors import Invalid
from responder.names import Name

DIRECTORIES = {
    "letsencrypt": "https://acme-v02.api.letsencrypt.org/directory",
    "letsencrypt-staging": "https://acme-staging-v02.api.letsencrypt.org/directory",
}
"""Short names of CAs, and the URLs of their directories."""

CAA_IDENTITIES = dict.fromkeys(DIRECTORIES.values(), "letsencrypt.org; validationmethods=dns-01")
"""The value of a CAA record that allows these CAs to issue (RFC 8659, section 4.2; RFC 8657, section 4)."""


CAA_WARNING = (
    "api.acme.caa: is not set, so the CAA records allow no CA to issue for api.hostname: write one of the "
    "caaIdentities in the directory of this CA"
)


def parse_directory(text: str) -> str:
    """The URL of the ACME directory that *text* is, or is the short name of. Raises `Invalid`."""
    url = DIRECTORIES.get(text, text)
    if not re.fullmatch(r"https://[!-~]+", url):
        raise Invalid(
            f'"{text}" is not a CA: write {", ".join(DIRECTORIES)}, or the https:// URL of its ACME directory'
        )
    return url


def parse_contact(text: str) -> str:
    """An e-mail address, or nothing. Raises `Invalid`."""
    if text and not re.fullmatch(r"[!-+\--?A-~]+@[!-+\--?A-~]+", text):
        raise Invalid(f'"{text}" is not an e-mail address: write one like "admin@example.com"')
    return text


def _parse_caa(text: str) -> str:
    if not re.fullmatch(r'[^"\\\x00-\x1f\x7f-\U0010ffff]{0,200}', text):
        raise Invalid('must be as in a CAA record, without quotes, such as "ca.example.net; validationmethods=dns-01"')
    return text


def _parse_resolver(text: str) -> str:
    """The address of a resolver, "none", or "" for those of the machine. Raises `Invalid`."""
    if text in ("", "none"):
        return text
    try:
        return str(ip_address(text))
    except ValueError:
        raise Invalid(f'"{text}" is not the IP address of a resolver: write one, or "none"') from None


class AcmeSettings(SettingsSection):
    """
    The CA of the API's own certificate. *directory* is always a URL, also if the file has its short name. *resolver* is
    asked whether the zone is delegated: "" means those of the machine, and "none" that the delegation is not looked at.
    """

    directory: Annotated[str, read_by(parse_directory)] = DIRECTORIES["letsencrypt"]
    contact: Annotated[str, read_by(parse_contact)] = ""
    eab_kid: str = ""
    eab_hmac_key_file: str = Field("", validate_default=True)
    ca_file: str = ""
    caa: Annotated[str, read_by(_parse_caa)] = ""
    resolver: Annotated[str, read_by(_parse_resolver)] = ""

    @field_validator("eab_hmac_key_file")
    @classmethod
    def _check_eab(cls, path: str, info: ValidationInfo) -> str:
        if bool(path) != bool(info.data.get("eab_kid", path)):
            raise ValueError("needs api.acme.eab_kid, and vice versa: write both, as the CA shows them")
        return path


class ApiLimitSettings(SettingsSection):
    """
    How many requests are accepted, in the notation of the `limits` library.

    *per_token*, which also counts DNS updates, and *per_address* protect other clients from one that repeats requests.
    *failures* limits unknown credentials from one address and refusals of one token, so that clients that guess, or use
    a revoked token, do not fill the log and the audit.
    """

    per_token: Rate = "60000/minute"  # noqa: S105  # a rate
    per_address: Rate = "120000/minute"
    failures: Rate = "60/minute"


class RegistrationSettings(SettingsSection):
    """
    Whether `/register` of acme-dns gives accounts to any client, from which networks (by default, all), and how many to
    one address and to all together. The total is limited because accounts stay, and a botnet has many addresses.
    """

    enabled: bool = False
    allow_from: tuple[NetworkField, ...] = ()
    limit: Rate = "10/hour"
    limit_in_all: Rate = "1000/day"


class ApiSettings(SettingsSection):
    """
    Where the API listens, its URL for clients ("" if it is not set), and how it gets its certificate. *hsts* is in
    seconds.

    Only *trusted_proxies* may report the addresses of clients, in *forwarded_header*. With *proxy_protocol*, each of
    their connections begins with a header of the PROXY protocol, and other connections are refused.
    """

    listen: Annotated[tuple[ApiEndpoint, ...], NOT_EMPTY] = (Endpoint("0.0.0.0", 443),)
    free_bind: bool = False
    url: BaseUrl = ""
    tls: Literal["off", "files", "acme"] = "off"
    hostname: HostField = Field(None, validate_default=True)
    certificate_file: str = Field("", validate_default=True)
    private_key_file: str = Field("", validate_default=True)
    hsts: Annotated[Seconds, Field(ge=0, le=63_072_000)] = 0
    trusted_proxies: tuple[NetworkField, ...] = ()
    forwarded_header: HeaderField = "X-Forwarded-For"
    proxy_protocol: bool = False
    acme: AcmeSettings = AcmeSettings()
    limits: ApiLimitSettings = ApiLimitSettings()
    registration: RegistrationSettings = RegistrationSettings()

    @field_validator("hostname")
    @classmethod
    def _check_hostname(cls, hostname: Name | None, info: ValidationInfo) -> Name | None:
        if hostname is None and info.data.get("tls") == "acme":
            raise ValueError('is missing: with api.tls = "acme", write the name by which clients reach the API')
        return hostname

    @field_validator("certificate_file", "private_key_file")
    @classmethod
    def _check_file(cls, path: str, info: ValidationInfo) -> str:
        tls = info.data.get("tls")
        if not path and tls == "files":
            raise ValueError('is missing: with api.tls = "files", write the path of the file in PEM')
        if path and tls in ("off", "acme"):
            raise ValueError('needs api.tls = "files": set that, or remove this setting')
        return path

    @field_validator("hsts")
    @classmethod
    def _check_hsts(cls, seconds: int, info: ValidationInfo) -> int:
        if seconds and info.data.get("tls") == "off":
            raise ValueError("needs TLS in the API itself: set api.tls, or let the proxy send the header")
        return seconds

    @field_validator("proxy_protocol")
    @classmethod
    def _check_proxy_protocol(cls, spoken: bool, info: ValidationInfo) -> bool:  # noqa: FBT001  # a setting
        if spoken and not info.data.get("trusted_proxies", True):
            raise ValueError("lets only trusted proxies connect: name their networks in api.trusted_proxies")
        return spoken

    @property
    def caa_identity(self) -> str:
        """The CA in the CAA record of the API's own host; "" if it is unknown."""
        return self.acme.caa or CAA_IDENTITIES.get(self.acme.directory, "")

    def caa_records(self) -> str:
        """The CAA records of the API's own host, as zone text; "" if it needs no records, or the CA is unknown."""
        if self.tls != "acme" or self.hostname is None or not self.caa_identity:
            return ""
        owner = self.hostname.fqdn
        return f'{owner} CAA 0 issue "{self.caa_identity}"\n{owner} CAA 0 issuewild ";"\n'

    def warnings(self) -> list[str]:
        """Settings that are valid, but may not work."""
        if self.tls == "acme" and not self.caa_records():
            return [CAA_WARNING]
        return []
