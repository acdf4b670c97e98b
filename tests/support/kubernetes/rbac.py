"""
Kubernetes' role-based access control: decides as kube-apiserver does, from the very manifests that one would apply.

Everything that is not allowed by a rule is refused. Aggregated roles and impersonation are not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Manifest = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class User:
    """Who asks."""

    name: str
    groups: tuple[str, ...] = ()

    @classmethod
    def service_account(cls, namespace: str, name: str) -> User:
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
        return cls(f"system:serviceaccount:{namespace}:{name}", groups)


@dataclass(frozen=True, slots=True)
class Attributes:
    """What is asked for. *name* is empty for list and create; *path* is for what is no resource."""

    verb: str
    group: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""


BUILT_IN: tuple[Manifest, ...] = (
    {
        "kind": "ClusterRole",
        "metadata": {"name": "system:discovery"},
        "rules": [
            {
                "nonResourceURLs": ["/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*", "/version"],
                "verbs": ["get"],
            }
        ],
    },
    {
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "system:discovery"},
        "roleRef": {"kind": "ClusterRole", "name": "system:discovery"},
        "subjects": [{"kind": "Group", "name": "system:authenticated"}],
    },
    {
        "kind": "Role",
        "metadata": {"name": "extension-apiserver-authentication-reader", "namespace": "kube-system"},
        "rules": [
            {
                "apiGroups": [""],
                "resources": ["configmaps"],
                "resourceNames": ["extension-apiserver-authentication"],
                "verbs": ["get", "list", "watch"],
            }
        ],
    },
    {
        "kind": "ClusterRole",
        "metadata": {"name": "system:auth-delegator"},
        "rules": [
            {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
            {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]},
        ],
    },
)
"""What every cluster comes with, as far as a webhook is concerned."""


class Rbac:
    """The rules of a cluster: those of *manifests* (other kinds are passed over), and the built-in ones."""

    def __init__(self, manifests: Iterable[Manifest]) -> None:
        everything = [*BUILT_IN, *manifests]
        self._bindings = [each for each in everything if each["kind"] in ("RoleBinding", "ClusterRoleBinding")]
        self._roles = {
            (each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]): each
            for each in everything
            if each["kind"] in ("Role", "ClusterRole")
        }

    def allows(self, user: User, what: Attributes) -> bool:
        """Whether some rule lets *user* do it."""
        return "system:masters" in user.groups or any(_matches(rule, what) for rule in self._rules(user, what))

    def _rules(self, user: User, what: Attributes) -> Iterator[Mapping[str, Any]]:
        for binding in self._bindings:
            namespace = binding["metadata"].get("namespace", "")
            if binding["kind"] == "RoleBinding" and (not what.namespace or namespace != what.namespace):
                continue
            if not any(_is(user, subject, namespace) for subject in binding.get("subjects", ())):
                continue
            ref = binding["roleRef"]
            role = self._roles.get((ref["kind"], namespace if ref["kind"] == "Role" else "", ref["name"]))
            yield from role["rules"] if role else ()


def _is(user: User, subject: Mapping[str, Any], namespace: str) -> bool:
    match subject["kind"]:
        case "Group":
            return subject["name"] in user.groups
        case "ServiceAccount":
            account = f"system:serviceaccount:{subject.get('namespace', namespace)}:{subject['name']}"
            return user.name == account
        case _:
            return bool(user.name == subject["name"])


def _matches(rule: Mapping[str, Any], what: Attributes) -> bool:
    if not _any(rule["verbs"], what.verb):
        return False
    if what.path:
        return any(
            url == what.path or (url.endswith("*") and what.path.startswith(url[:-1]))
            for url in rule.get("nonResourceURLs", ())
        )
    return (
        _any(rule.get("apiGroups", ()), what.group)
        and _any(rule.get("resources", ()), what.resource)
        and (not rule.get("resourceNames") or what.name in rule["resourceNames"])
    )


def _any(patterns: Iterable[str], word: str) -> bool:
    return any(pattern in ("*", word) for pattern in patterns)
