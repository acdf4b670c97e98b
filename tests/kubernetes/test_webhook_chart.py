"""The chart of the webhook: that it can be reached, that it stays, and that it may do what it must and no more."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from responder.webhook.main import DRAIN
from tests.support import charts, gobuilt, schemas
from tests.support.charts import Object, one, pods, rendered, stored

WEBHOOK = "responder-webhook"


@pytest.fixture
def helm() -> str:
    """The program."""
    return gobuilt.require("helm")


def test_webhook_is_found_by_kube_apiserver() -> None:
    """The APIService, the Service and the certificate fit one another."""
    objects = stored(WEBHOOK)
    registered = one(objects, "APIService")
    service = one(objects, "Service")
    certificate = one(objects, "Certificate", f"{WEBHOOK}-tls")
    container = pods(objects)[0]["containers"][0]

    assert "v1alpha1.acme.responder.dev" == registered["metadata"]["name"]
    assert {"name": WEBHOOK, "namespace": charts.NAMESPACE, "port": 443} == registered["spec"]["service"]
    assert (
        f"{charts.NAMESPACE}/{WEBHOOK}-tls" == registered["metadata"]["annotations"]["cert-manager.io/inject-ca-from"]
    )
    assert [{"name": "https", "port": 443, "targetPort": "https"}] == service["spec"]["ports"]
    assert [{"name": "https", "containerPort": 8443}] == container["ports"]
    assert [f"{WEBHOOK}.{charts.NAMESPACE}.svc"] == certificate["spec"]["dnsNames"]
    assert certificate["spec"]["secretName"] == pods(objects)[0]["volumes"][0]["secret"]["secretName"]
    assert (
        service["spec"]["selector"].items()
        <= one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
    )


def test_webhook_with_a_certificate_of_ones_own(helm: str) -> None:
    """A certificate from elsewhere comes in a Secret, and its CA in the values; cert-manager is not asked."""
    bundle = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    objects = rendered(
        helm, WEBHOOK, "--set", "tls.mode=secret,tls.secretName=mine", "--set-string", f"tls.caBundle={bundle}"
    )

    assert bundle == base64.b64decode(one(objects, "APIService")["spec"]["caBundle"]).decode()
    assert "mine" == pods(objects)[0]["volumes"][0]["secret"]["secretName"]
    assert not any(schemas.is_of_cert_manager(each) for each in objects)


def test_webhook_survives_a_drained_node() -> None:
    """Two replicas on two nodes if possible, of which one stays, and a rollout that takes none away too early."""
    objects = stored(WEBHOOK)
    deployment = one(objects, "Deployment")["spec"]

    assert (2, 0) == (deployment["replicas"], deployment["strategy"]["rollingUpdate"]["maxUnavailable"])
    assert 1 == one(objects, "PodDisruptionBudget")["spec"]["maxUnavailable"]
    assert "kubernetes.io/hostname" == pods(objects)[0]["topologySpreadConstraints"][0]["topologyKey"]


def test_webhook_gets_its_time() -> None:
    """It has two minutes to start on a busy node, an answer may take seconds, and a stop as long as it needs."""
    pod = pods(stored(WEBHOOK))[0]
    container = pod["containers"][0]
    startup = container["startupProbe"]
    _, pause = container["lifecycle"]["preStop"]["exec"]["command"]

    assert 120 <= startup["periodSeconds"] * startup["failureThreshold"]
    assert {5} == {container[probe]["timeoutSeconds"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert int(pause) + DRAIN < pod["terminationGracePeriodSeconds"]


def test_new_authority_keeps_its_key() -> None:
    """
    While the pods still show the certificate of the old CA, kube-apiserver may trust the new one already: the CA's key
    and name stay, so it does not matter which it knows.
    """
    objects = stored(WEBHOOK)

    assert "Never" == one(objects, "Certificate", f"{WEBHOOK}-ca")["spec"]["privateKey"]["rotationPolicy"]
    assert "Always" == one(objects, "Certificate", f"{WEBHOOK}-tls")["spec"]["privateKey"]["rotationPolicy"]


FRONT_PROXY = ["extension-apiserver-authentication"]
OWN = [
    ("ClusterRole", "", ["authorization.k8s.io"], ["subjectaccessreviews"], [], ["create"]),
    ("Role", "kube-system", [""], ["configmaps"], FRONT_PROXY, ["get"]),
]
"""What the webhook may always do, as `permissions` has it."""


def test_webhook_may_do_no_more_than_it_must() -> None:
    """It has reviews made and reads one ConfigMap; it reads no Secret until somebody says which."""
    assert OWN == permissions(stored(WEBHOOK), charts.NAMESPACE, WEBHOOK)


def test_webhook_reads_the_secrets_it_is_told(helm: str) -> None:
    """Secrets by namespace and name, get only."""
    arguments = ("--set", "secretAccess.namespaces.web={a,b},secretAccess.namespaces.shop={c}")

    assert [
        *OWN,
        ("Role", "shop", [""], ["secrets"], ["c"], ["get"]),
        ("Role", "web", [""], ["secrets"], ["a", "b"], ["get"]),
    ] == permissions(rendered(helm, WEBHOOK, *arguments), charts.NAMESPACE, WEBHOOK)


def test_webhook_knows_where_http_is_near(helm: str) -> None:
    """It takes http for the cluster's own Services, and for hosts that its administrator names."""
    hosts = "clusterDomain=k8s.example.com,plainHttpHosts={127.0.0.1,::1}"
    near = ["--cluster-domain=k8s.example.com", "--plain-http-host=127.0.0.1", "--plain-http-host=::1"]

    assert near == _near(rendered(helm, WEBHOOK, "--set", hosts))
    assert ["--cluster-domain=cluster.local"] == _near(stored(WEBHOOK))


