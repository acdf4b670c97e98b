"""
The manifests that we hand out, taken at their word by a cluster: what the chart and `responder manifest` allow is what
the webhook needs, all of it, and nothing besides.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from responder.tokens.values import challenge_value
from tests.e2e.dns_client import values
from tests.e2e.programs import wait_until
from tests.e2e.service import ZONE, Responder
from tests.support.kubernetes.cert_manager import ACCOUNT as CERT_MANAGER
from tests.support.kubernetes.cert_manager import Order
from tests.support.kubernetes.cluster import ACCOUNT, GROUP, NAMESPACE, SOLVER, FakeCluster, fake_cluster
from tests.support.kubernetes.rbac import Attributes, Manifest, Rbac
from tests.support.places import ROOT

WEBHOOK = ROOT / "config/kubernetes/manifests/responder-webhook.yaml"
HOST = "some.example.com"
URL = "http://responder.responder.svc"
VALUE = challenge_value("an order's key authorization")


@dataclass(frozen=True, slots=True)
class Printed:
    """What `responder manifest` prints for a token, and where the service is that its in-cluster URL stands for."""

    objects: list[Manifest]
    endpoint: str

    def only(self, kind: str) -> Any:
        (found,) = [each for each in self.objects if each["kind"] == kind]
        return found

    @property
    def order(self) -> Order:
        """A challenge for the hostname, with the config of the Issuer's one solver."""
        (solver,) = self.only("Issuer")["spec"]["acme"]["solvers"]
        config = solver["dns01"]["webhook"]["config"]
        assert URL == config["url"]
        fqdn = f"_acme-challenge.some.{ZONE}."
        return Order(dns_name=HOST, key=VALUE, fqdn=fqdn, zone=f"{ZONE}.", config=config | {"url": self.endpoint})

    def apply(self, cluster: FakeCluster) -> None:
        secret = self.only("Secret")
        cluster.api.put_secret(NAMESPACE, secret["metadata"]["name"], **secret["stringData"])


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Responder]:
    """The service, as its users run it."""
    responder = Responder(tmp_path_factory.mktemp("service"))
    try:
        responder.start()
        yield responder
    finally:
        responder.stop()


@pytest.fixture(scope="module")
def printed(service: Responder) -> Printed:
    token = service.mint(HOST)
    file = service.directory / "token"
    file.write_text(token.secret)
    options = ["--namespace", NAMESPACE, "--url", URL, "--token-file", str(file), "--output", "json"]
    items = json.loads(service.cli("manifest", HOST, *options).stdout)["items"]
    wait_until(lambda: service.introspect(token).status == 200, "the new token is good")
    return Printed(items, service.endpoint)


@pytest.fixture(scope="module")
def objects(printed: Printed) -> list[Manifest]:
    """Everything that is applied."""
    return [*filter(None, yaml.safe_load_all(WEBHOOK.read_text())), *printed.objects]


async def test_manifests(tmp_path: Path, service: Responder, printed: Printed, objects: list[Manifest]) -> None:
    """With the chart's plain manifests and what `responder manifest` prints, a value is presented and cleaned up."""
    async with fake_cluster(tmp_path, objects) as cluster:
        printed.apply(cluster)
        async with cluster.webhook() as port, cluster.cert_manager(port) as cert_manager:
            assert await cert_manager.present(printed.order) is None
            assert {VALUE} == values(service.dns, f"_acme-challenge.some.{ZONE}")
            assert await cert_manager.clean_up(printed.order) is None
            assert set() == values(service.dns, f"_acme-challenge.some.{ZONE}")

    assert {what for _, what in cluster.api.asked} == set(_needed(printed))


def test_nothing_besides(printed: Printed, objects: list[Manifest]) -> None:
    """No other verb, name or namespace is allowed to the webhook than the one that it needs."""
    rbac = Rbac(objects)
    allowed = [what for what in _needed(printed) if rbac.allows(ACCOUNT, what)]
    besides = [near for what in _needed(printed) for near in _near(what) if rbac.allows(ACCOUNT, near)]

    assert (_needed(printed), []) == (allowed, besides)


def test_every_binding_counts(printed: Printed, objects: list[Manifest]) -> None:
    """Without any one of the bindings, it would not work."""
    bindings = [each for each in objects if each["kind"] in ("ClusterRoleBinding", "RoleBinding")]
    assert bindings
    for missing in bindings:
        rbac = Rbac([each for each in objects if each is not missing])
        solves = rbac.allows(CERT_MANAGER, Attributes("create", GROUP, SOLVER))
        assert not (solves and all(rbac.allows(ACCOUNT, what) for what in _needed(printed)))


def _needed(printed: Printed) -> list[Attributes]:
    return [
        Attributes("get", "", "configmaps", "kube-system", "extension-apiserver-authentication"),
        Attributes("create", "authorization.k8s.io", "subjectaccessreviews"),
        Attributes("get", "", "secrets", NAMESPACE, printed.only("Secret")["metadata"]["name"]),
    ]


def _near(what: Attributes) -> Iterator[Attributes]:
    """What one might be given along with it by mistake."""
    for verb in {"get", "list", "watch", "create", "update", "patch", "delete"} - {what.verb}:
        yield replace(what, verb=verb)
        yield replace(what, verb=verb, name="")
    if what.namespace:
        yield replace(what, name="another")
        yield replace(what, namespace="another")
    yield replace(what, resource="tokenreviews", group="authentication.k8s.io")
