"""
A client of the Kubernetes API with the four requests that the solver needs and that its service account may make.

It finds the cluster as every client in a pod does: by two environment variables and the mounted files of the service
account. It reads these files again for each request, because the kubelet rotates them.
"""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import structlog
from yarl import URL

from responder.errors import CannotStart, ClusterUnavailable, Forbidden, NotFound
from responder.logs import Outage
from responder.webhook.trust import client_context

REQUEST_DEADLINE = 4.0
"""Seconds for one request. It usually takes milliseconds, and cert-manager is waiting."""

SETTLED = 30.0
"""Seconds without an error after which the API counts as working again: some requests may succeed while others fail."""

WORKING = frozenset({200, 201, 403, 404})
"""Statuses that a working API returns."""

PAGE = 500
"""Challenges per request, as many as kubectl requests."""

_REFUSAL = re.compile(r'.+ is forbidden: User "[^"]*" cannot .+? (in the namespace "[^"]*"|at the cluster scope)')
"""
The part of a refusal that kube-apiserver itself writes: the account and the object, always with the same words. The
reasons of its authorizers follow, for example missing roles; their order changes, so that they are left out.
"""

_log = structlog.get_logger("webhook")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who sends a request, as the Kubernetes API names users."""

    user: str
    groups: tuple[str, ...]
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]]


class Cluster:
    """A client of the Kubernetes API. Its methods raise `ClusterUnavailable`, and `Forbidden` or `NotFound`."""

    def __init__(self, url: URL, directory: Path) -> None:
        """*directory* holds the service account's `token` and `ca.crt`. Raises `CannotStart` if it does not."""
        self._url = url
        self._directory = directory
        self._trusted = "", ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._outage = Outage(
            _log, "the Kubernetes API does not answer", "the Kubernetes API answers again", settled=SETTLED
        )
        try:
            self._credentials()
        except ClusterUnavailable as fault:
            raise CannotStart(str(fault)) from None

    @classmethod
    def around(cls, environ: Mapping[str, str], directory: Path) -> Self:
        """The cluster that this process runs in. Raises `CannotStart` outside of a cluster."""
        try:
            host, port = environ["KUBERNETES_SERVICE_HOST"], int(environ["KUBERNETES_SERVICE_PORT"])
            url = URL.build(scheme="https", host=host, port=port)
        except (KeyError, ValueError):
            raise CannotStart(
                "the webhook must run in a pod of a Kubernetes cluster: KUBERNETES_SERVICE_HOST and"
                " KUBERNETES_SERVICE_PORT are missing or invalid"
            ) from None
        return cls(url, directory)

    async def __aenter__(self) -> Self:
        # The session uses no HTTP proxy, because the API is in the same cluster.
        self._session = aiohttp.ClientSession()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._session.close()

    async def config_map(self, namespace: str, name: str) -> Mapping[str, str]:
        """The data of a ConfigMap."""
        found = await self._ask("GET", f"/api/v1/namespaces/{namespace}/configmaps/{name}")
        return found.get("data") or {}

    async def secret(self, namespace: str, name: str) -> Mapping[str, bytes]:
        """The data of a Secret."""
        found = await self._ask("GET", f"/api/v1/namespaces/{namespace}/secrets/{name}")
        return {key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()}

    async def challenges(self, namespace: str) -> list[Mapping[str, Any]]:
        """The specs of all of cert-manager's Challenges in the namespace."""
        specs: list[Mapping[str, Any]] = []
        page = {"limit": str(PAGE)}
        while True:
            found = await self._ask("GET", f"/apis/acme.cert-manager.io/v1/namespaces/{namespace}/challenges", page)
            specs += [item["spec"] for item in found["items"]]
            more = found["metadata"].get("continue")
            if not more:
                return specs
            page = {"limit": str(PAGE), "continue": more}

    async def allows(self, caller: Caller, attributes: Mapping[str, Any]) -> bool:
        """Whether the cluster's rules allow *caller* the action in *attributes* (by a SubjectAccessReview)."""
        review = {
            "kind": "SubjectAccessReview",
            "apiVersion": "authorization.k8s.io/v1",
            "spec": {
                "user": caller.user,
                "groups": list(caller.groups),
                "uid": caller.uid,
                "extra": {key: list(values) for key, values in caller.extra.items()},
                **attributes,
            },
        }
        reviewed = await self._ask("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body=review)
        return reviewed["status"].get("allowed") is True

    async def _ask(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: object = None
    ) -> dict[str, Any]:
        token, trust = self._credentials()
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        url = self._url.with_path(path).with_query(query)
        request = partial(self._request, method, url, json=body, headers=headers, ssl=trust, allow_redirects=False)
        try:
            async with asyncio.timeout(REQUEST_DEADLINE):
                # A server may close an idle connection just when it is used again. All requests can be repeated.
                with suppress(aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                    return await request()
                return await request()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as fault:
            self._outage.goes_on(f"{type(fault).__name__}: {fault}", path=path)
            raise ClusterUnavailable(
                "the Kubernetes API does not answer the webhook: check that no network policy blocks it"
            ) from None

    async def _request(self, *request: Any, **options: Any) -> dict[str, Any]:
        async with self._session.request(*request, **options) as response:
            document = await response.json(content_type=None)
            if not isinstance(document, dict):
                raise ValueError("the response is not a JSON object")
            if response.status in WORKING:
                self._outage.is_over()
            else:
                reason = f"status {response.status}: {document.get('message')}"
                self._outage.goes_on(reason, path=response.url.raw_path)
            return _read(response.status, document)

    def _credentials(self) -> tuple[str, ssl.SSLContext]:
        """The service account's token and the CA certificates of its cluster, as they are on disk now."""
        try:
            token = (self._directory / "token").read_text().strip()
            pem = (self._directory / "ca.crt").read_text()
            if pem != self._trusted[0]:
                self._trusted = pem, client_context(pem)
        except (OSError, ValueError) as fault:  # ssl.SSLError is an OSError
            raise ClusterUnavailable(
                f"cannot read the service account in {self._directory} ({fault.args[-1]}): check that the pod mounts it"
                " (automountServiceAccountToken)"
            ) from None
        return token, self._trusted[1]


def _read(status: int, document: dict[str, Any]) -> dict[str, Any]:
    """The document of a successful response. Raises what its status means."""
    message = str(document.get("message"))
    match status:
        case 200 | 201:
            return document
        case 403:
            own = _REFUSAL.match(message)
            raise Forbidden(own[0] if own else "kube-apiserver gives no reason")
        case 404:
            raise NotFound(message)
        case _:
            raise ClusterUnavailable(
                f"the Kubernetes API answers the webhook with status {status}: the webhook's log has its reason"
            )
