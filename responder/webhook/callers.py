"""
Who may call the webhook. The front proxy (kube-apiserver) authenticates with its client certificate, and its headers
name the caller. The RBAC rules of the cluster decide what the caller may do. kube-apiserver has checked them already;
the webhook checks them again, for requests that reach it without kube-apiserver.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Self
from urllib.parse import unquote

from aiohttp import web

from responder.errors import ClusterUnavailable, Forbidden, InvalidConfiguration, Unauthenticated
from responder.webhook.cluster import Caller, Cluster

CONFIG_MAP = "kube-system", "extension-apiserver-authentication"
"""Where kube-apiserver publishes how to recognize its front proxy."""

AUTHENTICATED, MASTERS = "system:authenticated", "system:masters"

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
"""The verbs of Kubernetes for HTTP methods; all other methods read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontProxy:
    """How to recognize the front proxy, and in which headers it names the caller. *ca* is PEM."""

    ca: str
    allowed_names: frozenset[str]
    user_headers: tuple[str, ...]
    group_headers: tuple[str, ...]
    uid_headers: tuple[str, ...]
    extra_prefixes: tuple[str, ...]

    @classmethod
    def parse(cls, data: Mapping[str, str]) -> Self:
        """Read the ConfigMap. Raises `InvalidConfiguration`."""
        if "requestheader-client-ca-file" not in data:
            fault = "names no front proxy: start kube-apiserver with --requestheader-client-ca-file"
            raise InvalidConfiguration([f"ConfigMap {'/'.join(CONFIG_MAP)} {fault}"])
        return cls(
            ca=data["requestheader-client-ca-file"],
            allowed_names=frozenset(_names(data, "requestheader-allowed-names")),
            user_headers=_names(data, "requestheader-username-headers"),
            group_headers=_names(data, "requestheader-group-headers"),
            uid_headers=_names(data, "requestheader-uid-headers"),
            extra_prefixes=tuple(map(str.lower, _names(data, "requestheader-extra-headers-prefix"))),
        )

    def caller(self, request: web.BaseRequest) -> Caller:
        """
        The caller that the front proxy names. Headers of other clients are ignored.

        TLS has verified the client certificate if there is one, but does not require one. Raises `Unauthenticated`.
        """
        certificate = request.get_extra_info("peercert")
        if not certificate:
            raise Unauthenticated(
                "there is no client certificate: only kube-apiserver's front proxy may call the webhook"
            )
        if self.allowed_names and _common_name(certificate) not in self.allowed_names:
            raise Unauthenticated("the client certificate's name is not among the front proxy's allowed names")
        user = next(self._values(request, self.user_headers), "")
        if not user:
            raise Unauthenticated("the front proxy does not name the user that it calls for")
        groups = tuple(self._values(request, self.group_headers))
        uid = next(self._values(request, self.uid_headers), "")
        extra = self._extra(request)
        try:
            "".join((user, uid, *groups, *extra, *chain(*extra.values()))).encode()
        except UnicodeEncodeError:  # kube-apiserver could read another name from such octets
            raise Unauthenticated("the front proxy's headers are not valid Unicode") from None
        # Some of kube-apiserver's own requests name no group.
        return Caller(user=user, groups=tuple(dict.fromkeys((*groups, AUTHENTICATED))), uid=uid, extra=extra)

    @staticmethod
    def _values(request: web.BaseRequest, headers: Iterable[str]) -> Iterator[str]:
        return (value for header in headers for value in request.headers.getall(header, ()))

    def _extra(self, request: web.BaseRequest) -> dict[str, tuple[str, ...]]:
        """The extra attributes of the caller, with keys in lower case and percent-decoded."""
        extra: dict[str, tuple[str, ...]] = {}
        for header, value in request.headers.items():
            for prefix in self.extra_prefixes:
                if header.lower().startswith(prefix):
                    key = unquote(header.lower()[len(prefix) :])
                    extra[key] = (*extra.get(key, ()), value)
                    break
        return extra


class Gate:
    """Admits or rejects requests. Until *front_proxy* is known, it rejects all; *waiting_for* is the reason."""

    def __init__(self, cluster: Cluster, *, group: str, version: str) -> None:
        self.front_proxy: FrontProxy | None = None
        self.waiting_for = f"ConfigMap {'/'.join(CONFIG_MAP)} has not been read yet"
        self._cluster = cluster
        self._group, self._version = group, version

    async def admit(self, request: web.BaseRequest) -> Caller:
        """The caller, if the request is allowed. Raises `Unauthenticated`, `Forbidden`, `ClusterUnavailable`."""
        if self.front_proxy is None:
            raise ClusterUnavailable(self.waiting_for)
        caller = self.front_proxy.caller(request)
        if MASTERS in caller.groups:
            return caller
        attributes = self._attributes(request)
        if not await self._ask(caller, attributes):
            ((_, what),) = attributes.items()
            of = f"resource {what['resource']} of group {self._group}" if "resource" in what else f"path {what['path']}"
            raise Forbidden(f"{caller.user} may not {what['verb']} {of}: bind it to a ClusterRole that allows this")
        return caller

    async def _ask(self, caller: Caller, attributes: Mapping[str, Any]) -> bool:
        try:
            return await self._cluster.allows(caller, attributes)
        except Forbidden as refusal:  # the webhook lacks a permission, and the caller cannot fix that
            raise ClusterUnavailable(f"the webhook may not create SubjectAccessReviews: {refusal}") from None

    def _attributes(self, request: web.BaseRequest) -> dict[str, dict[str, str]]:
        """The attributes of the request, as a SubjectAccessReview names them."""
        verb = _VERBS.get(request.method, "get")
        prefix = f"/apis/{self._group}/{self._version}/"
        resource, _, _ = request.path.removeprefix(prefix).partition("/")
        if request.path.startswith(prefix) and resource:
            attributes = {"group": self._group, "version": self._version, "resource": resource, "verb": verb}
            return {"resourceAttributes": attributes}
        return {"nonResourceAttributes": {"path": request.path, "verb": request.method.lower()}}


def _common_name(certificate: Mapping[str, Any]) -> str:
    """The common name of the certificate; the last one if there are several, as in Go."""
    names = [value for rdn in certificate["subject"] for key, value in rdn if key == "commonName"]
    return names[-1] if names else ""


def _names(data: Mapping[str, str], key: str) -> tuple[str, ...]:
    """The JSON array of strings under *key*; kube-apiserver leaves out some keys."""
    try:
        names = json.loads(data.get(key) or "[]")
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InvalidConfiguration([f"ConfigMap {'/'.join(CONFIG_MAP)}: {key} is not a JSON array of strings"])
    return tuple(names)
