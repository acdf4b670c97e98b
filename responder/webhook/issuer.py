"""
The `config` of the solver in an issuer: which responder to call, with which token, and which CAs to trust.

Unknown fields are errors: if they were ignored, a misspelled field would cause a failure that is hard to explain.
"""

from __future__ import annotations

import base64
import binascii
import ssl
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, ValidationInfo
from yarl import URL

from responder.errors import InvalidConfiguration, InvalidName
from responder.names import Name
from responder.tokens.network import CLUSTER_DOMAIN, is_service
from responder.webhook.payload import faults
from responder.webhook.trust import client_context

MAX_TRUSTS = 64
"""CA bundles that are kept in memory as TLS contexts. The issuers of a cluster usually have one or two."""

WHERE = "config of the issuer's webhook solver"
FIELDS = "set url, tokenSecretRef with name and key, and caBundle if the CA is private"


@dataclass(frozen=True, slots=True)
class PlainHttp:
    """
    Where the token may be sent unencrypted: to Services of the cluster, whose names may end with *cluster_domain*, and
    to the *hosts* that the administrator of the webhook allows, such as the address of a sidecar.
    """

    cluster_domain: str = CLUSTER_DOMAIN
    hosts: frozenset[str] = frozenset()

    def allows(self, host: str) -> bool:
        return host in self.hosts or is_service(host, self.cluster_domain)


def _parse_url(value: object, info: ValidationInfo) -> URL:
    if not isinstance(value, str):
        raise ValueError("must be text")
    url = _url(value.strip())
    if url is None:
        raise ValueError('is not a web address: write one like "https://responder.example.com"')
    if url.user is not None or url.password is not None or url.query_string or url.fragment:
        raise ValueError("has parts that are not allowed: remove the user, the password, ? and #")
    plain_http: Any = info.context
    if url.scheme == "http" and not plain_http.allows(url.raw_host or ""):
        raise ValueError("would send the token unencrypted: write https (http is only for NAME.NAMESPACE.svc)")
    return url


def _url(text: str) -> URL | None:
    """The URL in *text*; None if it is invalid or its host cannot be a name in the DNS."""
    try:
        url = URL(text)
        Name.parse(url.raw_host or "")
        return url if url.scheme in ("https", "http") and url.port else None
    except (ValueError, InvalidName):
        return None


def _parse_bundle(value: object) -> str:
    """CA certificates as PEM, or as base64 of PEM, as in Kubernetes' own caBundle fields."""
    if not isinstance(value, str) or not value:  # for `ssl`, an empty text means the certificates of the system
        raise ValueError("must be text")
    try:
        pem = value if "-----BEGIN" in value else base64.b64decode("".join(value.split()), validate=True).decode()
        _trust(pem)
    except (binascii.Error, UnicodeError, ssl.SSLError):
        raise ValueError("has no valid certificates: write them as PEM, or as base64 of PEM") from None
    return pem


class SecretKey(BaseModel):
    """A key of a Secret in the namespace of the challenge."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
    key: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,253}$")]


class IssuerConfig(BaseModel):
    """The checked config of an issuer."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    url: Annotated[URL, PlainValidator(_parse_url)]
    token: SecretKey = Field(alias="tokenSecretRef")
    ca_bundle: Annotated[str, PlainValidator(_parse_bundle)] | None = Field(None, alias="caBundle")

    @classmethod
    def parse(cls, config: Any, plain_http: PlainHttp) -> IssuerConfig:
        """Check *config*. Raises `InvalidConfiguration`: one line with all faults and the fields that can be set."""
        if not isinstance(config, dict):
            raise InvalidConfiguration([f"{WHERE}: it is missing: {FIELDS}"])
        try:
            return cls.model_validate(config, strict=True, context=plain_http)
        except ValidationError as error:
            raise InvalidConfiguration([f"{WHERE}: {', '.join(faults(error))}: {FIELDS}"]) from None

    @property
    def trust(self) -> ssl.SSLContext:
        """The TLS context that verifies the responder at the URL."""
        return _trust(self.ca_bundle)


_trust = lru_cache(MAX_TRUSTS)(client_context)
