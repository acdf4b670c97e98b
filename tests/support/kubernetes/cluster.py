"""
A cluster put together: its API, the certificates of its front proxy, a mounted service account, and webhooks in it, in
this process or in one of their own.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dns.asyncresolver

from responder.webhook import main as webhook
from responder.webhook.issuer import PlainHttp
from responder.webhook.main import Options
from tests.support.kubernetes.api import FakeApi
from tests.support.kubernetes.cert_manager import CertManager
from tests.support.kubernetes.certificates import Authority, Pair
from tests.support.kubernetes.front_proxy import FrontProxy, front_proxy
from tests.support.kubernetes.rbac import Manifest, Rbac, User
from tests.support.processes import PATIENCE

ACCOUNT = User.service_account("responder", "responder-webhook")
"""The webhook's service account."""

GROUP, SOLVER = "acme.responder.dev", "responder"
SERVICE = "responder-webhook.responder.svc"
NAMESPACE, SECRET = "team-a", "responder-token"


def least_rbac(*, challenges: bool = False) -> list[Manifest]:
    """The least that works: for the webhook's service account, and for cert-manager's."""
    secrets = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [SECRET], "verbs": ["get"]}
    listing = {"apiGroups": ["acme.cert-manager.io"], "resources": ["challenges"], "verbs": ["list"]}
    front_proxy = {
        "apiGroups": [""],
        "resources": ["configmaps"],
        "resourceNames": ["extension-apiserver-authentication"],
        "verbs": ["get"],
    }
    reviews = {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]}
    solving = {"apiGroups": [GROUP], "resources": [SOLVER], "verbs": ["create"]}
    return [
        *_bound("Role", "webhook-front-proxy", [front_proxy], ACCOUNT, "kube-system"),
        *_bound("Role", "webhook-tokens", [secrets, *([listing] if challenges else [])], ACCOUNT, NAMESPACE),
        *_bound("ClusterRole", "webhook-reviews", [reviews], ACCOUNT),
        *_bound("ClusterRole", "cert-manager-solving", [solving], User.service_account("cert-manager", "cert-manager")),
    ]


def _bound(kind: str, name: str, rules: list[dict[str, Any]], user: User, namespace: str = "") -> Iterable[Manifest]:
    metadata = {"name": name, "namespace": namespace} if namespace else {"name": name}
    yield {"kind": kind, "metadata": metadata, "rules": rules}
    _, _, of, account = user.name.split(":")
    yield {
        "kind": f"{kind}Binding",
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": of}],
    }


