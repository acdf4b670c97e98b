"""
The Kubernetes objects that cert-manager needs to get certificates through this service: a Secret with the credential,
an Issuer that uses it only for these hostnames, and a Certificate.

The caller provides the token, and checks that it covers the hostnames. The fields are those of cert-manager.io/v1 and
of the solver of `responder webhook`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import assert_never

from responder.names import Name
from responder.tokens import credentials
from responder.tokens.credentials import Credential, Object
from responder.tokens.token import Grant

PLACEHOLDER = "REPLACE-ME"
"""The beginning of every placeholder for an unknown text. No part of the service accepts a placeholder as a secret."""

NO_TOKEN = f"{PLACEHOLDER}-WITH-THE-TOKEN"
NO_KEY_NAME = f"{PLACEHOLDER}-WITH-THE-NAME-OF-THE-KEY"
NO_KEY_SECRET = f"{PLACEHOLDER}-WITH-THE-SECRET-OF-THE-KEY"
NO_HMAC = f"{PLACEHOLDER}-WITH-THE-HMAC-KEY-OF-THE-EXTERNAL-ACCOUNT"

WEBHOOK_GROUP = "acme.responder.dev"
WEBHOOK_SOLVER = "responder"
"""The API group and the name of the solver of `responder webhook`; the values of its chart can change them."""


class Select(Enum):
    """How cert-manager chooses the solver for a name of a certificate."""

    NAMES = "names"
    ZONES = "zones"


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The hostname of a grant, or its wildcard."""

    grant: Grant
    wildcard: bool = False

    @property
    def name(self) -> str:
        """The name in the certificate."""
        return f"*.{self.grant.hostname}" if self.wildcard else str(self.grant.hostname)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAccount:
    """The service account of the webhook in its cluster."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookConfig:
    """`responder webhook` calls the API at *url*, trusting the CAs of *ca_bundle* (PEM) if given."""

    url: str
    token: str = field(default=NO_TOKEN, repr=False)
    ca_bundle: str | None = None
    group: str = WEBHOOK_GROUP
    solver: str = WEBHOOK_SOLVER
    service_account: ServiceAccount
    pinned: bool = False

    def secret(self, _: Iterable[Host]) -> dict[str, str]:
        return {"token": self.token}

    def solvers(self, hosts: Iterable[Host], secret: str) -> list[tuple[list[Host], Object]]:
        config: Object = {"url": self.url, "tokenSecretRef": {"name": secret, "key": "token"}}
        if self.ca_bundle is not None:
            config["caBundle"] = self.ca_bundle
        return [(list(hosts), {"webhook": {"groupName": self.group, "solverName": self.solver, "config": config}})]


@dataclass(frozen=True, slots=True, kw_only=True)
class AcmeDnsConfig:
    """cert-manager's own acme-dns client calls `/update` at *url*: the token's id is the user, the token the key."""

    url: str
    credential: Credential

    def secret(self, hosts: Iterable[Host]) -> dict[str, str]:
        """The storage file. cert-manager finds the account by the exact hostname, without `*.`."""
        accounts = credentials.lego_accounts(self.credential, [host.grant for host in hosts])
        return {"acmedns.json": json.dumps(accounts, indent=2) + "\n"}

    def solvers(self, hosts: Iterable[Host], secret: str) -> list[tuple[list[Host], Object]]:
        reference = {"name": secret, "key": "acmedns.json"}
        return [(list(hosts), {"acmeDNS": {"host": self.url, "accountSecretRef": reference}})]


@dataclass(frozen=True, slots=True, kw_only=True)
class TsigKey:
    """
    A TSIG key. *algorithm* is the name that cert-manager uses for it.

    *secret* is base64. cert-manager decodes what it reads from the Secret, so the data of the Secret is base64 as well.
    """

    name: str
    secret: str = field(repr=False)
    algorithm: str = "HMACSHA256"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rfc2136Config:
    """cert-manager sends DNS updates, signed with *key*, to *nameservers*: a host and port for each apex."""

    nameservers: Mapping[Name, str]
    key: TsigKey

    def secret(self, _: Iterable[Host]) -> dict[str, str]:
        return {"tsig-secret": self.key.secret}

    def solvers(self, hosts: Iterable[Host], secret: str) -> list[tuple[list[Host], Object]]:
        by_nameserver: dict[str, list[Host]] = {}
        for host in hosts:
            by_nameserver.setdefault(self.nameservers[host.grant.apex], []).append(host)
        return [(hosts, {"rfc2136": self._solver(nameserver, secret)}) for nameserver, hosts in by_nameserver.items()]

    def _solver(self, nameserver: str, secret: str) -> Object:
        return {
            "nameserver": nameserver,
            "protocol": "TCP",  # cert-manager sends a UDP packet once, and gives up if it gets lost
            "tsigAlgorithm": self.key.algorithm,
            "tsigKeyName": self.key.name,
            "tsigSecretSecretRef": {"name": secret, "key": "tsig-secret"},
        }


SolverConfig = WebhookConfig | AcmeDnsConfig | Rfc2136Config
"""
`secret` returns the data of the Secret. `solvers` returns the entries of the Issuer's solvers: the hosts of each entry,
and its part of `dns01`. It gets the name of the Secret.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalAccount:
    """The external account at the CA that a new ACME account is bound to (RFC 8555, section 7.3.4)."""

    kid: str
    hmac: str = field(default=NO_HMAC, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestPlan:
    """
    What to render. *name* is the name of the Issuer and the Certificate, and the names of their Secrets begin with it.

    If *namespace* is None, the namespace is the one of `kubectl -n`. With *cluster_namespace*, the issuer is a
    ClusterIssuer, and cert-manager reads its Secrets from that namespace. *server_ca* (PEM) has the CA certificates of
    the ACME directory *server*.
    """

    hosts: tuple[Host, ...]
    solver: SolverConfig
    name: str
    server: str
    server_ca: str | None = None
    namespace: str | None = None
    cluster_namespace: str | None = None
    email: str | None = None
    external_account: ExternalAccount | None = None
    select: Select = Select.NAMES

    @property
    def secret_name(self) -> str:
        """The Secret with the credential: the name that `credentials` gives it, if *name* is the one of its host."""
        return f"{self.name}-responder"

    @property
    def account_secret(self) -> str:
        """The Secret where cert-manager stores the key of its ACME account."""
        return f"{self.name}-account"

    @property
    def secret_namespace(self) -> str | None:
        return self.cluster_namespace or self.namespace


def objects(plan: ManifestPlan) -> list[Object]:
    """The objects of *plan*. Each one comes after those that it needs."""
    namespace = plan.secret_namespace
    everything = [credentials.secret(plan.secret_name, plan.solver.secret(plan.hosts), namespace=namespace)]
    if plan.external_account is not None:
        hmac = {"hmac": plan.external_account.hmac}
        everything.append(credentials.secret(f"{plan.name}-eab", hmac, namespace=namespace))
    if isinstance(plan.solver, WebhookConfig):
        everything += _permission(plan, plan.solver)
    return [*everything, _issuer(plan), _certificate(plan)]


def _permission(plan: ManifestPlan, webhook: WebhookConfig) -> list[Object]:
    """The RBAC objects that let the webhook read this Secret and, for a pinned token, list all Challenges."""
    rules: list[Object] = [
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [plan.secret_name], "verbs": ["get"]}
    ]
    if webhook.pinned:
        rules.append({"apiGroups": ["acme.cert-manager.io"], "resources": ["challenges"], "verbs": ["list"]})
    account = webhook.service_account
    rbac = {"apiVersion": "rbac.authorization.k8s.io/v1"}
    metadata = _metadata(plan.secret_name, plan.secret_namespace)
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": plan.secret_name}
    subject = {"kind": "ServiceAccount", "namespace": account.namespace, "name": account.name}
    return [
        rbac | {"kind": "Role", "metadata": metadata, "rules": rules},
        rbac | {"kind": "RoleBinding", "metadata": dict(metadata), "roleRef": role, "subjects": [subject]},
    ]


