"""The Helm charts, and the plain manifests that are made from them."""

from __future__ import annotations

import json
import subprocess
import tomllib
from pathlib import Path

import jsonschema
import pytest
import yaml

from responder.config import load
from tests.support import charts, gobuilt, kubectl, schemas
from tests.support.charts import Object, egress, one, pods, rendered, stored

WEBHOOK = "responder-webhook"
POSTGRESQL = ("--set", "postgresql.secretName=database", "--set", "replicas=3")
VARIANTS: list[tuple[str, tuple[str, ...]]] = [
    ("responder", ()),
    ("responder", (*POSTGRESQL, "--set", "service.splitProtocols=true,service.loadBalancerIP=192.0.2.1")),
    ("responder", ("--set", "listenAddresses={0.0.0.0,::},service.type=ClusterIP,networkPolicy.enabled=false")),
    (
        "responder",
        ("--set-json", 'networkPolicy.admin.from=[{"namespaceSelector":{}}]', "--set-json", 'env=[{"name":"A"}]'),
    ),
    (WEBHOOK, ()),
    (WEBHOOK, ("--set", "secretAccess.namespaces.web={a,b},secretAccess.everywhere={token},readChallenges=true")),
    (WEBHOOK, ("--set", "replicas=1,image.digest=sha256:" + "0" * 64, "--set", "listenAddress=::")),
    (
        WEBHOOK,
        (
            *("--set", "tls.mode=secret,tls.secretName=mine"),
            *("--set", "tls.caBundle=-----BEGIN CERTIFICATE-----", "--set", "networkPolicy.enabled=false"),
        ),
    ),
]


@pytest.fixture
def helm() -> str:
    """The program."""
    return gobuilt.require("helm")


# Charts and plain manifests


@pytest.mark.parametrize("chart", charts.NAMES)
def test_plain_manifests_are_what_helm_renders(helm: str, chart: str) -> None:
    """The plain manifests are what Helm makes of the charts: `make manifests` brings them up to date."""
    assert charts.plain(chart, helm) == (charts.MANIFESTS / f"{chart}.yaml").read_text()


def test_schema_knows_the_settings() -> None:
    """The schema of the values knows the service's settings: `make manifests` brings it up to date."""
    assert charts.values_schema() == charts.SCHEMA.read_text()


@pytest.mark.parametrize("chart", charts.NAMES)
def test_lint(helm: str, chart: str) -> None:
    """Helm finds nothing to say against a chart."""
    values = charts.MANIFESTS / f"{chart}.values.yaml"
    lint = [helm, "lint", "--strict", "--quiet", str(charts.CHARTS / chart)]
    for arguments in ([], ["--values", str(values)] if values.exists() else []):
        done = subprocess.run([*lint, *arguments], capture_output=True, text=True, check=False)
        assert (0, "") == (done.returncode, done.stdout.strip())
        assert done.stderr == "" or (not arguments and "config.zones: add at least one zone" in done.stderr)


@pytest.mark.parametrize("chart", charts.NAMES)
def test_version(chart: str) -> None:
    """A chart has, and installs, the version of the project: `make manifests` brings it up to date."""
    assert charts.described(chart) == (charts.CHARTS / chart / "Chart.yaml").read_text()


@pytest.mark.parametrize(("chart", "arguments"), VARIANTS)
def test_schema_of_objects(helm: str, chart: str, arguments: tuple[str, ...]) -> None:
    """Whatever is set, the objects are what Kubernetes' schema has, no field more."""
    for each in rendered(helm, chart, *arguments):
        schemas.check(each)


@pytest.mark.parametrize("chart", charts.NAMES)
def test_schema_of_plain_objects(chart: str) -> None:
    """The plain manifests are what Kubernetes' schema has, without Helm at hand, too."""
    for each in [*stored(chart), *charts.load((charts.MANIFESTS / "namespace.yaml").read_text())]:
        schemas.check(each)


