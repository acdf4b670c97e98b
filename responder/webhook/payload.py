"""
cert-manager's ChallengePayload: reads its JSON, and makes the responses to it. This module knows no HTTP.

cert-manager reads `response` without a check, and takes a failure with an empty message for a success. So each response
has the member `response`, and each failure a message.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from responder.errors import InvalidRequest
from responder.foreign import fault_text

PAYLOAD_KIND = "ChallengePayload"
API_VERSION = "webhook.acme.cert-manager.io/v1alpha1"
"""The API version of the payload, which does not depend on the group of the webhook."""


class Action(StrEnum):
    """The action that is requested, as cert-manager names it."""

    PRESENT = "Present"
    CLEANUP = "CleanUp"


Namespace = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
"""The name of a namespace (an RFC 1123 label), which is safe in the path of a URL."""

_Name = Annotated[str, Field(pattern=r"^[!-~]{1,255}$")]


class ChallengeRequest(BaseModel):
    """One request of cert-manager. Members of newer versions are ignored."""

    model_config = ConfigDict(frozen=True)

    action: Action
    dns_name: _Name = Field(alias="dnsName")
    value: str = Field(alias="key", min_length=1)
    namespace: Namespace = Field(alias="resourceNamespace")
    fqdn: _Name = Field(alias="resolvedFQDN")
    uid: str = ""
    type: Literal["", "dns-01"] = ""
    """It may be empty or missing: Go writes an empty string for a field that is not set, as cert-manager's tests do."""
    config: Any = None

    @property
    def delegated_name(self) -> str:
        """The name that a CA queries (RFC 8555, section 8.4). `fqdn` differs if cert-manager followed a CNAME."""
        return f"_acme-challenge.{self.dns_name}."


class _Payload(BaseModel):
    """The whole document. Clients leave out `kind` and `apiVersion`, because their scheme does not have the type."""

    kind: Literal["", "ChallengePayload"] = ""
    api_version: Literal["", "webhook.acme.cert-manager.io/v1alpha1"] = Field("", alias="apiVersion")
    request: ChallengeRequest


def parse(octets: bytes) -> ChallengeRequest:
    """Read a request. Raises `InvalidRequest` with all faults."""
    try:
        return _Payload.model_validate_json(octets, strict=True).request
    except ValidationError as error:
        raise InvalidRequest(faults(error)) from None


def succeeded(request: ChallengeRequest) -> dict[str, Any]:
    """The response after success."""
    return _payload({"uid": request.uid, "success": True})


def failed(request: ChallengeRequest, message: str) -> dict[str, Any]:
    """The response after a failure. *message* goes into an event and into the status of the Challenge."""
    status = {"status": "Failure", "message": message or "the request failed", "reason": "BadRequest", "code": 400}
    return _payload({"uid": request.uid, "success": False, "status": status})


def faults(error: ValidationError) -> list[str]:
    """The faults that pydantic found, one line each. They quote no input, because it may be a secret."""
    return [_fault(details) for details in error.errors(include_url=False, include_input=False)]


def _fault(details: Any) -> str:
    where = ".".join(map(str, details["loc"]))
    match details["type"]:
        case "json_invalid":
            return "the body is not JSON"
        case "string_pattern_mismatch":
            return f'"{where}" is not a valid name'
        case _:
            return f'"{where}" {fault_text(details)}'


def _payload(response: dict[str, Any]) -> dict[str, Any]:
    return {"kind": PAYLOAD_KIND, "apiVersion": API_VERSION, "response": response}
