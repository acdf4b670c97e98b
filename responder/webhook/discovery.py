"""
The discovery documents of the API server. Comments name the clients of each one; an error affects the whole cluster.

While the group of an aggregated API is unavailable or stale, Kubernetes deletes no namespace. Missing OpenAPI documents
fill the log of kube-apiserver.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from responder.webhook.payload import API_VERSION, PAYLOAD_KIND

VERSION = "v1alpha1"
"""The only version that cert-manager calls."""

_KIND_GROUP, _, _KIND_VERSION = API_VERSION.partition("/")
_VERBS = ["create"]
"""The only verb: garbage collection and quotas would use resources that have other verbs."""


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON document that never changes while the process runs."""

    content: bytes
    content_type: str
    etag: str

    @classmethod
    def of(cls, data: object, content_type: str = "application/json") -> Document:
        content = json.dumps(data).encode()
        return cls(content, content_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')

    def respond(self, request: web.Request) -> web.Response:
        """The document, or 304 if the client has it (RFC 9110, section 13.1.2)."""
        headers = {"ETag": self.etag, "Vary": "Accept"}
        known = [tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")]
        if self.etag in known:
            return web.Response(status=304, headers=headers)
        return web.Response(body=self.content, headers=headers | {"Content-Type": self.content_type})


class Discovery:
    """The documents for one *group* with one *solver* in it."""

    def __init__(self, group: str, solver: str) -> None:
        self._groups = Document.of({"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(group)]})
        self._aggregated = {
            version: Document.of(
                _aggregated(group, solver, version),
                f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList",
            )
            for version in ("v2", "v2beta1")
        }
        self._documents = {
            # Clients get this one from kube-apiserver itself.
            f"/apis/{group}": Document.of({"kind": "APIGroup", "apiVersion": "v1", **_group(group)}),
            # The availability check, every 30 s; discovery by kube-apiserver and by clients.
            f"/apis/{group}/{VERSION}": Document.of(_resources(group, solver)),
            # kube-apiserver, every minute; if the document is missing, it logs an error each time.
            "/openapi/v2": Document.of(
                {"swagger": "2.0", "info": {"title": "responder webhook", "version": VERSION}, "paths": {}}
            ),
            "/openapi/v3": Document.of({"paths": {}}),
        }

    def routes(self) -> list[web.RouteDef]:
        documents = (web.get(path, _handler_for(document)) for path, document in self._documents.items())
        return [web.get("/apis", self._apis), *documents]

    async def _apis(self, request: web.Request) -> web.Response:
        """Respond to aggregated discovery, by kube-apiserver every minute: it accepts only the types in its Accept."""
        for choice in request.headers.get("Accept", "").split(","):
            parameters = {part.strip() for part in choice.split(";")}
            for version, document in self._aggregated.items():
                if parameters >= {"g=apidiscovery.k8s.io", f"v={version}", "as=APIGroupDiscoveryList"}:
                    return document.respond(request)
        return self._groups.respond(request)


def _handler_for(document: Document) -> Any:
    async def handler(request: web.Request) -> web.Response:
        return document.respond(request)

    return handler


def _group(group: str) -> dict[str, Any]:
    version = {"groupVersion": f"{group}/{VERSION}", "version": VERSION}
    return {"name": group, "versions": [version], "preferredVersion": version}


def _resources(group: str, solver: str) -> dict[str, Any]:
    resource = {
        "name": solver,
        "singularName": PAYLOAD_KIND,
        "namespaced": False,
        "group": _KIND_GROUP,
        "version": _KIND_VERSION,
        "kind": PAYLOAD_KIND,
        "verbs": _VERBS,
    }
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{VERSION}",
        "resources": [resource],
    }


def _aggregated(group: str, solver: str, version: str) -> dict[str, Any]:
    resource = {
        "resource": solver,
        "responseKind": {"group": _KIND_GROUP, "version": _KIND_VERSION, "kind": PAYLOAD_KIND},
        "scope": "Cluster",
        "singularResource": PAYLOAD_KIND,
        "verbs": _VERBS,
    }
    versions = [{"version": VERSION, "freshness": "Current", "resources": [resource]}]
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{version}",
        "metadata": {},
        "items": [{"metadata": {"name": group, "creationTimestamp": None}, "versions": versions}],
    }
