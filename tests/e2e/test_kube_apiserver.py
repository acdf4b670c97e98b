"""
The plain manifests in a real kube-apiserver, and the webhook behind its aggregator. Nobody starts pods there: the
tests run the webhook as its pod would, and do what controllers do.
"""

from __future__ import annotations

import base64
import os
import ssl
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPSConnection
from pathlib import Path

import pytest

from tests.support import charts, gobuilt, schemas
from tests.support.charts import Object, one
from tests.support.kubernetes.certificates import Authority, Pair
from tests.support.kubernetes.front_proxy import AGGREGATED, FrontProxy, Identity
from tests.support.ports import free_port
from tests.support.processes import PATIENCE

from .conformance import NAMESPACES, run_suite
from .control_plane import ControlPlane, control_plane, endpoint_slice
from .dns_client import exists, values
from .programs import running, wait_until
from .service import ZONE, Reply, Responder

pytestmark = pytest.mark.e2e

HOSTNAME = "aggregated.example.com"
CHALLENGE_NAME = "_acme-challenge.aggregated.acme.example.com"
NAMESPACE, OTHER = "team-a", "team-b"
GROUP = "acme.responder.dev"
SOLVER = f"/apis/{GROUP}/v1alpha1/responder"
APISERVICE = {"kind": "APIService", "version": "apiregistration.k8s.io/v1", "name": f"v1alpha1.{GROUP}"}
INSTANCE = "app.kubernetes.io%2Finstance%3Dupgraded"
VALUE, ANOTHER = "V" * 43, "W" * 43


