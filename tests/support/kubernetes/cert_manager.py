"""
cert-manager's webhook solver: what it posts, by way of kube-apiserver, and what it makes of the answer.

Its requests reach a webhook only if kube-apiserver's own rules let its service account create the resource.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.kubernetes.front_proxy import FrontProxy, Identity, Reply
from tests.support.kubernetes.rbac import Attributes, Rbac, User

ACCOUNT = User.service_account("cert-manager", "cert-manager")

IDENTITY = Identity(
    ACCOUNT.name,
    ACCOUNT.groups,
    uid="4c2f3a9e-1f0e-4a9c-8a55-3d6c1b3f0001",
    extra=(
        ("Authentication.kubernetes.io%2fcredential-Id", "JTI=0a1b2c3d"),
        ("Authentication.kubernetes.io%2fpod-Name", "cert-manager-7d4b5d-x2x"),
    ),
)
"""As kube-apiserver tells it, once it has authenticated the service account's token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One challenge, as cert-manager knows it when it calls its solver."""

    dns_name: str
    key: str
    fqdn: str
    zone: str
    namespace: str = "team-a"
    config: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class CertManager:
    """The controller, with the issuers' solver of this *group* and name."""

    proxy: FrontProxy
    rbac: Rbac
    group: str = "acme.responder.dev"
    solver: str = "responder"

    async def present(self, order: Order) -> str | None:
        """The error it comes to; None if it is done."""
        return await self._call("Present", order)

    async def clean_up(self, order: Order) -> str | None:
        return await self._call("CleanUp", order)

    async def _call(self, action: str, order: Order) -> str | None:
        if not self.rbac.allows(ACCOUNT, Attributes("create", self.group, self.solver.lower())):
            return (
                f'{self.solver}.{self.group} is forbidden: User "{ACCOUNT.name}" cannot create resource "{self.solver}"'
                f' in API group "{self.group}" at the cluster scope'
            )
        return outcome(await self.post(body(action, order)))

    async def post(self, content: bytes, content_type: str = "application/json") -> Reply:
        """The request as it leaves kube-apiserver."""
        headers = [
            ("User-Agent", "cert-manager-challenges/v1.21.2 (linux/amd64) cert-manager/0123456789abcdef"),
            ("Accept", "application/json, */*"),
            ("Accept-Encoding", "gzip"),
            ("Audit-Id", "5c3f2a0e-7a44-4f4e-9b1b-2f6f6d1d0002"),
            ("Content-Type", content_type),
            ("X-Forwarded-For", "10.0.0.9"),
            *IDENTITY.headers(),
        ]
        return await self.proxy.send("POST", f"/apis/{self.group}/v1alpha1/{self.solver.lower()}", headers, content)


def body(action: str, order: Order) -> bytes:
    """The ChallengePayload, without kind and apiVersion, as Go writes it."""
    request = {
        "uid": "",
        "action": action,
        "type": "dns-01",
        "dnsName": order.dns_name,
        "key": order.key,
        "resourceNamespace": order.namespace,
        "resolvedFQDN": order.fqdn,
        "resolvedZone": order.zone,
        "allowAmbientCredentials": False,
    }
    if order.config is not None:
        request["config"] = dict(order.config)
    return json.dumps({"request": request}, separators=(",", ":")).encode() + b"\n"


def outcome(reply: Reply) -> str | None:
    """
    What cert-manager makes of an answer: None for success, otherwise the text for the event and the Challenge.

    Fails where cert-manager would do worse than report an error.
    """
    if not reply.headers["content-type"].startswith("application/json"):
        return f"the server is currently unable to handle the request (status {reply.status})"
    document = reply.json
    if reply.status >= 400:
        assert "retry-after" not in reply.headers, "client-go would hold the worker for it"
        assert ("Status", "Failure") == (document["kind"], document["status"])
        assert document["message"]
        return str(document["message"])
    response = document.get("response")
    assert response is not None, "cert-manager dereferences it"
    assert response.get("uid") == ""
    if response["success"]:
        return None
    assert response["status"]["message"], "an empty message counts as success"
    return str(response["status"]["message"])
