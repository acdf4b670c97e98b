"""
The Kubernetes API, as far as a webhook asks it: bearer tokens, RBAC on every request, and the objects of a dictionary.

What no rule allows is refused with the Status, and the words, of kube-apiserver. Every request is on record.
"""

from __future__ import annotations

import base64
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.support.kubernetes.certificates import Authority, Pair
from tests.support.kubernetes.rbac import Attributes, Rbac, User

PAGE = 2
"""Objects in a page at most, whatever is asked for: few, so that whoever ignores `continue` shows it."""

Objects = dict[tuple[str, str, str], dict[str, Any]]
"""By resource, namespace and name."""


@dataclass
class FakeApi:
    """The API server's state; a test may change it at any time."""

    rbac: Rbac
    users: dict[str, User]
    objects: Objects = field(default_factory=dict)
    asked: list[tuple[User, Attributes]] = field(default_factory=list)
    reviews: list[Mapping[str, Any]] = field(default_factory=list)
    fault: Callable[[web.BaseRequest, Attributes], web.Response | None] = lambda *_: None
    """Answers instead of what is right, if it likes."""

    port: int = 0

    def put_secret(self, namespace: str, name: str, **data: str | bytes) -> None:
        encoded = {key: base64.b64encode(v.encode() if isinstance(v, str) else v).decode() for key, v in data.items()}
        self.put("secrets", namespace, name, {"data": encoded})

    def put(self, resource: str, namespace: str, name: str, content: Mapping[str, Any]) -> None:
        metadata = {"namespace": namespace, "name": name}
        self.objects[resource, namespace, name] = {"metadata": metadata, **content}

    @asynccontextmanager
    async def listening(self, authority: Authority) -> AsyncIterator[int]:
        """On a loopback port, with a server certificate by *authority*."""
        pair = authority.server("127.0.0.1", "kubernetes.default.svc")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        load_pair(context, pair)
        runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", self.port, ssl_context=context).start()
            self.port = runner.addresses[0][1]
            yield self.port
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        user = self.users.get(token) if scheme == "Bearer" else None
        if user is None:
            return _status(401, "Unauthorized", "Unauthorized")
        what = _attributes(request)
        if (answer := self.fault(request, what)) is not None:
            return answer
        self.asked.append((user, what))
        if not self.rbac.allows(user, what):
            return _status(403, "Forbidden", _refusal(user, what))
        if what.resource == "subjectaccessreviews":
            return self._review(await request.json())
        if what.verb == "list":
            return self._list(request, what)
        found = self.objects.get((what.resource, what.namespace, what.name))
        if found is None:
            return _status(404, "NotFound", f'{what.resource} "{what.name}" not found')
        return web.json_response(found)

    def _review(self, review: Mapping[str, Any]) -> web.Response:
        spec = review["spec"]
        self.reviews.append(spec)
        user = User(spec["user"], tuple(spec.get("groups") or ()))
        if resource := spec.get("resourceAttributes"):
            what = Attributes(resource["verb"], resource["group"], resource["resource"])
        else:
            what = Attributes(spec["nonResourceAttributes"]["verb"], path=spec["nonResourceAttributes"]["path"])
        return web.json_response({**review, "status": {"allowed": self.rbac.allows(user, what)}}, status=201)

    def _list(self, request: web.BaseRequest, what: Attributes) -> web.Response:
        start, limit = int(request.query.get("continue", 0)), int(request.query.get("limit", PAGE))
        found = [
            o for (resource, ns, _), o in self.objects.items() if (resource, ns) == (what.resource, what.namespace)
        ]
        end = start + min(limit, PAGE)
        metadata = {"resourceVersion": "1"} | ({"continue": str(end)} if end < len(found) else {})
        return web.json_response({"kind": "List", "metadata": metadata, "items": found[start:end]})


def _attributes(request: web.BaseRequest) -> Attributes:
    """What a request asks for: /api/v1/... or /apis/GROUP/VERSION/..., with or without a namespace."""
    parts = request.path.strip("/").split("/")
    group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1], parts[3:])
    namespace, rest = (rest[1], rest[2:]) if rest[0] == "namespaces" and len(rest) > 2 else ("", rest)
    resource, name = rest[0], rest[1] if len(rest) > 1 else ""
    verb = {"POST": "create"}.get(request.method, "get" if name else "list")
    return Attributes(verb, group, resource, namespace, name)


def _refusal(user: User, what: Attributes) -> str:
    of = f"{what.resource}.{what.group}" if what.group else what.resource
    named = f'{of} "{what.name}"' if what.name else of
    where = f'in the namespace "{what.namespace}"' if what.namespace else "at the cluster scope"
    return (
        f'{named} is forbidden: User "{user.name}" cannot {what.verb} resource "{what.resource}" in API group'
        f' "{what.group}" {where}'
    )


def _status(code: int, reason: str, message: str) -> web.Response:
    document = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }
    return web.json_response(document, status=code)


def load_pair(context: ssl.SSLContext, pair: Pair) -> None:
    """Give *context* a certificate of its own, which OpenSSL reads from files only."""
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(pair.certificate + pair.key)
        file.flush()
        context.load_cert_chain(file.name)