@pytest.mark.parametrize("path", sorted((charts.KUBERNETES / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_examples(path: Path) -> None:
    """What the examples have of Kubernetes' own is right; all of them use the Secret of one certificate."""
    objects = charts.load(path.read_text())

    for each in objects:
        if "k8s.io" in each["apiVersion"].replace("gateway.networking.k8s.io", "") or each["apiVersion"] == "v1":
            schemas.check(each)
    assert "some-tls" in json.dumps(objects)


def test_schema_of_cert_manager() -> None:
    """The webhook's own Issuers and Certificates are what cert-manager's CRDs have."""
    ours = [each for each in stored(WEBHOOK) if schemas.is_of_cert_manager(each)]

    assert 4 == len(ours)
    for each in ours:
        schemas.check_crd(each)


def test_kubectl(tmp_path: Path) -> None:
    """kubectl applies all of the plain manifests (as a dry run, without a cluster)."""
    text = "---\n".join((charts.MANIFESTS / f"{name}.yaml").read_text() for name in ("namespace", *charts.NAMES))

    said = kubectl.apply(text, tmp_path)

    assert len(charts.load(text)) == len(said)
    assert all(line.endswith(" created (dry run)") for line in said)


@pytest.mark.parametrize("chart", charts.NAMES)
def test_names_that_yaml_takes_for_something_else(helm: str, chart: str) -> None:
    """Text stays text, such as a namespace that looks like a number, or the name "on" (true in YAML 1.1)."""
    text = {
        "responder": "postgresql.secretName=123,postgresql.key=on,priorityClassName=1,service.loadBalancerClass=1",
        WEBHOOK: "group=1.2,solver=on,certManager.namespace=123,certManager.serviceAccountName=on,priorityClassName=1,"
        "tls.mode=secret,tls.secretName=123,tls.caBundle=-----BEGIN CERTIFICATE-----",
    }[chart]
    more = ["--set-json", 'secretAccess.namespaces={"123":["on"]}'] if chart == WEBHOOK else []

    for each in charts.load(
        charts.template(chart, "--namespace", "123", "--set-string", text, *more, helm=helm, release="on")
    ):
        schemas.check(each)


@pytest.mark.parametrize("chart", charts.NAMES)
@pytest.mark.parametrize("release", ["a.b", "1st"])
def test_release_that_no_service_can_be_named_after(helm: str, chart: str, release: str) -> None:
    """Helm takes such names for a release, but Kubernetes none for a Service, and would be left with half of it."""
    with pytest.raises(RuntimeError, match="the name of the release: letters, digits and -, a letter first"):
        charts.template(chart, helm=helm, release=release)


# Values


@pytest.mark.parametrize(
    ("chart", "wrong"),
    [
        ("responder", {"replica": 2}),
        ("responder", {"image": {"tga": "1"}}),
        ("responder", {"config": {"zone": []}}),
        ("responder", {"config": {"dns": {"proceses": 2}}}),
        ("responder", {"config": {"dns": {"listen": ["0.0.0.0:53"]}}}),
        ("responder", {"config": {"database": {"url": "postgresql+asyncpg://a:secret@b/c"}}}),
        ("responder", {"config": {"dns": {"processes": "two"}}}),
        ("responder", {"config": {"values": {"lifetime": "soon"}}}),
        ("responder", {"config": {"api": {"tls": True}}}),
        ("responder", {"podSecurityContext": {"runAsUser": 0}}),
        ("responder", {"podSecurityContext": {"runAsNonRoot": False}}),
        (WEBHOOK, {"podLabels": {"a": 1}}),
        (WEBHOOK, {"dnsPolicy": "Any"}),
        ("responder", {"config": {"zones": [{"name": "a.example", "hostmaster": "a@example", "nameserver": {}}]}}),
        ("responder", {"service": {"type": "loadBalancer"}}),
        ("responder", {"persistence": {"size": 1}}),
        ("responder", {"service": None}),
        ("responder", {"networkPolicy": {"enabled": None}}),
        (WEBHOOK, {"repicas": 2}),
        (WEBHOOK, {"secretAccess": {"namespaces": {"web": "token"}}}),
        (WEBHOOK, {"secretAccess": {"clusterWide": True}}),
        (WEBHOOK, {"secretAccess": {"namespaces": {"We_b": ["token"]}}}),
        (WEBHOOK, {"listenAddress": "0.0.0"}),
        (WEBHOOK, {"image": None}),
        (WEBHOOK, {"networkPolicy": {"dns": {"ports": None}}}),
        (WEBHOOK, {"tls": {"mode": "none"}}),
        (WEBHOOK, {"group": "Responder"}),
        (WEBHOOK, {"networkPolicy": {"form": []}}),
    ],
)
def test_typos_are_refused(chart: str, wrong: Object) -> None:
    """A key that does not exist, a value that makes no sense, or a section without its lines, is refused at once."""
    schema = json.loads((charts.CHARTS / chart / "values.schema.json").read_text())
    values = yaml.safe_load((charts.CHARTS / chart / "values.yaml").read_text())
    if chart == "responder":
        values |= yaml.safe_load((charts.MANIFESTS / "responder.values.yaml").read_text())
    jsonschema.validate(values, schema, jsonschema.Draft7Validator)

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(_merged(values, wrong), schema, jsonschema.Draft7Validator)


@pytest.mark.parametrize("chart", charts.NAMES)
def test_helm_refuses_typos(helm: str, chart: str) -> None:
    """Helm uses the schema."""
    with pytest.raises(RuntimeError, match="additional properties 'typo' not allowed"):
        charts.template(chart, "--set", "typo=1", helm=helm)


@pytest.mark.parametrize("chart", charts.NAMES)
def test_every_value_is_explained(chart: str) -> None:
    """values.yaml shows every key that the schema has, so that nobody has to look for it."""
    schema = json.loads((charts.CHARTS / chart / "values.schema.json").read_text())
    values = yaml.safe_load((charts.CHARTS / chart / "values.yaml").read_text())

    assert set(schema["properties"]) - {"global"} == set(values)
    for key, section in schema["properties"].items():
        if "properties" in section and key != "resources":
            assert set(section["properties"]) == set(values[key]), key


def test_what_does_not_go_together(helm: str) -> None:
    """What would not work is refused, with the value that mends it."""
    for chart, arguments, expected in (
        ("responder", "replicas=2", "name the Secret with its URL in postgresql.secretName"),
        (WEBHOOK, "tls.mode=secret", "tls.secretName: name the Secret"),
        (WEBHOOK, "tls.mode=secret,tls.secretName=x", "tls.caBundle: give the CA"),
        (WEBHOOK, "tls.secretName=x", "tls.mode: set it to secret, or leave out tls.secretName and tls.caBundle"),
        (WEBHOOK, "tls.caBundle=-----BEGIN CERTIFICATE-----", "tls.mode: set it to secret"),
    ):
        with pytest.raises(RuntimeError, match=expected):
            charts.template(chart, "--set", arguments, helm=helm)
    with pytest.raises(RuntimeError, match=r"config\.zones: add at least one zone"):
        charts.template("responder", "--set-json", "config.zones=[]", helm=helm)


def test_off_without_quotes(helm: str, tmp_path: Path) -> None:
    """YAML takes `off` for false; it means "off", for the settings and for what the chart makes of them."""
    path = tmp_path / "values.yaml"
    path.write_text("config: {api: {tls: off}, database: {listen_url: off}}")
    quoted = tmp_path / "quoted.yaml"
    quoted.write_text('config: {api: {tls: "off"}, database: {listen_url: "off"}}')

    objects = rendered(helm, "responder", "--values", str(path))

    assert rendered(helm, "responder", "--values", str(quoted)) == objects
    settings = tomllib.loads(one(objects, "ConfigMap")["data"]["responder.toml"])
    assert ("off", "off") == (settings["api"]["tls"], settings["database"]["listen_url"])


# Pods


@pytest.mark.parametrize("chart", charts.NAMES)
def test_policies_of_a_cluster(helm: str, chart: str, tmp_path: Path) -> None:
    """A cluster may assign users itself, and may want the network of the node, labels, annotations and variables."""
    users = "podSecurityContext.runAsUser=null,podSecurityContext.runAsGroup=null,podSecurityContext.fsGroup=null"
    more = tmp_path / "values.yaml"
    more.write_text(
        '{"podLabels":{"team":"1","app.kubernetes.io/name":"mine"},"annotations":{"a":"1"},"podAnnotations":{"b":"2"},'
        '"env":[{"name":"A","value":"1"}],"tolerations":[{"operator":"Exists"}],"nodeSelector":{"c":"3"},'
        '"hostNetwork":true}'
    )
    objects = rendered(helm, chart, "--set", users, "--values", str(more))
    for each in objects:
        schemas.check(each)
    (workload,) = (each for each in objects if each["kind"] in ("Deployment", "StatefulSet"))
    (pod,) = pods(objects)
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(pod["securityContext"])
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert (True, "ClusterFirstWithHostNet") == (pod["hostNetwork"], pod["dnsPolicy"])
    assert ("1", chart) == (labels["team"], labels["app.kubernetes.io/name"])
    assert "1" == workload["metadata"]["annotations"]["a"]
    assert "2" == workload["spec"]["template"]["metadata"]["annotations"]["b"]
    assert {"name": "A", "value": "1"} in pod["containers"][0]["env"]
    (pod,) = pods(rendered(helm, chart, "--set", "podSecurityContext.runAsUser=7,dnsPolicy=Default"))
    assert (7, 65053, "Default") == (
        pod["securityContext"]["runAsUser"],
        pod["securityContext"]["fsGroup"],
        pod["dnsPolicy"],
    )
    assert "hostNetwork" not in pod


@pytest.mark.parametrize(("chart", "arguments"), VARIANTS)
def test_pod_security(helm: str, chart: str, arguments: tuple[str, ...]) -> None:
    """Every pod passes the restricted Pod Security Standard, and can write to nothing but its own volumes."""
    for pod in pods(rendered(helm, chart, *arguments)):
        assert_restricted(pod)


@pytest.mark.parametrize("chart", charts.NAMES)
def test_plain_pod_security(chart: str) -> None:
    """The plain manifests' pods pass it, too."""
    for pod in pods(stored(chart)):
        assert_restricted(pod)


def assert_restricted(pod: Object) -> None:
    """The restricted Pod Security Standard of Kubernetes, and a read-only root file system."""
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert 0 != context["runAsUser"]
    assert "RuntimeDefault" == context["seccompProfile"]["type"]
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod)
    kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {"configMap", "emptyDir", "secret", "persistentVolumeClaim"}
    for container in pod["containers"]:
        own = container["securityContext"]
        assert {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        } == own
        assert all("hostPort" not in port and port["containerPort"] >= 1024 for port in container["ports"])


def test_pods_name_volumes_that_exist(helm: str) -> None:
    """Every mount has its volume, be the database SQLite or PostgreSQL."""
    for arguments in ((), POSTGRESQL):
        workload = one(rendered(helm, "responder", *arguments), "StatefulSet")
        claims = [claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])]
        pod = workload["spec"]["template"]["spec"]
        names = [volume["name"] for volume in pod["volumes"]] + claims
        assert sorted(names) == sorted(mount["name"] for mount in pod["containers"][0]["volumeMounts"])


