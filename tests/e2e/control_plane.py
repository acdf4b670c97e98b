"""
A Kubernetes control plane without controllers and nodes: etcd and kube-apiserver, one program that `.ci/tools` builds.

The addresses of Services are loopback ones, so that who is to be one can listen there: nobody needs a kube-proxy.
"""

from __future__ import annotations

import base64
import json
import secrets
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

import pytest

from tests.support import gobuilt
from tests.support.kubernetes.certificates import Authority, Pair
from tests.support.ports import free_port
from tests.support.processes import PATIENCE

from .programs import running, wait_until
from .service import Reply

Object = dict[str, Any]

_SERVICES = "127.96.0.0/16"
"""What Services get their addresses from."""

_NOWHERE = "192.0.2.1"
"""Where a pod or kube-apiserver is said to be; nothing is ever sent there (RFC 5737)."""

_APPLY = "application/apply-patch+yaml"
_JSON = "application/json"


@dataclass
class ControlPlane:
    """A running kube-apiserver."""

    port: int
    authority: Authority
    """Signs its certificate."""

    proxy: Pair
    """The certificate of its front proxy, and the key."""

    proxies: Authority
    """Signs that."""

    administrator: str = field(default_factory=secrets.token_urlsafe, repr=False)
    """The token of somebody who may do everything."""

    _resources: dict[str, dict[str, tuple[str, bool]]] = field(default_factory=dict)

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = None,
        content_type: str = _JSON,
        accept: str = _JSON,
    ) -> Reply:
        """One request, with the administrator's token unless another one is given."""
        context = ssl.create_default_context(cadata=self.authority.pem)
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # as Go
        headers = {
            "Authorization": f"Bearer {self.administrator if token is None else token}",
            "Content-Type": content_type,
            "Accept": accept,
        }
        connection = HTTPSConnection("127.0.0.1", self.port, context=context, timeout=PATIENCE)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        is_json = "json" in response.headers.get_content_subtype()
        return Reply(response.status, json.loads(content) if is_json else content.decode())

    def apply(self, each: Object, *, manager: str = "tests") -> Object:
        """Server-side apply. It has to be taken, and unknown fields are not."""
        reply = self.ask(
            "PATCH",
            f"{self.path(each)}?fieldManager={manager}&force=true&fieldValidation=Strict",
            each,
            content_type=_APPLY,
        )
        assert reply.status in (200, 201), (each["kind"], each["metadata"]["name"], reply.body)
        applied: Object = reply.body
        return applied

    def attempt(self, each: Object) -> Reply:
        """A dry run of making *each*, with all that the server looks at before it keeps an object."""
        directory, _, _ = self.path(each).rpartition("/")
        return self.ask("POST", f"{directory}?dryRun=All&fieldValidation=Strict", each)

    def get(self, kind: str, version: str, name: str, namespace: str | None = None) -> Object:
        """An object that is there."""
        metadata = {"name": name} | ({} if namespace is None else {"namespace": namespace})
        reply = self.ask("GET", self.path({"kind": kind, "apiVersion": version, "metadata": metadata}))
        assert reply.status == 200, reply.body
        found: Object = reply.body
        return found

    def token(self, namespace: str, account: str) -> str:
        """A token for a service account, which is made if it is not there, as the kubelet mounts one."""
        self.apply(
            {"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": account, "namespace": namespace}}
        )
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        reply = self.ask("POST", path, {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {}})
        assert reply.status == 201, reply.body
        return str(reply.body["status"]["token"])

    def kubeconfig(self, path: Path, *, token: str | None = None) -> None:
        """Write what makes the administrator, or who has *token*, of any program that takes such a file."""
        certificates = base64.b64encode(self.authority.pem.encode()).decode()
        cluster = {"server": f"https://127.0.0.1:{self.port}", "certificate-authority-data": certificates}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "only", "cluster": cluster}],
            "users": [{"name": "only", "user": {"token": token or self.administrator}}],
            "contexts": [{"name": "only", "context": {"cluster": "only", "user": "only"}}],
            "current-context": "only",
        }
        path.write_text(json.dumps(document))

    def path(self, each: Mapping[str, Any]) -> str:
        """Where an object is kept."""
        version, metadata = each["apiVersion"], each["metadata"]
        if each["kind"] not in self._resources.setdefault(version, {}):
            wait_until(lambda: each["kind"] in self._discover(version), f"{each['kind']} of {version} is known")
        resource, namespaced = self._resources[version][each["kind"]]
        root = f"/api/{version}" if "/" not in version else f"/apis/{version}"
        inside = f"/namespaces/{metadata['namespace']}" if namespaced else ""
        return f"{root}{inside}/{resource}/{metadata['name']}"

    def _discover(self, version: str) -> dict[str, tuple[str, bool]]:
        reply = self.ask("GET", f"/api/{version}" if "/" not in version else f"/apis/{version}")
        if reply.status == 200:
            self._resources[version] = {
                found["kind"]: (found["name"], found["namespaced"])
                for found in reply.body["resources"]
                if "/" not in found["name"]
            }
        return self._resources[version]


