"""
The real kubectl, with a cluster that has nothing in it but knows the kinds of what is applied.

kubectl wants to be told by a server which kinds there are, and what is there already, even for a client-side dry run.
It finds out whether a manifest is well-formed and names kinds that exist; for fields, see `tests.schemas`.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.e2e.programs import require

RESOURCES: dict[str, dict[str, tuple[str, bool]]] = {
    "v1": {
        "Namespace": ("namespaces", False),
        "ConfigMap": ("configmaps", True),
        "Secret": ("secrets", True),
        "Service": ("services", True),
        "ServiceAccount": ("serviceaccounts", True),
    },
    "apps/v1": {"Deployment": ("deployments", True), "StatefulSet": ("statefulsets", True)},
    "policy/v1": {"PodDisruptionBudget": ("poddisruptionbudgets", True)},
    "networking.k8s.io/v1": {"NetworkPolicy": ("networkpolicies", True)},
    "rbac.authorization.k8s.io/v1": {
        "Role": ("roles", True),
        "RoleBinding": ("rolebindings", True),
        "ClusterRole": ("clusterroles", False),
        "ClusterRoleBinding": ("clusterrolebindings", False),
    },
    "apiregistration.k8s.io/v1": {"APIService": ("apiservices", False)},
    "cert-manager.io/v1": {
        "Issuer": ("issuers", True),
        "ClusterIssuer": ("clusterissuers", False),
        "Certificate": ("certificates", True),
    },
}
"""The kinds of each group and version: their resources, and whether they are in namespaces."""


def apply(manifest: str, directory: Path) -> list[str]:
    """What `kubectl apply --dry-run=client` says, a line for each object. It has its caches in *directory*."""
    kubectl = require("kubectl")
    with _cluster() as server:
        options = [f"--server={server}", f"--cache-dir={directory}", "--validate=false", "--dry-run=client"]
        done = subprocess.run(
            [kubectl, "--kubeconfig=/dev/null", *options, "apply", "-f", "-"],
            input=manifest,
            capture_output=True,
            text=True,
            check=False,
        )
    assert (0, "") == (done.returncode, done.stderr), done
    return done.stdout.splitlines()


@contextmanager
def _cluster() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Cluster)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Cluster(BaseHTTPRequestHandler):
    """Discovery as it was before it was aggregated, which every kubectl still takes; nothing else is there."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # http.server's name
        path = self.path.partition("?")[0].strip("/")
        found = _discovery(path)
        answer = found or {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
        body = json.dumps(answer).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # http.server's name
        """Say nothing."""


def _discovery(path: str) -> dict[str, Any] | None:
    if path == "api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "apis":
        groups = [
            {"name": version.partition("/")[0], "versions": [_version(version)], "preferredVersion": _version(version)}
            for version in RESOURCES
            if "/" in version
        ]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    kinds = RESOURCES.get(path.removeprefix("apis/").removeprefix("api/"))
    if kinds is None:
        return None
    resources = [
        {"name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": ["create", "get", "patch"]}
        for kind, (name, namespaced) in kinds.items()
    ]
    version = path.removeprefix("apis/").removeprefix("api/")
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}


def _version(group_version: str) -> dict[str, str]:
    return {"groupVersion": group_version, "version": group_version.partition("/")[2]}