# The responder


def settings_of(objects: list[Object], tmp_path: Path) -> Object:
    text = one(objects, "ConfigMap")["data"]["responder.toml"]
    path = tmp_path / "responder.toml"
    path.write_text(text)
    load(path, {})
    return tomllib.loads(text)


def test_settings(helm: str, tmp_path: Path) -> None:
    """The ConfigMap has the settings as the service reads them: whole numbers, and the chart's own ports."""
    given: dict[str, Object] = {
        "dns": {"processes": 2, "rate_limit": {"replies_per_second": 1_000_000, "slip": 0}},
        "values": {"lifetime": "12h", "max_lifetime": 1_209_600},
        "log": {"level": "debug"},
    }
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump({"config": given}))

    settings = settings_of(rendered(helm, "responder", "--values", str(values)), tmp_path)

    assert {"listen": ["0.0.0.0:5353"], **given["dns"]} == settings["dns"]
    assert given["values"] == settings["values"]
    assert {"level": "debug", "format": "json"} == settings["log"]
    assert (["0.0.0.0:8443"], ["0.0.0.0:8054"]) == (settings["api"]["listen"], settings["admin"]["listen"])
    assert {"auto_upgrade": True} == settings["database"]
    assert ["acme.example.com"] == [zone["name"] for zone in settings["zones"]]