@dataclass
class FakeCluster:
    """What runs around a webhook; its parts may be changed while it does."""

    directory: Path
    api: FakeApi
    authority: Authority
    """Signs the API's certificate, and the webhook's."""

    requestheader: Authority
    """Signs the front proxy's."""

    pair: Pair
    """The front proxy's certificate."""

    @property
    def service_account(self) -> Path:
        return self.directory / "serviceaccount"

    @property
    def environ(self) -> dict[str, str]:
        return {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(self.api.port)}

    def mount_token(self, token: str) -> None:
        """Let *token* be the one that the kubelet has put there last, and the only one that is good."""
        (self.service_account / "token").write_text(token)
        self.api.users.clear()
        self.api.users[token] = ACCOUNT

    def configure_front_proxy(self, *, ca: str | None = None, allowed_names: Iterable[str] = ("front-proxy",)) -> None:
        """What kube-apiserver writes about its front proxy."""
        data = {
            "client-ca-file": self.authority.pem,
            "requestheader-client-ca-file": self.requestheader.pem if ca is None else ca,
            "requestheader-allowed-names": json.dumps(list(allowed_names)),
            "requestheader-username-headers": '["X-Remote-User"]',
            "requestheader-group-headers": '["X-Remote-Group"]',
            "requestheader-uid-headers": '["X-Remote-Uid"]',
            "requestheader-extra-headers-prefix": '["X-Remote-Extra-"]',
        }
        self.api.put("configmaps", "kube-system", "extension-apiserver-authentication", {"data": data})

    def write_certificate(self, authority: Authority | None = None) -> tuple[Path, Path]:
        """A new serving certificate for the webhook."""
        return (authority or self.authority).server(SERVICE, "127.0.0.1").write(self.directory, "serving")

    def options(self, **changes: Any) -> Options:
        certificate, key = self.directory / "serving.crt", self.directory / "serving.key"
        options: dict[str, Any] = {
            "listen": [("127.0.0.1", 0)],
            "certificate": certificate,
            "key": key,
            "group": GROUP,
            "solver": SOLVER,
            "service_account": self.service_account,
            "reads_challenges": False,
            "plain_http": PlainHttp(hosts=frozenset({"127.0.0.1"})),
        }
        return Options(**options | changes)

    @asynccontextmanager
    async def webhook(
        self, *, resolver: dns.asyncresolver.Resolver | None = None, ready: bool = True, **changes: Any
    ) -> AsyncIterator[int]:
        """A webhook in this event loop; gives its port, once it is ready."""
        sock = socket.create_server(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        stop = asyncio.Event()
        serving = asyncio.create_task(
            webhook.serve(self.options(**changes), self.environ, [sock], stop, resolver=resolver)
        )
        try:
            if ready:
                await self.until_ready(port)
            yield port
        finally:
            stop.set()
            await serving

    @asynccontextmanager
    async def process(self, *arguments: str, port: int) -> AsyncIterator[asyncio.subprocess.Process]:
        """`responder webhook` as a pod runs it, on *port*, once it is ready."""
        options = self.options()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "responder", "webhook", "--listen", f"127.0.0.1:{port}"),
            *("--tls-cert-file", str(options.certificate), "--tls-private-key-file", str(options.key)),
            *("--service-account-dir", str(options.service_account), "--plain-http-host", "127.0.0.1", *arguments),
            cwd=self.directory,
            env=self.environ,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            await self.until_ready(port)
            yield process
        finally:
            if process.returncode is None:
                process.terminate()
            await process.communicate()

    async def until_ready(self, port: int) -> None:
        """Wait as the kubelet does: it has no certificate, and looks at none."""
        async with self.front_proxy(port, pair=None) as kubelet:

            async def probe() -> None:
                while True:
                    try:
                        if (await kubelet.send("GET", "/readyz")).status == 200:
                            return
                    except (OSError, EOFError):
                        pass  # not listening yet
                    await asyncio.sleep(0.01)

            await asyncio.wait_for(probe(), PATIENCE)

    @asynccontextmanager
    async def front_proxy(self, port: int, **changes: Any) -> AsyncIterator[FrontProxy]:
        """The aggregator of this cluster's kube-apiserver."""
        options: dict[str, Any] = {"trusted": self.authority.pem, "pair": self.pair, "server_name": SERVICE} | changes
        async with front_proxy(port, **options) as proxy:
            yield proxy

    @asynccontextmanager
    async def cert_manager(self, port: int) -> AsyncIterator[CertManager]:
        """The cert-manager of this cluster."""
        async with self.front_proxy(port) as proxy:
            yield CertManager(proxy, self.api.rbac, GROUP, SOLVER)


@asynccontextmanager
async def fake_cluster(directory: Path, manifests: Iterable[Manifest] | None = None) -> AsyncIterator[FakeCluster]:
    """A cluster with the rules in *manifests*; with the least that works, if there are none."""
    authority, requestheader = Authority("kubernetes"), Authority("front-proxy-ca")
    api = FakeApi(Rbac(least_rbac() if manifests is None else manifests), {})
    cluster = FakeCluster(directory, api, authority, requestheader, requestheader.client("front-proxy"))
    cluster.service_account.mkdir()
    (cluster.service_account / "ca.crt").write_text(authority.pem)
    cluster.mount_token("first")
    cluster.configure_front_proxy()
    cluster.write_certificate()
    async with api.listening(authority):
        yield cluster
