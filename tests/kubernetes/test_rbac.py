"""The tests' own access control decides as Kubernetes does: what it let through wrongly would prove nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.kubernetes.rbac import Attributes, Manifest, Rbac, User

ALICE = User("alice", ("developers", "system:authenticated"))
ROBOT = User.service_account("team-a", "robot")


def _rbac(kind: str, binding: str, subject: dict[str, str], namespace: str = "team-a", **rule: Any) -> Rbac:
    """One role with one rule, bound once."""
    role: Manifest = {"kind": kind, "metadata": {"name": "r", "namespace": namespace}, "rules": [rule]}
    if kind == "ClusterRole":
        role = {**role, "metadata": {"name": "r"}}
    metadata = {"name": "b"} | ({"namespace": "team-a"} if binding == "RoleBinding" else {})
    bound = {"kind": binding, "metadata": metadata, "roleRef": {"kind": kind, "name": "r"}, "subjects": [subject]}
    return Rbac([role, bound])


SECRETS: dict[str, Any] = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}
GET = Attributes("get", "", "secrets", "team-a", "token")
ACCOUNT = {"kind": "ServiceAccount", "name": "robot", "namespace": "team-a"}


@pytest.mark.parametrize(
    ("rbac", "user", "what", "expected"),
    [
        (_rbac("Role", "RoleBinding", ACCOUNT, **SECRETS), ROBOT, GET, True),
        (_rbac("Role", "RoleBinding", ACCOUNT, **SECRETS), ALICE, GET, False),
        (_rbac("Role", "RoleBinding", {"kind": "Group", "name": "developers"}, **SECRETS), ALICE, GET, True),
        (_rbac("Role", "RoleBinding", {"kind": "User", "name": "alice"}, **SECRETS), ALICE, GET, True),
        # A Role counts in its own namespace, and so does a ClusterRole that a RoleBinding gives.
        (_rbac("Role", "RoleBinding", ACCOUNT, namespace="team-b", **SECRETS), ROBOT, GET, False),
        (_rbac("ClusterRole", "RoleBinding", ACCOUNT, **SECRETS), ROBOT, GET, True),
        (
            _rbac("ClusterRole", "RoleBinding", ACCOUNT, **SECRETS),
            ROBOT,
            Attributes("get", "", "secrets", "team-b", "token"),
            False,
        ),
        (
            _rbac("ClusterRole", "ClusterRoleBinding", ACCOUNT, **SECRETS),
            ROBOT,
            Attributes("get", "", "secrets", "team-b", "token"),
            True,
        ),
        # Verbs, groups, resources and names have to fit; list has no name that could.
        (_rbac("Role", "RoleBinding", ACCOUNT, **SECRETS), ROBOT, Attributes("list", "", "secrets", "team-a"), False),
        (_rbac("Role", "RoleBinding", ACCOUNT, **SECRETS), ROBOT, Attributes("get", "x", "secrets", "team-a"), False),
        (_rbac("Role", "RoleBinding", ACCOUNT, **SECRETS, resourceNames=["token"]), ROBOT, GET, True),
        (_rbac("Role", "RoleBinding", ACCOUNT, **SECRETS, resourceNames=["other"]), ROBOT, GET, False),
        (
            _rbac("Role", "RoleBinding", ACCOUNT, **SECRETS | {"verbs": ["*"]}, resourceNames=["token"]),
            ROBOT,
            Attributes("list", "", "secrets", "team-a"),
            False,
        ),
        # What is no resource is for ClusterRoles, and system:masters may do anything.
        (Rbac([]), ROBOT, Attributes("get", path="/apis/acme.responder.dev/v1alpha1"), True),
        (Rbac([]), User("nobody"), Attributes("get", path="/apis/acme.responder.dev/v1alpha1"), False),
        (Rbac([]), ROBOT, Attributes("get", path="/metrics"), False),
        (Rbac([]), User("admin", ("system:masters",)), GET, True),
        (Rbac([]), ROBOT, GET, False),
    ],
)
def test_decisions(rbac: Rbac, user: User, what: Attributes, expected: bool) -> None:  # noqa: FBT001
    """Nothing is allowed that no rule allows to that very user, in that very place."""
    assert expected == rbac.allows(user, what)