def test_addresses(helm: str, tmp_path: Path) -> None:
    """With IPv6 in the pods, it listens there, too."""
    objects = rendered(helm, "responder", "--set", "listenAddresses={0.0.0.0,::}")

    assert ["0.0.0.0:5353", "[::]:5353"] == settings_of(objects, tmp_path)["dns"]["listen"]


def test_new_settings_make_new_pods(helm: str) -> None:
    """Settings are read at the start, so other settings are another pod."""
    sums = {
        one(rendered(helm, "responder", "--set", f"config.log.level={level}"), "StatefulSet")["spec"]["template"][
            "metadata"
        ]["annotations"]["checksum/settings"]
        for level in ("info", "debug")
    }
    assert 2 == len(sums)


def test_service() -> None:
    """
    The world reaches port 53 over UDP and TCP at one address, and keeps its own addresses; the API, which speaks plain
    HTTP unless told otherwise, is for the cluster alone.
    """
    objects = stored("responder")
    world, inside = one(objects, "Service", "responder"), one(objects, "Service", "responder-api")
    ports = {port["name"]: port["containerPort"] for port in pods(objects)[0]["containers"][0]["ports"]}

    assert ("LoadBalancer", "Local") == (world["spec"]["type"], world["spec"]["externalTrafficPolicy"])
    assert {(53, "UDP", 5353), (53, "TCP", 5353)} == {
        (port["port"], port["protocol"], ports[port["targetPort"]]) for port in world["spec"]["ports"]
    }
    assert "ClusterIP" == inside["spec"]["type"]
    assert [(80, "api")] == [(port["port"], port["targetPort"]) for port in inside["spec"]["ports"]]