@contextmanager
def control_plane(directory: Path) -> Iterator[ControlPlane]:
    """A cluster with nothing in it but what kube-apiserver makes itself. Skips the test without the program."""
    program = gobuilt.find("kube-apiserver-etcd")
    if program is None:  # not everywhere where there is a Go: see .ci/tools
        pytest.skip("kube-apiserver-etcd is not installed: .ci/tools builds it")
    proxies, accounts = Authority("front-proxy-ca"), Authority("accounts").client("accounts")
    plane = ControlPlane(free_port(), Authority("kubernetes"), proxies.client("front-proxy-client"), proxies)
    files = {
        "tls": plane.authority.server("127.0.0.1", "kubernetes.default.svc").write(directory, "kube-apiserver"),
        "proxy": plane.proxy.write(directory, "front-proxy"),
        "accounts": accounts.write(directory, "accounts"),
    }
    (directory / "front-proxies.crt").write_text(proxies.pem)
    (directory / "users.csv").write_text(f'{plane.administrator},administrator,administrator,"system:masters"\n')
    with _etcd(program, directory) as etcd:
        flags = {
            "etcd-servers": etcd,
            "bind-address": "127.0.0.1",
            "advertise-address": _NOWHERE,
            "secure-port": plane.port,
            "tls-cert-file": files["tls"][0],
            "tls-private-key-file": files["tls"][1],
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": files["accounts"][0],
            "service-account-signing-key-file": files["accounts"][1],
            "service-cluster-ip-range": _SERVICES,
            "token-auth-file": directory / "users.csv",
            "authorization-mode": "RBAC",
            "proxy-client-cert-file": files["proxy"][0],
            "proxy-client-key-file": files["proxy"][1],
            "requestheader-client-ca-file": directory / "front-proxies.crt",
            "requestheader-allowed-names": "front-proxy-client",
            "requestheader-username-headers": "X-Remote-User",
            "requestheader-uid-headers": "X-Remote-Uid",
            "requestheader-group-headers": "X-Remote-Group",
            "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        }
        with running([program, *_options(flags)], directory) as apiserver:
            apiserver.wait_until_ready(lambda: _is_ready(plane))
            yield plane


@contextmanager
def _etcd(program: str, directory: Path) -> Iterator[str]:
    (directory / "etcd").mkdir()
    url, peers = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    flags = {
        "data-dir": directory / "etcd" / "data",
        "listen-client-urls": url,
        "advertise-client-urls": url,
        "listen-peer-urls": peers,
        "initial-advertise-peer-urls": peers,
        "initial-cluster": f"default={peers}",
        "unsafe-no-fsync": "true",  # nothing here outlives the test
    }
    with running([program, "etcd", *_options(flags)], directory / "etcd"):
        yield url


def _options(flags: Mapping[str, object]) -> list[str]:
    return [f"--{name}={value}" for name, value in flags.items()]


def _is_ready(plane: ControlPlane) -> bool:
    try:
        return plane.ask("GET", "/readyz").status == 200
    except (OSError, HTTPException):
        return False


def endpoint_slice(namespace: str, service: str, port: int, name: str) -> Object:
    """What says that a Service has a pod that is ready; the controller that makes it is not here."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{service}-1",
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [_NOWHERE], "conditions": {"ready": True}}],
        "ports": [{"name": name, "port": port, "protocol": "TCP"}],
    }
