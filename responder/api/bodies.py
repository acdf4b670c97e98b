"""
What clients send to present and cleanup: lego's httpreq, in both of its modes. Bytes in, domain types out.

Whatever is wrong with a body is found and reported at once; whether its sender may do it is not asked here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any

from aiohttp import hdrs, web
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, ValidationInfo, field_validator

from responder.errors import Invalid, InvalidRequest
from responder.names import Name
from responder.tokens.hostname import CHALLENGE_LABEL, parse_hostname
from responder.tokens.values import challenge_value, parse_value

DEADLINE = 10.0
"""Seconds for a request body to arrive."""


class _Body(BaseModel):
    """What both modes have in common. Its context has the longest lifetime that may be asked for, in seconds."""

    model_config = ConfigDict(strict=True)

    asked_lifetime: int | None = Field(None, alias="lifetime")

    @field_validator("asked_lifetime", mode="before")
    @classmethod
    def _read_integer(cls, lifetime: object) -> object:
        """A number without a fraction is an integer, however it is written (JSON Schema, section 6.1.1 of its core)."""
        return int(lifetime) if isinstance(lifetime, float) and lifetime.is_integer() else lifetime

    @field_validator("asked_lifetime")
    @classmethod
    def _check_lifetime(cls, lifetime: int | None, info: ValidationInfo) -> int | None:
        longest: Any = info.context
        if lifetime is not None and not 1 <= lifetime <= longest:
            raise ValueError(f"a number of seconds from 1 to {longest} is expected")
        return lifetime

    @property
    def lifetime(self) -> timedelta | None:
        return None if self.asked_lifetime is None else timedelta(seconds=self.asked_lifetime)


def _read_by(parse: Callable[[str], object]) -> PlainValidator:
    """Reads text by *parse*, whose `Invalid` says what is wrong with it."""

    def validate(value: object) -> object:
        if not isinstance(value, str):
            raise ValueError("text is expected")
        try:
            value.encode()  # JSON can spell half a surrogate pair, which is no text
            return parse(value)
        except UnicodeEncodeError:
            raise ValueError("the text is not valid Unicode") from None
        except Invalid as fault:
            raise ValueError(str(fault)) from None

    return PlainValidator(validate)


def _parse_key_authorization(text: str) -> str:
    if not text:
        raise Invalid("is empty: send the key authorization (RFC 8555, section 8.1)")
    return text


def _check_name(text: str) -> str:
    """A domain name, as it was sent: clients compare it with the one in the response."""
    Name.parse(text)
    return text


class DefaultBody(_Body):
    """The body of present and cleanup as lego's httpreq sends it by default: a name, and the value for it."""

    fqdn: Annotated[str, _read_by(_check_name)]
    value: Annotated[str, _read_by(parse_value)]
    acme_token: Annotated[str, _read_by(str)] | None = None

    @property
    def name(self) -> Name:
        return Name.parse(self.fqdn)


class RawBody(_Body):
    """
    The body as lego's httpreq sends it in RAW mode: the hostname, and ACME's own token and key authorization.

    The value is the digest of the latter (RFC 8555, section 8.4).
    """

    hostname: Annotated[Name, _read_by(parse_hostname)] = Field(alias="domain")
    acme_token: Annotated[str, _read_by(str)] = Field(alias="token")
    key_authorization: Annotated[str, _read_by(_parse_key_authorization)] = Field(alias="keyAuth")

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
"""The names of all members as they are documented, by their lower-case form."""


async def read_body(request: web.Request, *, max_lifetime: timedelta) -> Body:
    """Raises `InvalidRequest` with everything that is wrong, and as `read_octets` does."""
    octets = await read_octets(request)
    try:
        return _parse(octets, longest=int(max_lifetime.total_seconds()))
    except ValidationError as error:
        raise InvalidRequest(map(_fault, error.errors(include_url=False))) from None


async def read_octets(request: web.Request) -> bytes:
    """The body as it came. Raises `InvalidRequest`, `web.HTTPException` if it is too large, too slow or compressed."""
    if {coding.lower() for coding in request.headers.getall(hdrs.CONTENT_ENCODING, ())} - {"identity"}:
        raise web.HTTPUnsupportedMediaType
    try:
        async with asyncio.timeout(DEADLINE):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    except (web.RequestPayloadError, ConnectionError):
        raise InvalidRequest(["the body is not what its headers announce: it is broken, or ends early"]) from None


def _parse(octets: bytes, *, longest: int) -> Body:
    try:
        data = json.loads(octets.decode(), object_pairs_hook=_members, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise InvalidRequest(['the body is not JSON: send {"fqdn": "...", "value": "..."}']) from None
    if not isinstance(data, dict):
        raise InvalidRequest(['the body is not a JSON object: send {"fqdn": "...", "value": "..."}'])
    if "keyAuth" in data and data.keys() & {"fqdn", "value"}:  # no client sends both, and which one counts is a guess
        raise InvalidRequest(
            ['the body is of two modes: send "fqdn" and "value", or "domain", "token" and "keyAuth", but not both']
        )
    return (RawBody if "keyAuth" in data else DefaultBody).model_validate(data, context=longest)


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """
    An object whose keys may be in any letter case, as for Go's servers: libdns's acmeproxy sends `FQDN` and `Value`.

    Every reader takes another one of two equal keys (RFC 8259, section 4): whoever wrote this meant neither.
    """
    data = {_MEMBERS.get(key.lower(), key): value for key, value in pairs}
    if len(data) < len(pairs):
        raise InvalidRequest(["a key occurs twice in the body"])
    return data


def _refuse(constant: str) -> None:
    """Python reads NaN and Infinity; JSON has none (RFC 8259, section 6)."""
    raise ValueError(constant)


def _fault(error: Any) -> str:
    where = ".".join(map(str, error["loc"]))
    match error["type"]:
        case "missing":
            return f'"{where}" is missing'
        case "value_error":
            return f'"{where}": {error["ctx"]["error"]}'
        case _:
            return f'"{where}": {error["msg"][0].lower()}{error["msg"][1:]}'