def test_service_of_the_stateful_set() -> None:
    """The Service that gives the pods their names is headless, and has their names before they are ready, too."""
    objects = stored("responder")
    stateful = one(objects, "StatefulSet")["spec"]

    service = one(objects, "Service", stateful["serviceName"])["spec"]

    assert ("None", True) == (service["clusterIP"], service["publishNotReadyAddresses"])
    assert stateful["selector"]["matchLabels"] == service["selector"]


def test_service_that_cannot_mix_protocols(helm: str) -> None:
    """
    Providers that cannot mix UDP and TCP get a Service for each, at the same address. Neither is the one of others:
    a patch that takes one of two ports 53 out of a Service takes both.
    """
    objects = rendered(helm, "responder", "--set", "service.splitProtocols=true,service.loadBalancerIP=192.0.2.1")
    world = {
        each["metadata"]["name"]: each["spec"]
        for each in objects
        if each["kind"] == "Service" and each["spec"]["type"] == "LoadBalancer"
    }

    assert {"responder-tcp": {"TCP"}, "responder-udp": {"UDP"}} == {
        name: {port["protocol"] for port in spec["ports"]} for name, spec in world.items()
    }
    assert ["192.0.2.1", "192.0.2.1"] == [spec["loadBalancerIP"] for spec in world.values()]


def test_database(helm: str) -> None:
    """SQLite is on a volume that outlives the release; PostgreSQL's URL comes from a Secret, and needs no volume."""
    sqlite = one(stored("responder"), "StatefulSet")["spec"]
    postgresql = rendered(helm, "responder", *POSTGRESQL)
    container = pods(postgresql)[0]["containers"][0]

    assert (1, "Retain") == (sqlite["replicas"], sqlite["persistentVolumeClaimRetentionPolicy"]["whenDeleted"])
    assert "env" not in sqlite["template"]["spec"]["containers"][0]
    assert "volumeClaimTemplates" not in one(postgresql, "StatefulSet")["spec"]
    assert {"name": "database", "key": "url"} == container["env"][0]["valueFrom"]["secretKeyRef"]
    assert 1 == one(postgresql, "PodDisruptionBudget")["spec"]["maxUnavailable"]
    assert {5432, 53} == {port["port"] for rule in egress(postgresql) for port in rule["ports"]}


@pytest.mark.parametrize(
    ("value", "expected"), [("null", {}), ('""', {"storageClassName": ""}), ('"fast"', {"storageClassName": "fast"})]
)
def test_storage_class(helm: str, value: str, expected: Object) -> None:
    """null is the cluster's default class; "" is none at all, for a volume that was made by hand."""
    objects = rendered(helm, "responder", "--set-json", f"persistence.storageClassName={value}")
    claim = one(objects, "StatefulSet")["spec"]["volumeClaimTemplates"][0]["spec"]

    assert {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, **expected} == claim


def test_probes_leave_dns_alone() -> None:
    """A database that is away does not take the pod out of the Service: DNS goes on from memory."""
    container = pods(stored("responder"))[0]["containers"][0]

    assert "/readyz?exclude=store" == container["readinessProbe"]["httpGet"]["path"]
    assert "/livez" == container["livenessProbe"]["httpGet"]["path"]


def test_responder_talks_to_nobody() -> None:
    """With SQLite, and an API without a certificate of its own, it asks DNS and connects to nothing else."""
    objects = stored("responder")

    assert [53, 53] == [port["port"] for rule in egress(objects) for port in rule["ports"]]
    ingress = one(objects, "NetworkPolicy")["spec"]["ingress"]
    assert ["dns-udp", "dns-tcp", "api"] == [port["port"] for rule in ingress for port in rule["ports"]]
    assert pods(objects)[0]["automountServiceAccountToken"] is False


def _merged(values: Object, wrong: Object) -> Object:
    """As Helm has it: null takes a value away."""
    merged = {key: value for key, value in values.items() if wrong.get(key, value) is not None}
    for key, value in wrong.items():
        if value is None:
            continue
        both = isinstance(value, dict) and isinstance(values.get(key), dict)
        merged[key] = _merged(values[key], value) if both else value
    return merged