@dataclass(frozen=True, slots=True)
class Webhook:
    """`responder webhook`, registered with a cluster; *address* and *port* are those of its Service."""

    plane: ControlPlane
    address: str
    port: int
    authority: Authority
    """Signs its certificate."""

    def solve(self, action: str, value: str, config: Object, *, token: str, namespace: str = NAMESPACE) -> Reply:
        """Post a challenge to kube-apiserver, as cert-manager does."""
        request = {
            "uid": "",
            "action": action,
            "type": "dns-01",
            "dnsName": HOSTNAME,
            "key": value,
            "resourceNamespace": namespace,
            "resolvedFQDN": f"{CHALLENGE_NAME}.",
            "resolvedZone": "acme.example.com.",
            "allowAmbientCredentials": False,
            "config": config,
        }
        return self.plane.ask("POST", SOLVER, {"request": request}, token=token)

    def front_proxy(self, pair: Pair | None) -> FrontProxy:
        """A client that goes past kube-apiserver, with the certificate it has got hold of."""
        return FrontProxy(self.port, self.authority.pem, pair, host=self.address)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A cluster with cert-manager's CRDs."""
    with control_plane(tmp_path_factory.mktemp("plane")) as plane:
        for crd in schemas.crds():
            plane.apply(crd)
        for namespace in ("cert-manager", NAMESPACE, OTHER):
            plane.apply({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": namespace}})
        plane.apply(one(charts.load((charts.MANIFESTS / "namespace.yaml").read_text()), "Namespace"))
        yield plane


@pytest.fixture(scope="module")
def webhook(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webhook]:
    """The plain manifest of the webhook, applied and brought to life. Its APIService is available."""
    port, authority = free_port(), Authority("responder-webhook CA")
    applied = [plane.apply(each) for each in _with_port(charts.stored("responder-webhook"), port, authority)]
    address = one(applied, "Service")["spec"]["clusterIP"]
    names = one(applied, "Certificate", "responder-webhook-tls")["spec"]["dnsNames"]
    directory = tmp_path_factory.mktemp("webhook")
    authority.server(*names).write(directory, "tls")
    with _pod(plane, one(applied, "Deployment"), directory, f"{address}:{port}"):
        plane.apply(endpoint_slice("responder", "responder-webhook", port, "https"))
        wait_until(lambda: _availability(plane)["status"] == "True", "the APIService is available")
        yield Webhook(plane, address, port, authority)


@pytest.fixture(scope="module")
def cert_manager(plane: ControlPlane) -> str:
    """The token of cert-manager's service account."""
    return plane.token("cert-manager", "cert-manager")


@pytest.fixture(scope="module")
def config(plane: ControlPlane, service: Responder, tmp_path_factory: pytest.TempPathFactory) -> Object:
    """`responder manifest`, applied to a namespace; what its Issuer has for the webhook, with another address."""
    path = tmp_path_factory.mktemp("token") / "token"
    path.write_text(service.mint(HOSTNAME).secret)
    wait_until(lambda: exists(service.dns, CHALLENGE_NAME), "the name is served")
    return _manifest(plane, service, HOSTNAME, NAMESPACE, path)


# What is applied


@pytest.mark.parametrize("chart", charts.NAMES)
def test_manifests(plane: ControlPlane, chart: str) -> None:
    """kube-apiserver takes every object of the plain manifests, with no field that it does not know."""
    for each in charts.stored(chart):
        reply = plane.attempt(each)
        assert reply.status in (201, 409), reply.body  # 409 if another test has it there already


@pytest.mark.parametrize("chart", charts.NAMES)
def test_pod_security(plane: ControlPlane, chart: str) -> None:
    """The pods are let into a namespace that enforces the strictest of the Pod Security Standards."""
    for each in charts.stored(chart):
        if each["kind"] == "ServiceAccount":
            plane.apply(each)
    plane.token("responder", "default")
    for spec in charts.pods(charts.stored(chart)):
        reply = plane.attempt(_pod_of(spec))
        assert reply.status == 201, reply.body

        spec["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
        assert 403 == plane.attempt(_pod_of(spec)).status


def test_upgrades(plane: ControlPlane, tmp_path: Path) -> None:
    """
    Whatever values a release of the responder goes on to, its Services get the ports that the chart has for them: none
    is lost of two that differ by their protocol alone.
    """
    helm = gobuilt.require("helm")
    plane.kubeconfig(tmp_path / "kubeconfig")
    split, secure = "service.splitProtocols=true", "config.api.tls=acme"
    for settings in ((), (split,), (split, secure), (secure,), (), (split,), ()):
        arguments = [argument for setting in settings for argument in ("--set", setting)]
        _install(helm, "upgraded", "responder", *arguments, directory=tmp_path)
        wanted = charts.load(charts.template("responder", *arguments, helm=helm, release="upgraded"))
        services = plane.ask("GET", "/api/v1/namespaces/responder/services?labelSelector=" + INSTANCE).body["items"]
        assert _ports(each for each in wanted if each["kind"] == "Service") == _ports(services)


# The aggregator


def test_discovery(webhook: Webhook) -> None:
    """The group is found, is fresh, and has the solver with the one verb that cert-manager needs."""
    wait_until(lambda: _discovered(webhook.plane)["freshness"] == "Current", "the group is fresh")
    resources = _discovered(webhook.plane)["resources"]
    listed = webhook.plane.ask("GET", f"/apis/{GROUP}/v1alpha1").body["resources"]

    assert [("responder", ["create"])] == [(each["resource"], each["verbs"]) for each in resources]
    assert [("responder", ["create"])] == [(each["name"], each["verbs"]) for each in listed]


def test_challenge(webhook: Webhook, service: Responder, cert_manager: str, config: Object) -> None:
    """
    Values are there after Present, each of two; and gone, each for itself, after CleanUp, which may come twice, as
    Present may.
    """
    for value in (VALUE, VALUE, ANOTHER):
        assert _done(webhook.solve("Present", value, config, token=cert_manager))
    wait_until(lambda: {VALUE, ANOTHER} == values(service.dns, CHALLENGE_NAME), "both values are served")

    assert _done(webhook.solve("CleanUp", ANOTHER, config, token=cert_manager))
    wait_until(lambda: {VALUE} == values(service.dns, CHALLENGE_NAME), "one value is left")
    for value in (VALUE, VALUE, ANOTHER):
        assert _done(webhook.solve("CleanUp", value, config, token=cert_manager))
    wait_until(lambda: not values(service.dns, CHALLENGE_NAME), "no value is left")


def test_conformance(webhook: Webhook, service: Responder, cert_manager: str, tmp_path: Path) -> None:
    """cert-manager's own conformance suite passes, the strict part included, by way of cert-manager's own client."""
    hostname, name = "conformance.example.com", f"_acme-challenge.conformance.{ZONE}"
    (tmp_path / "token").write_text(service.mint(hostname).secret)
    wait_until(lambda: exists(service.dns, name), "the name is served")
    for namespace in NAMESPACES:
        webhook.plane.apply({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": namespace}})
        config = _manifest(webhook.plane, service, hostname, namespace, tmp_path / "token")
    webhook.plane.kubeconfig(tmp_path / "kubeconfig", token=cert_manager)

    said = run_suite(
        tmp_path,
        kubeconfig=str(tmp_path / "kubeconfig"),
        webhook={"groupName": GROUP, "solverName": "responder", "config": config},
        dnsName=hostname,
        fqdn=f"{name}.",
        zone=f"{ZONE}.",
        nameserver=f"127.0.0.1:{service.dns}",
    )

    assert "--- PASS: TestConformance/Conformance/Basic/PresentRecord" in said
    assert "--- PASS: TestConformance/Conformance/Extended/DeletingOneRecordRetainsOthers" in said
    assert not values(service.dns, name)


# Who may do what


def test_other_accounts(webhook: Webhook, config: Object) -> None:
    """No other service account gets as far as the webhook, not even the webhook's own."""
    for namespace, name in ((NAMESPACE, "deployer"), ("cert-manager", "other"), ("responder", "responder-webhook")):
        reply = webhook.solve("Present", VALUE, config, token=webhook.plane.token(namespace, name))
        assert 403 == reply.status
        assert f'"system:serviceaccount:{namespace}:{name}" cannot create resource "responder"' in reply.body["message"]


def test_secret_of_another_namespace(webhook: Webhook, cert_manager: str, config: Object) -> None:
    """The token is read from the challenge's namespace, and only where somebody opened it to the webhook."""
    secret = {"name": config["tokenSecretRef"]["name"], "namespace": OTHER}
    webhook.plane.apply({"kind": "Secret", "apiVersion": "v1", "metadata": secret, "stringData": {"token": "theirs"}})

    reply = webhook.solve("Present", VALUE, config, token=cert_manager, namespace=OTHER)

    assert (
        f"the webhook may not read Secret {OTHER}/{HOSTNAME}-responder: let its ServiceAccount get that Secret"
        f' (secrets "{HOSTNAME}-responder" is forbidden: User "system:serviceaccount:responder:responder-webhook"'
        f' cannot get resource "secrets" in API group "" in the namespace "{OTHER}")'
    ) == reply.body["response"]["status"]["message"]


def test_missing_secret(webhook: Webhook, cert_manager: str, config: Object) -> None:
    """While the Secret is missing, Present says so, and there is nothing to clean up with."""
    path = f"/api/v1/namespaces/{NAMESPACE}/secrets/{HOSTNAME}-responder"
    secret = webhook.plane.ask("GET", path).body
    assert 200 == webhook.plane.ask("DELETE", path).status
    try:
        reply = webhook.solve("Present", VALUE, config, token=cert_manager)
        cleaned = webhook.solve("CleanUp", VALUE, config, token=cert_manager)
    finally:
        kept = {key: secret["metadata"][key] for key in ("name", "namespace")}
        webhook.plane.apply({"kind": "Secret", "apiVersion": "v1", "metadata": kept, "data": secret["data"]})

    assert f"Secret {NAMESPACE}/{HOSTNAME}-responder does not exist" in reply.body["response"]["status"]["message"]
    assert _done(cleaned)


def test_rights(plane: ControlPlane, webhook: Webhook, config: Object) -> None:
    """The webhook's own token reads the Secret that `responder manifest` opens to it, and nothing else it may see."""
    token = plane.token("responder", "responder-webhook")
    secrets = f"/api/v1/namespaces/{NAMESPACE}/secrets"

    def may(method: str, path: str) -> bool:
        return plane.ask(method, path, token=token).status == 200

    assert may("GET", f"{secrets}/{config['tokenSecretRef']['name']}")
    assert may("GET", "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication")
    for path in (
        secrets,
        f"{secrets}/another",
        f"/apis/acme.cert-manager.io/v1/namespaces/{NAMESPACE}/challenges",
        "/api/v1/secrets",
        "/api/v1/namespaces",
        "/api/v1/namespaces/kube-system/configmaps",
        "/api/v1/namespaces/responder/secrets/responder-webhook-tls",
    ):
        assert not may("GET", path), path
    assert not may("DELETE", f"{secrets}/{config['tokenSecretRef']['name']}")


async def test_past_kube_apiserver(webhook: Webhook) -> None:
    """
    Who reaches the webhook without kube-apiserver gets nowhere: TLS refuses a certificate that is not of the front
    proxy's CA; a certificate of another name, or none, is nobody's; and the front proxy's itself, stolen, does not
    let an ordinary user do more than the cluster's rules say.
    """
    plane = webhook.plane
    headers = Identity("mallory", ("system:serviceaccounts",)).headers()

    async def status(pair: Pair | None) -> int:
        proxy = webhook.front_proxy(pair)
        try:
            return (await proxy.send("POST", SOLVER, [*headers, ("Content-Type", "application/json")], b"{}")).status
        finally:
            await proxy.close()

    with pytest.raises((OSError, EOFError)):
        await status(plane.authority.client("front-proxy-client"))
    assert 401 == await status(None)
    assert 401 == await status(plane.proxies.client("somebody"))
    assert 403 == await status(plane.proxy)


def _manifest(plane: ControlPlane, service: Responder, hostname: str, namespace: str, token: Path) -> Object:
    """Apply `responder manifest` to a namespace; gives what its Issuer has for the webhook, with another address."""
    url = "http://responder.responder.svc"
    printed = service.cli("manifest", hostname, "--namespace", namespace, "--url", url, "--token-file", str(token))
    applied = [plane.apply(each) for each in charts.load(printed.stdout)]
    config: Object = one(applied, "Issuer")["spec"]["acme"]["solvers"][0]["dns01"]["webhook"]["config"]
    assert url == config["url"]
    return config | {"url": service.endpoint}


def _install(helm: str, release: str, chart: str, *arguments: str, directory: Path) -> None:
    """Install the release, or upgrade it, with the values of the plain manifest and these."""
    values = charts.MANIFESTS / f"{chart}.values.yaml"
    command = [helm, "upgrade", "--install", release, str(charts.CHARTS / chart), "--namespace", charts.NAMESPACE]
    done = subprocess.run(
        [*command, "--kubeconfig", str(directory / "kubeconfig"), "--values", str(values), *arguments],
        env={**os.environ, "HOME": str(directory)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def _ports(services: Iterable[Object]) -> dict[str, set[tuple[str, int, str]]]:
    return {
        each["metadata"]["name"]: {(port["name"], port["port"], port["protocol"]) for port in each["spec"]["ports"]}
        for each in services
    }


def _with_port(objects: list[Object], port: int, authority: Authority) -> list[Object]:
    """
    The objects with another *port* for 443, which only the superuser may listen on; and with the CA that cert-manager
    puts there.
    """
    one(objects, "Service")["spec"]["ports"][0]["port"] = port
    service = one(objects, "APIService")["spec"]
    service["service"]["port"] = port
    service["caBundle"] = base64.b64encode(authority.pem.encode()).decode()
    return objects


@contextmanager
def _pod(plane: ControlPlane, deployment: Object, directory: Path, listen: str) -> Iterator[None]:
    """Run the one container of *deployment*, as near to how the kubelet does it as there is no image."""
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    account = directory / "serviceaccount"
    account.mkdir()
    (account / "token").write_text(
        plane.token("responder", deployment["spec"]["template"]["spec"]["serviceAccountName"])
    )
    (account / "ca.crt").write_text(plane.authority.pem)
    arguments = [each.replace("=/tls", f"={directory}") for each in container["args"] if "--listen=" not in each]
    program = [
        sys.executable,
        "-P",
        "-m",
        "responder",
        *arguments,
        f"--listen={listen}",
        f"--service-account-dir={account}",
        "--plain-http-host=127.0.0.1",
    ]
    cluster = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(plane.port)}
    with running(program, directory, environment=cluster) as webhook:
        webhook.wait_until_ready(lambda: _is_ready(listen, container["readinessProbe"]["httpGet"]["path"]))
        yield


def _is_ready(address: str, path: str) -> bool:
    """What the kubelet finds, which looks at no certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = HTTPSConnection(address, context=context, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _availability(plane: ControlPlane) -> Object:
    conditions = plane.get(**APISERVICE)["status"].get("conditions", [])
    return next((each for each in conditions if each["type"] == "Available"), {"status": "Unknown"})


def _discovered(plane: ControlPlane) -> Object:
    """What aggregated discovery says of the one version of the group."""
    groups = plane.ask("GET", "/apis", accept=AGGREGATED).body["items"]
    versions = [version for group in groups if group["metadata"]["name"] == GROUP for version in group["versions"]]
    return dict(versions[0]) if versions else {"freshness": "Unknown"}


def _pod_of(spec: Object) -> Object:
    """A pod as its controller makes it, less the volumes that come by claims."""
    volumes = [*spec.get("volumes", []), {"name": "data", "emptyDir": {}}]
    by_name = {each["name"]: each for each in reversed(volumes)}
    metadata = {"name": "some", "namespace": "responder"}
    return {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": spec | {"volumes": list(by_name.values())}}


def _done(reply: Reply) -> bool:
    """Whether cert-manager would think so."""
    assert reply.status == 201, reply.body
    return bool(reply.body["response"] == {"uid": "", "success": True})
