"""
cert-manager's ChallengePayload: JSON in, what is asked for out; and the answers to it (no HTTP, no Kubernetes here).

cert-manager dereferences `response` without a look, and takes an empty message for success: every answer has the one,
and no failure has the other.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from responder.errors import InvalidRequest

KIND = "ChallengePayload"
API_VERSION = "webhook.acme.cert-manager.io/v1alpha1"
"""The payload's own, whatever group the webhook is registered under."""


class Action(StrEnum):
    """What to do, as cert-manager spells it."""

    PRESENT = "Present"
    CLEANUP = "CleanUp"


Namespace = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
"""The name of a namespace (an RFC 1123 label): fit for a URL's path."""

_Name = Annotated[str, Field(pattern=r"^[!-~]{1,255}$")]


class ChallengeRequest(BaseModel):
    """One request of cert-manager's. What newer versions add to it is passed over."""

    model_config = ConfigDict(frozen=True)

    action: Action
    dns_name: _Name = Field(alias="dnsName")
    value: str = Field(alias="key", min_length=1)
    namespace: Namespace = Field(alias="resourceNamespace")
    fqdn: _Name = Field(alias="resolvedFQDN")
    uid: str = ""
    type: Literal["", "dns-01"] = ""
    """May be left empty or out: Go writes an empty string for what nobody set, as cert-manager's own suite does."""
    config: Any = None

    @property
    def delegated_name(self) -> str:
        """The name a CA asks for (RFC 8555, section 8.4). `fqdn` is another one if cert-manager followed a CNAME."""
        return f"_acme-challenge.{self.dns_name}."


class _Payload(BaseModel):
    """Clients leave `kind` and `apiVersion` out, because their own scheme does not know the type."""

    kind: Literal["", "ChallengePayload"] = ""
    api_version: Literal["", "webhook.acme.cert-manager.io/v1alpha1"] = Field("", alias="apiVersion")
    request: ChallengeRequest


def parse(octets: bytes) -> ChallengeRequest:
    """Raises `InvalidRequest` with everything that is wrong."""
    try:
        return _Payload.model_validate_json(octets, strict=True).request
    except ValidationError as error:
        raise InvalidRequest(faults(error)) from None


def succeeded(request: ChallengeRequest) -> dict[str, Any]:
    """The answer when it is done."""
    return _payload({"uid": request.uid, "success": True})


def failed(request: ChallengeRequest, message: str) -> dict[str, Any]:
    """The answer when it could not be done: *message* goes into an event and the Challenge's status."""
    status = {"status": "Failure", "message": message or "it failed", "reason": "BadRequest", "code": 400}
    return _payload({"uid": request.uid, "success": False, "status": status})


def faults(error: ValidationError) -> list[str]:
    """What pydantic found, a line for each; nothing of what was sent is quoted, for it may be a secret."""
    return [_fault(details) for details in error.errors(include_url=False, include_input=False)]


def _fault(details: Any) -> str:
    where = ".".join(map(str, details["loc"]))
    match details["type"]:
        case "json_invalid":
            return "the body is not JSON"
        case "missing":
            return f'"{where}" is missing'
        case "extra_forbidden":
            return f'"{where}" is not known here'
        case "string_pattern_mismatch":
            return f'"{where}" is not a valid name'
        case "value_error":
            return f'"{where}" {details["ctx"]["error"]}'
        case _:
            message = details["msg"].removeprefix("Input should be ")
            return f'"{where}" must be {message}'


def _payload(response: dict[str, Any]) -> dict[str, Any]:
    return {"kind": KIND, "apiVersion": API_VERSION, "response": response}