def _issuer(plan: ManifestPlan) -> Object:
    acme: Object = {"server": plan.server}
    if plan.server_ca is not None:
        acme["caBundle"] = base64.b64encode(plan.server_ca.encode()).decode()
    if plan.email is not None:
        acme["email"] = plan.email
    acme["privateKeySecretRef"] = {"name": plan.account_secret}
    if isinstance(plan.solver, WebhookConfig) and plan.solver.pinned:
        acme["disableAccountKeyGeneration"] = True
    if plan.external_account is not None:
        reference = {"name": f"{plan.name}-eab", "key": "hmac"}
        acme["externalAccountBinding"] = {"keyID": plan.external_account.kid, "keySecretRef": reference}
    acme["solvers"] = [
        {"selector": _selector(plan, hosts), "dns01": {"cnameStrategy": "Follow"} | solver}
        for hosts, solver in plan.solver.solvers(plan.hosts, plan.secret_name)
    ]
    cluster = plan.cluster_namespace is not None
    return {
        "apiVersion": "cert-manager.io/v1",
        "kind": "ClusterIssuer" if cluster else "Issuer",
        "metadata": _metadata(plan.name, None if cluster else plan.namespace),
        "spec": {"acme": acme},
    }


def _selector(plan: ManifestPlan, hosts: Iterable[Host]) -> dict[str, list[str]]:
    """The selector. Both kinds match a hostname and its wildcard, as a token does; a zone matches names below, too."""
    hostnames = dict.fromkeys(str(host.grant.hostname) for host in hosts)
    match plan.select:
        case Select.NAMES:
            return {"dnsNames": [name for host in hostnames for name in (host, f"*.{host}")]}
        case Select.ZONES:
            return {"dnsZones": list(hostnames)}
        case _:
            assert_never(plan.select)


def _certificate(plan: ManifestPlan) -> Object:
    kind = "Issuer" if plan.cluster_namespace is None else "ClusterIssuer"
    return {
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        "metadata": _metadata(plan.name, plan.namespace),
        "spec": {
            "secretName": f"{plan.name}-tls",
            "dnsNames": list(dict.fromkeys(host.name for host in plan.hosts)),
            "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
            "issuerRef": {"group": "cert-manager.io", "kind": kind, "name": plan.name},
        },
    }


def _metadata(name: str, namespace: str | None) -> dict[str, str]:
    return {"name": name} | ({"namespace": namespace} if namespace is not None else {})
