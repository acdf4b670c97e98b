"""
The request bodies of present and cleanup, in both modes of lego's httpreq. Octets go in, typed values come out.

All faults of a body are reported together. This module does not check whether the sender may do what it requests.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any

from aiohttp import hdrs, web
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, ValidationInfo, field_validator

from responder.config.fields import read_by
from responder.errors import Invalid, InvalidRequest
from responder.foreign import fault_text
from responder.names import Name
from responder.tokens.hostname import CHALLENGE_LABEL, parse_hostname
from responder.tokens.values import challenge_value, parse_value

BODY_DEADLINE = 10.0
"""Seconds for a request body to arrive."""


class _Body(BaseModel):
    """The members of both modes. The validation context is the longest lifetime that is allowed, in seconds."""

    model_config = ConfigDict(strict=True)

    asked_lifetime: int | None = Field(None, alias="lifetime")

    @field_validator("asked_lifetime", mode="before")
    @classmethod
    def _read_integer(cls, lifetime: object) -> object:
        """A number without a fraction counts as an integer, even if it is written as 60.0 (as in JSON Schema)."""
        return int(lifetime) if isinstance(lifetime, float) and lifetime.is_integer() else lifetime

    @field_validator("asked_lifetime")
    @classmethod
    def _check_lifetime(cls, lifetime: int | None, info: ValidationInfo) -> int | None:
        longest: Any = info.context
        if lifetime is not None and not 1 <= lifetime <= longest:
            raise ValueError(f"expected a number of seconds from 1 to {longest}")
        return lifetime

    @property
    def lifetime(self) -> timedelta | None:
        return None if self.asked_lifetime is None else timedelta(seconds=self.asked_lifetime)


def _text(parse: Callable[[str], object]) -> PlainValidator:
    return read_by(parse, expected="text")


def _parse_key_authorization(text: str) -> str:
    if not text:
        raise Invalid("is empty: send the key authorization (RFC 8555, section 8.1)")
    return text


def _check_name(text: str) -> str:
    """Check a domain name and return it unchanged: clients compare it with the name in the response."""
    Name.parse(text)
    return text


class DefaultBody(_Body):
    """The body of present and cleanup in the default mode of lego's httpreq: a name and a value."""

    fqdn: Annotated[str, _text(_check_name)]
    value: Annotated[str, _text(parse_value)]
    acme_token: Annotated[str, _text(str)] | None = None

    @property
    def name(self) -> Name:
        return Name.parse(self.fqdn)


class RawBody(_Body):
    """
    The body in the RAW mode of lego's httpreq: the hostname, and ACME's own token and key authorization.

    The value is the digest of the key authorization (RFC 8555, section 8.4).
    """

    hostname: Annotated[Name, _text(parse_hostname)] = Field(alias="domain")
    acme_token: Annotated[str, _text(str)] = Field(alias="token")
    key_authorization: Annotated[str, _text(_parse_key_authorization)] = Field(alias="keyAuth")

    @property
    def name(self) -> Name:
        return Name.from_labels([CHALLENGE_LABEL, *self.hostname.labels])

    @property
    def fqdn(self) -> str:
        return self.name.fqdn

    @property
    def value(self) -> str:
        return challenge_value(self.key_authorization)


Body = DefaultBody | RawBody

_MEMBERS = {
    str(field.alias or name).lower(): str(field.alias or name)
    for body in (DefaultBody, RawBody)
    for name, field in body.model_fields.items()
}
"""The names of all members as documented, by the same names in lower case."""


async def read_body(request: web.Request, *, max_lifetime: timedelta) -> Body:
    """Read and check a body. Raises `InvalidRequest` with all faults, and what `read_octets` raises."""
    octets = await read_octets(request)
    try:
        return _parse(octets, longest=int(max_lifetime.total_seconds()))
    except ValidationError as error:
        raise InvalidRequest(map(_fault, error.errors(include_url=False))) from None


async def read_octets(request: web.Request) -> bytes:
    """The octets of a body. Raises `InvalidRequest`, or `web.HTTPException` if it is too large, slow or compressed."""
    if {coding.lower() for coding in request.headers.getall(hdrs.CONTENT_ENCODING, ())} - {"identity"}:
        raise web.HTTPUnsupportedMediaType
    try:
        async with asyncio.timeout(BODY_DEADLINE):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    except (web.RequestPayloadError, ConnectionError):
        raise InvalidRequest(["the body does not match its headers: it is malformed or too short"]) from None


def _parse(octets: bytes, *, longest: int) -> Body:
    try:
        data = json.loads(octets.decode(), object_pairs_hook=_members, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise InvalidRequest(['the body is not JSON: send {"fqdn": "...", "value": "..."}']) from None
    if not isinstance(data, dict):
        raise InvalidRequest(['the body is not a JSON object: send {"fqdn": "...", "value": "..."}'])
    if "keyAuth" in data and data.keys() & {
        "fqdn",
        "value",
    }:  # no client sends both; which one counts is unclear
        raise InvalidRequest(
            ['the body mixes two modes: send "fqdn" and "value", or "domain", "token" and "keyAuth", but not both']
        )
    return (RawBody if "keyAuth" in data else DefaultBody).model_validate(data, context=longest)


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """
    An object whose keys may be in any letter case, as servers in Go accept them: libdns's acmeproxy sends `FQDN`.

    A key that occurs twice is rejected: parsers of JSON differ in which of the two they use (RFC 8259, section 4).
    """
    data = {_MEMBERS.get(key.lower(), key): value for key, value in pairs}
    if len(data) < len(pairs):
        raise InvalidRequest(["a key occurs twice in the body"])
    return data


def _refuse(constant: str) -> None:
    """Reject NaN and Infinity, which Python accepts and JSON does not have (RFC 8259, section 6)."""
    raise ValueError(constant)


def _fault(error: Any) -> str:
    where = ".".join(map(str, error["loc"]))
    return f'"{where}"{"" if error["type"] == "missing" else ":"} {fault_text(error)}'
