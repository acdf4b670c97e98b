"""
The `config` that an issuer gives the solver: which responder to call, with which token, and whose certificate to trust.

It is read strictly. A misspelt field that is passed over would be found by somebody else, at night.
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
"""CA bundles that are kept compiled; issuers of a cluster name one or two."""

WHERE = "config of the issuer's webhook solver"
FIELDS = "write url, tokenSecretRef with name and key, and caBundle if need be"


@dataclass(frozen=True, slots=True)
class PlainHttp:
    """
    Where the token may be sent unencrypted: to Services of the cluster, whose names may end with *cluster_domain*, and
    to *hosts* that the webhook's administrator has named, such as the address of a sidecar.
    """

    cluster_domain: str = CLUSTER_DOMAIN
    hosts: frozenset[str] = frozenset()

    def takes(self, host: str) -> bool:
        return host in self.hosts or is_service(host, self.cluster_domain)


def _parse_url(value: object, info: ValidationInfo) -> URL:
    if not isinstance(value, str):
        raise ValueError("must be text")
    url = _url(value.strip())
    if url is None:
        raise ValueError('is not a web address: write one like "https://responder.example.com"')
    if url.user is not None or url.password is not None or url.query_string or url.fragment:
        raise ValueError("has parts that make no sense here: no user, no password, no ? and no #")
    plain_http: Any = info.context
    if url.scheme == "http" and not plain_http.takes(url.raw_host or ""):
        raise ValueError("would send the token unencrypted: write https (http is for NAME.NAMESPACE.svc alone)")
    return url


def _url(text: str) -> URL | None:
    """The URL in *text*, if there is one whose host can be looked up."""
    try:
        url = URL(text)
        Name.parse(url.raw_host or "")
        return url if url.scheme in ("https", "http") and url.port else None
    except (ValueError, InvalidName):
        return None


def _parse_bundle(value: object) -> str:
    """PEM, as it is or in base64, which is how Kubernetes writes it in its own caBundle fields."""
    if not isinstance(value, str) or not value:  # ssl takes empty text for "the system's"
        raise ValueError("must be text")
    try:
        pem = value if "-----BEGIN" in value else base64.b64decode("".join(value.split()), validate=True).decode()
        _trust(pem)
    except (binascii.Error, UnicodeError, ssl.SSLError):
        raise ValueError("holds no certificates: write them as PEM, or as base64 of PEM") from None
    return pem


class SecretKey(BaseModel):
    """Which key of which Secret, in the namespace that the challenge belongs to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
    key: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,253}$")]


class IssuerConfig(BaseModel):
    """What an issuer says, checked."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    url: Annotated[URL, PlainValidator(_parse_url)]
    token: SecretKey = Field(alias="tokenSecretRef")
    ca_bundle: Annotated[str, PlainValidator(_parse_bundle)] | None = Field(None, alias="caBundle")

    @classmethod
    def parse(cls, config: Any, plain_http: PlainHttp) -> IssuerConfig:
        """Raises `InvalidConfiguration`: one line with everything that is wrong, and what there is to set."""
        if not isinstance(config, dict):
            raise InvalidConfiguration([f"{WHERE}: there is none: {FIELDS}"])
        try:
            return cls.model_validate(config, strict=True, context=plain_http)
        except ValidationError as error:
            raise InvalidConfiguration([f"{WHERE}: {', '.join(faults(error))}: {FIELDS}"]) from None

    @property
    def trust(self) -> ssl.SSLContext:
        """How to tell that whoever answers at the URL is the responder."""
        return _trust(self.ca_bundle)


_trust = lru_cache(MAX_TRUSTS)(client_context)