def _near(objects: list[Object]) -> list[str]:
    arguments = pods(objects)[0]["containers"][0]["args"]
    return [each for each in arguments if each.startswith(("--cluster-domain", "--plain-http-host"))]


def test_webhook_reads_more_only_if_asked(helm: str) -> None:
    """Secrets of a name in every namespace, and Challenges where it may read Secrets."""
    names = "secretAccess.namespaces.web={a},secretAccess.everywhere={b}"
    objects = rendered(helm, WEBHOOK, "--set", f"{names},readChallenges=true")

    assert [
        ("ClusterRole", "", [""], ["secrets"], ["b"], ["get"]),
        ("ClusterRole", "", ["acme.cert-manager.io"], ["challenges"], [], ["list"]),
        OWN[0],
        OWN[1],
        ("Role", "web", [""], ["secrets"], ["a"], ["get"]),
        ("Role", "web", ["acme.cert-manager.io"], ["challenges"], [], ["list"]),
    ] == permissions(objects, charts.NAMESPACE, WEBHOOK)
    assert "--read-challenges" in pods(objects)[0]["containers"][0]["args"]
    assert "--read-challenges" not in pods(stored(WEBHOOK))[0]["containers"][0]["args"]


def test_only_cert_manager_may_ask_the_webhook(helm: str) -> None:
    """cert-manager's service account may create with our solver, by its name and group, and nothing else."""
    arguments = ("--set", "certManager.namespace=cm,certManager.serviceAccountName=ctl,solver=mine,group=a.example.org")

    assert [("ClusterRole", "", ["acme.responder.dev"], ["responder"], [], ["create"])] == permissions(
        stored(WEBHOOK), "cert-manager", "cert-manager"
    )
    assert [("ClusterRole", "", ["a.example.org"], ["mine"], [], ["create"])] == permissions(
        rendered(helm, WEBHOOK, *arguments), "cm", "ctl"
    )


def permissions(objects: list[Object], namespace: str, account: str) -> list[tuple[Any, ...]]:
    """Every rule that a service account is given: kind and namespace of its role, groups, resources, names, verbs."""
    subject = {"kind": "ServiceAccount", "namespace": namespace, "name": account}
    roles = {
        (each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]): each["rules"]
        for each in objects
        if each["kind"] in ("Role", "ClusterRole")
    }
    granted = [
        (each["roleRef"]["kind"], each["metadata"].get("namespace"), each["roleRef"]["name"])
        for each in objects
        if each["kind"] in ("RoleBinding", "ClusterRoleBinding") and each["subjects"] == [subject]
    ]
    rules = [(kind, where, rule) for kind, where, name in granted for rule in roles[kind, where, name]]
    return sorted(
        (
            kind,
            where or "",
            *(sorted(rule.get(key, [])) for key in ("apiGroups", "resources", "resourceNames", "verbs")),
        )
        for kind, where, rule in rules
    )
