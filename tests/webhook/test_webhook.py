"""The webhook as kube-apiserver and the kubelet meet it: TLS, who may call, discovery, and what cannot be read."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography.x509.oid import ExtendedKeyUsageOID

from responder.connections import connection, places, runner
from responder.errors import InvalidConfiguration
from responder.logs import Seldom
from responder.webhook import handshake, server, statuses
from responder.webhook import main as webhook
from responder.webhook.callers import FrontProxy as Known
from responder.webhook.payload import ChallengeRequest
from responder.webhook.solver import WebhookSolver
from tests.support.kubernetes.cert_manager import IDENTITY, CertManager, Order, body
from tests.support.kubernetes.certificates import Authority
from tests.support.kubernetes.cluster import GROUP, FakeCluster, fake_cluster, least_rbac
from tests.support.kubernetes.front_proxy import (
    AGGREGATED,
    AVAILABILITY,
    DISCOVERY,
    OPENAPI,
    FrontProxy,
    Identity,
    Reply,
)
from tests.support.kubernetes.rbac import Rbac
from tests.support.processes import PATIENCE, eventually

RESOURCES = f"/apis/{GROUP}/v1alpha1"
SOLVING = f"{RESOURCES}/responder"
JSON = ("Content-Type", "application/json")
ORDER = Order(
    dns_name="some.example.com",
    key="LHDhK3oGRvkiefQnx7OOczTY5Tic_xZ6HcMOc_gmtoM",
    fqdn="_acme-challenge.some.acme.example.com.",
    zone="acme.example.com.",
)


@dataclass(frozen=True, slots=True)
class Served:
    """A webhook, and the front proxy that calls it."""

    cluster: FakeCluster
    port: int
    proxy: FrontProxy

    @property
    def cert_manager(self) -> CertManager:
        return CertManager(self.proxy, self.cluster.api.rbac)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for what is looked at once in a while."""
    for name in ("FILES_INTERVAL", "TRUST_INTERVAL", "TRUST_RETRY"):
        monkeypatch.setattr(webhook, name, 0.01)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[FakeCluster]:
    async with fake_cluster(tmp_path) as cluster:
        yield cluster


@pytest.fixture
async def served(cluster: FakeCluster) -> AsyncIterator[Served]:
    async with cluster.webhook() as port, cluster.front_proxy(port) as proxy:
        yield Served(cluster, port, proxy)


@pytest.fixture
def solved(monkeypatch: pytest.MonkeyPatch) -> list[ChallengeRequest]:
    """What the solver was asked for, while it does nothing."""
    requests: list[ChallengeRequest] = []

    async def solve(_: WebhookSolver, request: ChallengeRequest) -> None:
        requests.append(request)

    monkeypatch.setattr(WebhookSolver, "solve", solve)
    return requests


def assert_status(expected: tuple[int, str], reply: Reply) -> None:
    """The reply is a metav1.Status of that code and reason."""
    document = reply.json
    assert expected == (reply.status, document["reason"])
    assert ("Status", "v1", "Failure", expected[0]) == (
        document["kind"],
        document["apiVersion"],
        document["status"],
        document["code"],
    )
    assert document["message"]
    assert reply.headers["content-type"].startswith("application/json")
    assert "retry-after" not in reply.headers


# Who may call


async def test_no_client_certificate(served: Served) -> None:
    """Whoever has no certificate may write X-Remote-* headers as they like: nobody reads them."""
    async with served.cluster.front_proxy(served.port, pair=None) as stranger:
        for identity in (AVAILABILITY, IDENTITY):
            assert_status((401, "Unauthorized"), await stranger.get(RESOURCES, identity))
            reply = await stranger.send("POST", SOLVING, [JSON, *identity.headers()], body("Present", ORDER))
            assert_status((401, "Unauthorized"), reply)

    assert [] == served.cluster.api.reviews


@pytest.mark.parametrize("usage", ["another CA", "no client"])
async def test_refused_client_certificate(served: Served, usage: str) -> None:
    """A certificate of another CA, or one that is not for clients, does not get through the handshake."""
    authority = Authority("front-proxy-ca") if usage == "another CA" else served.cluster.requestheader
    purpose = ExtendedKeyUsageOID.CLIENT_AUTH if usage == "another CA" else ExtendedKeyUsageOID.SERVER_AUTH
    pair = authority.client("front-proxy", usage=purpose)

    async with served.cluster.front_proxy(served.port, pair=pair) as stranger:
        with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
            await stranger.get(RESOURCES, AVAILABILITY)


async def test_failed_handshake_is_logged(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    """A handshake that fails is nobody's request; the log tells why, once in a while."""
    handshake._failures = Seldom(60.0)
    pair = Authority("another").client("front-proxy")

    async with served.cluster.front_proxy(served.port, pair=pair) as stranger:
        for _ in range(3):
            with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
                await stranger.get(RESOURCES, AVAILABILITY)

    reason = "the client's certificate is not the front proxy's: unable to get local issuer certificate"
    assert 1 == capsys.readouterr().out.count(reason)


async def test_allowed_names(served: Served) -> None:
    """A certificate of the right CA counts only if its common name is allowed, where names are limited at all."""
    pair = served.cluster.requestheader.client("somebody")
    async with served.cluster.front_proxy(served.port, pair=pair) as somebody:
        assert_status((401, "Unauthorized"), await somebody.get(RESOURCES, AVAILABILITY))

        served.cluster.configure_front_proxy(allowed_names=[])

        await eventually_answers(somebody, 200)


async def test_intermediate_authority(cluster: FakeCluster) -> None:
    """An intermediate CA is an anchor like any other, and there may be several."""
    intermediate = Authority("intermediate", signed_by=Authority("root"))
    cluster.configure_front_proxy(ca=intermediate.pem + cluster.requestheader.pem)
    async with cluster.webhook() as port:
        for pair in (intermediate.client("front-proxy"), cluster.pair):
            async with cluster.front_proxy(port, pair=pair) as proxy:
                assert 200 == (await proxy.get(RESOURCES, AVAILABILITY)).status


async def test_nobody(served: Served) -> None:
    """A front proxy that does not say for whom it speaks speaks for nobody."""
    assert_status((401, "Unauthorized"), await served.proxy.get(RESOURCES, Identity("")))
    assert_status((401, "Unauthorized"), await served.proxy.send("GET", RESOURCES))


async def test_headers_that_are_no_text(served: Served) -> None:
    """A name that is not UTF-8 might turn into somebody else's on its way."""
    reader, writer = await served.proxy._connect()
    writer.write(b"GET %b HTTP/1.1\r\nHost: x\r\nX-Remote-User: adm\xffin\r\n\r\n" % RESOURCES.encode())
    assert b"401" in await reader.readline()
    writer.close()
    await writer.wait_closed()


async def test_access_review(served: Served, solved: list[ChallengeRequest]) -> None:
    """The cluster's rules are asked about the very user that the front proxy names, with all that it knows of them."""
    assert await served.cert_manager.present(ORDER) is None

    assert [
        {
            "user": "system:serviceaccount:cert-manager:cert-manager",
            "groups": ["system:serviceaccounts", "system:serviceaccounts:cert-manager", "system:authenticated"],
            "uid": IDENTITY.uid,
            "extra": {
                "authentication.kubernetes.io/credential-id": ["JTI=0a1b2c3d"],
                "authentication.kubernetes.io/pod-name": ["cert-manager-7d4b5d-x2x"],
            },
            "resourceAttributes": {"group": GROUP, "version": "v1alpha1", "resource": "responder", "verb": "create"},
        }
    ] == served.cluster.api.reviews
    assert 1 == len(solved)


async def test_no_right_to_solve(served: Served, solved: list[ChallengeRequest]) -> None:
    """Whoever gets past kube-apiserver and has no right to create the resource is told which one it takes."""
    other = Identity("system:serviceaccount:team-b:default", ("system:serviceaccounts",))

    reply = await served.proxy.send("POST", SOLVING, [JSON, *other.headers()], body("Present", ORDER))

    assert_status((403, "Forbidden"), reply)
    assert reply.json["message"] == (
        f"system:serviceaccount:team-b:default may not create resource responder of group {GROUP}: bind it"
        " to a ClusterRole that allows this"
    )
    assert [] == solved


async def test_callers_without_groups(served: Served) -> None:
    """Some of kube-apiserver's requests carry no group: they are authenticated all the same, and may look around."""
    for path, identity in ((RESOURCES, DISCOVERY), ("/openapi/v2", OPENAPI), ("/openapi/v3", OPENAPI)):
        assert 200 == (await served.proxy.get(path, identity)).status

    assert [["system:authenticated"]] * 3 == [review["groups"] for review in served.cluster.api.reviews]
    assert {"path": "/openapi/v2", "verb": "get"} == served.cluster.api.reviews[1]["nonResourceAttributes"]


async def test_masters(served: Served) -> None:
    """system:masters may do everything; the rules are not asked."""
    assert 200 == (await served.proxy.get(RESOURCES, AVAILABILITY)).status

    assert [] == served.cluster.api.reviews


@pytest.mark.parametrize("without", ["an answer", "the right to ask"])
async def test_no_access_review(served: Served, solved: list[ChallengeRequest], without: str) -> None:
    """If the rules cannot be asked, nobody gets in."""
    if without == "an answer":
        served.cluster.api.port = 0
        served.cluster.api.users.clear()
    else:
        served.cluster.api.rbac = Rbac([each for each in least_rbac() if each["metadata"]["name"] != "webhook-reviews"])

    assert_status((500, "InternalError"), await served.proxy.get(RESOURCES, DISCOVERY))
    reply = await served.proxy.send("POST", SOLVING, [JSON, *IDENTITY.headers()], body("Present", ORDER))
    assert_status((500, "InternalError"), reply)
    assert [] == solved


async def test_crowd_of_strangers(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others that hold all connections do not keep the front proxy out, and its own are not ended for them."""
    monkeypatch.setattr(runner, "MAX_CONNECTIONS", 10)
    monkeypatch.setattr(places, "PER_CLIENT", 1)
    async with contextlib.AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(served.cluster.front_proxy(served.port, pair=None)) for _ in range(25)]
        for stranger in crowd[:12]:
            assert 200 == (await stranger.send("GET", "/livez")).status
        assert await served.proxy.is_available(RESOURCES)
        kept = [*served.proxy.idle]
        for stranger in crowd[12:]:
            assert 200 == (await stranger.send("GET", "/livez")).status

        assert await served.proxy.is_available(RESOURCES)
        assert {*kept} == {*served.proxy.idle}


async def test_connection_opened_for_later(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger has to say soon what it wants; kube-apiserver may keep a connection for a request to come."""
    monkeypatch.setattr(connection, "HEAD_DEADLINE", 0.05)
    served.proxy.idle.append(await served.proxy._connect())
    async with served.cluster.front_proxy(served.port, pair=None) as stranger:
        reader, writer = await stranger._connect()
        assert b"" == await reader.read()
        writer.close()
        await writer.wait_closed()

    assert 200 == (await served.proxy.get(RESOURCES, AVAILABILITY)).status


# What kube-apiserver asks


async def test_availability(served: Served) -> None:
    """One of five parallel checks has to succeed within five seconds; all of them do."""
    assert await served.proxy.is_available(RESOURCES)
    assert 5 == len(served.proxy.idle)


@pytest.mark.parametrize("version", ["v2", "v2beta1"])
async def test_aggregated_discovery(served: Served, version: str) -> None:
    """Aggregated discovery gets the type that it asked for, parameters included, or it is not used."""
    kind = f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
    accept = AGGREGATED if version == "v2" else kind

    reply = await served.proxy.get("/apis", AVAILABILITY, ("Accept", accept))

    assert (200, kind) == (reply.status, reply.headers["content-type"])
    assert ("APIGroupDiscoveryList", f"apidiscovery.k8s.io/{version}") == (reply.json["kind"], reply.json["apiVersion"])
    (group,) = reply.json["items"]
    assert GROUP == group["metadata"]["name"]
    assert [
        {
            "version": "v1alpha1",
            "freshness": "Current",
            "resources": [
                {
                    "resource": "responder",
                    "responseKind": {
                        "group": "webhook.acme.cert-manager.io",
                        "version": "v1alpha1",
                        "kind": "ChallengePayload",
                    },
                    "scope": "Cluster",
                    "singularResource": "ChallengePayload",
                    "verbs": ["create"],
                }
            ],
        }
    ] == group["versions"]


async def test_resources(served: Served) -> None:
    """The list of resources has one, which can be created and nothing else."""
    reply = await served.proxy.get(RESOURCES, DISCOVERY, ("Accept", "application/json"))

    assert (200, "application/json") == (reply.status, reply.headers["content-type"])
    assert reply.json == {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{GROUP}/v1alpha1",
        "resources": [
            {
                "name": "responder",
                "singularName": "ChallengePayload",
                "namespaced": False,
                "kind": "ChallengePayload",
                "group": "webhook.acme.cert-manager.io",
                "version": "v1alpha1",
                "verbs": ["create"],
            }
        ],
    }


async def test_groups(served: Served) -> None:
    """Clients that ask the old way get the old documents."""
    groups = await served.proxy.get("/apis", AVAILABILITY, ("Accept", "application/json"))
    group = await served.proxy.get(f"/apis/{GROUP}", AVAILABILITY)

    assert ("APIGroupList", "APIGroup") == (groups.json["kind"], group.json["kind"])
    assert [GROUP] == [each["name"] for each in groups.json["groups"]]
    assert {"groupVersion": f"{GROUP}/v1alpha1", "version": "v1alpha1"} == group.json["preferredVersion"]


async def test_openapi(served: Served) -> None:
    """There is an OpenAPI document of either version, if an empty one: without, kube-apiserver fills its log."""
    v2 = await served.proxy.get("/openapi/v2", OPENAPI, ("Accept", "application/json"))
    v3 = await served.proxy.get("/openapi/v3", OPENAPI)

    assert ("2.0", {}) == (v2.json["swagger"], v2.json["paths"])
    assert {"paths": {}} == v3.json


@pytest.mark.parametrize("path", ["/apis", "/openapi/v2", RESOURCES])
async def test_unchanged_document(served: Served, path: str) -> None:
    """A document that the client has is not sent again."""
    first = await served.proxy.get(path, AVAILABILITY)

    again = await served.proxy.get(path, AVAILABILITY, ("If-None-Match", f'"other", {first.headers["etag"]}'))

    assert (304, b"", first.headers["etag"]) == (again.status, again.body, again.headers["etag"])


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz"])
async def test_health(served: Served, path: str) -> None:
    """The kubelet has no certificate, and needs none."""
    async with served.cluster.front_proxy(served.port, pair=None) as kubelet:
        assert (200, b"ok") == ((reply := await kubelet.send("GET", path)).status, reply.body)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/nowhere", (404, "NotFound")),
        ("POST", f"{RESOURCES}/another", (404, "NotFound")),
        ("GET", SOLVING, (405, "MethodNotAllowed")),
        ("DELETE", RESOURCES, (405, "MethodNotAllowed")),
    ],
)
async def test_no_such_thing(served: Served, method: str, path: str, expected: tuple[int, str]) -> None:
    """What is not there is told to those alone who may ask."""
    assert_status(expected, await served.proxy.send(method, path, AVAILABILITY.headers()))
    assert_status((403, "Forbidden"), await served.proxy.send(method, path, Identity("x").headers())) if (
        path != RESOURCES
    ) else None


async def test_malformed_http(served: Served) -> None:
    """What is no HTTP gets a Status, too, and nothing of what was sent."""
    reader, writer = await served.proxy._connect()
    writer.write(b"GET /secret\x01 HTTP/1.1\r\n\r\n")
    answer = await reader.read()
    assert b"400" in answer.splitlines()[0]
    assert b"secret" not in answer
    assert "Status" == json.loads(answer.partition(b"\r\n\r\n")[2])["kind"]
    writer.close()
    await writer.wait_closed()


# What cert-manager posts


async def test_payload(served: Served, solved: list[ChallengeRequest]) -> None:
    """The payload arrives as it was meant, and success is told in the form that cert-manager can bear."""
    reply = await served.cert_manager.post(body("CleanUp", replace(ORDER, config={"url": "x"})))

    assert 201 == reply.status
    assert reply.json == {
        "kind": "ChallengePayload",
        "apiVersion": "webhook.acme.cert-manager.io/v1alpha1",
        "response": {"uid": "", "success": True},
    }
    (request,) = solved
    assert ("CleanUp", "some.example.com", ORDER.key, ORDER.fqdn, "team-a", {"url": "x"}) == (
        request.action,
        request.dns_name,
        request.value,
        request.fqdn,
        request.namespace,
        request.config,
    )


async def test_payload_of_another_version(served: Served, solved: list[ChallengeRequest]) -> None:
    """With kind and version, with a uid, and with fields that nobody knows yet, it is a payload still."""
    payload = json.loads(body("Present", ORDER)) | {
        "kind": "ChallengePayload",
        "apiVersion": "webhook.acme.cert-manager.io/v1alpha1",
        "new": 1,
    }
    payload["request"] |= {"uid": "7", "newer": {}}

    reply = await served.cert_manager.post(json.dumps(payload).encode(), "application/json; charset=utf-8")

    assert (201, "7", True) == (reply.status, reply.json["response"]["uid"], reply.json["response"]["success"])


@pytest.mark.parametrize("spoil", [lambda request: request.pop("type"), lambda request: request.update(type="")])
async def test_payload_without_type(
    served: Served, solved: list[ChallengeRequest], spoil: Callable[[dict[str, Any]], object]
) -> None:
    """A client that leaves the type out or empty means the only one there is: cert-manager's conformance suite does."""
    payload = json.loads(body("Present", ORDER))
    spoil(payload["request"])

    reply = await served.cert_manager.post(json.dumps(payload).encode())

    assert (201, True) == (reply.status, reply.json["response"]["success"])


def _without(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda payload: payload["request"].pop(key)


def _with(**members: Any) -> Callable[[dict[str, Any]], object]:
    return lambda payload: payload["request"].update(members)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda payload: payload.clear(), '"request" is missing'),
        (lambda payload: payload.update(kind="Pod"), "\"kind\" must be '' or 'ChallengePayload'"),
        (_with(action="present"), "\"request.action\" must be 'Present' or 'CleanUp'"),
        (_with(type="http-01"), "\"request.type\" must be '' or 'dns-01'"),
        (_without("action"), '"request.action" is missing'),
        (_without("key"), '"request.key" is missing'),
        (_without("resolvedFQDN"), '"request.resolvedFQDN" is missing'),
        (_with(dnsName=7), '"request.dnsName" must be a valid string'),
        (_with(dnsName="a b"), '"request.dnsName" is not a valid name'),
        (_with(resourceNamespace="../kube-system"), '"request.resourceNamespace" is not a valid name'),
    ],
)
async def test_bad_payload(
    served: Served, solved: list[ChallengeRequest], spoil: Callable[[dict[str, Any]], object], message: str
) -> None:
    """A payload that makes no sense is refused with what is wrong about it."""
    payload = json.loads(body("Present", ORDER))
    spoil(payload)

    reply = await served.cert_manager.post(json.dumps(payload).encode())

    assert_status((400, "BadRequest"), reply)
    assert message == reply.json["message"]
    assert [] == solved


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[]", b"[" * 100_000, b'{"request": "\\ud800"}'])
async def test_no_payload(served: Served, solved: list[ChallengeRequest], content: bytes) -> None:
    """What is no JSON object is no payload."""
    assert_status((400, "BadRequest"), await served.cert_manager.post(content))
    assert [] == solved


async def test_media_type(served: Served) -> None:
    """Nothing but JSON is read."""
    reply = await served.cert_manager.post(body("Present", ORDER), "application/vnd.kubernetes.protobuf")
    assert_status((415, "UnsupportedMediaType"), reply)

    headers = [JSON, ("Content-Encoding", "gzip"), *IDENTITY.headers()]
    assert_status(
        (415, "UnsupportedMediaType"), await served.proxy.send("POST", SOLVING, headers, body("Present", ORDER))
    )


async def test_too_large(served: Served) -> None:
    """No body is read that is larger than any object of Kubernetes."""
    assert_status((413, "RequestEntityTooLarge"), await served.cert_manager.post(b" " * (server.MAX_BODY + 1)))


async def test_fault(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of ours gives nothing away, and is no success."""

    async def solve(*_: object) -> None:
        raise RuntimeError("only the log may tell")

    monkeypatch.setattr(WebhookSolver, "solve", solve)

    reply = await served.cert_manager.post(body("Present", ORDER))

    assert_status((500, "InternalError"), reply)
    assert "only the log" not in reply.json["message"]


async def test_deadline(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever hangs, cert-manager's worker gets an answer before kube-apiserver gives up."""

    async def solve(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(WebhookSolver, "solve", solve)
    monkeypatch.setattr(statuses, "RESPONSE_DEADLINE", 0.05)

    assert_status((500, "InternalError"), await served.cert_manager.post(body("Present", ORDER)))


async def test_too_many_at_once(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work is bounded; what is over the bound is told to come later, and is done then."""
    going = asyncio.Event()
    begun: list[int] = []

    async def solve(*_: object) -> None:
        begun.append(1)
        await going.wait()

    monkeypatch.setattr(WebhookSolver, "solve", solve)
    first = [asyncio.create_task(served.cert_manager.present(ORDER)) for _ in range(server.MAX_AT_ONCE)]
    await eventually(lambda: len(begun) == server.MAX_AT_ONCE, "all places are taken")

    refused = await served.cert_manager.present(ORDER)
    going.set()

    assert refused == "the webhook is busy with too many challenges: cert-manager will try again"
    assert [None] * server.MAX_AT_ONCE == await asyncio.gather(*first)
    assert await served.cert_manager.present(ORDER) is None


# What changes while it runs


async def test_new_serving_certificate(served: Served) -> None:
    """A new serving certificate is used for new connections; those that stand are not dropped."""
    assert 200 == (await served.proxy.get(RESOURCES, AVAILABILITY)).status
    standing = list(served.proxy.idle)
    renewed = Authority("renewed")
    served.cluster.write_certificate(renewed)

    async with served.cluster.front_proxy(served.port, trusted=renewed.pem) as newcomer:
        await eventually_answers(newcomer, 200)

    assert 200 == (await served.proxy.get(RESOURCES, AVAILABILITY)).status
    assert standing == served.proxy.idle


async def test_half_a_serving_certificate(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    """While the files do not belong together, or one is not there, the old certificate is served; then the new one."""
    handshake._failures = Seldom(0.0)
    certificate, key = served.cluster.directory / "serving.crt", served.cluster.directory / "serving.key"
    renewed = Authority("renewed")
    pair = renewed.server(served.proxy.server_name)

    for spoil in (lambda: certificate.write_text(pair.certificate), key.unlink, lambda: key.write_text("garbage")):
        spoil()
        capsys.readouterr()
        await eventually(lambda: "the old one stays in use" in capsys.readouterr().out, "the change was noticed")
        async with served.cluster.front_proxy(served.port) as newcomer:
            assert 200 == (await newcomer.get(RESOURCES, AVAILABILITY)).status

    key.write_text(pair.key)
    async with served.cluster.front_proxy(served.port, trusted=renewed.pem) as newcomer:
        await eventually_answers(newcomer, 200)


async def test_new_front_proxy_authority(served: Served, solved: list[ChallengeRequest]) -> None:
    """
    The front proxy's CA changes as clusters change it: both are trusted, then the new one alone. What stands goes on
    until a CA is trusted no longer; then it is closed when nothing is under way on it, and never in between.
    """
    renewed = Authority("front-proxy-ca")
    cluster = served.cluster
    assert 200 == (await served.proxy.get(RESOURCES, AVAILABILITY)).status
    ((reader, _),) = served.proxy.idle
    async with cluster.front_proxy(served.port, pair=renewed.client("front-proxy")) as successor:
        cluster.configure_front_proxy(ca=cluster.requestheader.pem + renewed.pem)
        await eventually_answers(successor, 200)
        assert not reader.at_eof()
        assert 200 == (await served.proxy.get(RESOURCES, AVAILABILITY)).status

        cluster.configure_front_proxy(ca=renewed.pem)
        await eventually(reader.at_eof, "the connection of the old certificate is closed")
        await served.proxy.close()
        with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
            await served.proxy.get(RESOURCES, AVAILABILITY)
        await successor.close()
        assert 200 == (await successor.get(RESOURCES, AVAILABILITY)).status


async def test_request_under_way(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is under way when its CA is trusted no longer is answered."""
    going, begun = asyncio.Event(), asyncio.Event()

    async def solve(*_: object) -> None:
        begun.set()
        await going.wait()

    monkeypatch.setattr(WebhookSolver, "solve", solve)
    posting = asyncio.create_task(served.cert_manager.present(ORDER))
    await begun.wait()
    renewed = Authority("front-proxy-ca")
    served.cluster.configure_front_proxy(ca=renewed.pem)
    async with served.cluster.front_proxy(served.port, pair=renewed.client("front-proxy")) as successor:
        await eventually_answers(successor, 200)
    going.set()

    assert await posting is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda cluster: cluster.configure_front_proxy(ca="no certificate"),
        lambda cluster: cluster.api.objects.clear(),
        lambda cluster: cluster.api.put("configmaps", "kube-system", "extension-apiserver-authentication", {}),
        lambda cluster: cluster.api.users.clear(),
    ],
)
async def test_front_proxy_unlearnt(served: Served, spoil: Callable[[FakeCluster], object]) -> None:
    """Whatever happens to the ConfigMap later, the front proxy stays as it was, and the webhook ready."""
    asked = len(served.cluster.api.asked)
    spoil(served.cluster)
    await eventually(lambda: len(served.cluster.api.asked) > asked + 3 or not served.cluster.api.users, "it was read")

    assert 200 == (await served.proxy.get(RESOURCES, AVAILABILITY)).status
    async with served.cluster.front_proxy(served.port) as newcomer:
        assert 200 == (await newcomer.get(RESOURCES, AVAILABILITY)).status
        assert 200 == (await newcomer.send("GET", "/readyz")).status


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda cluster: cluster.api.objects.clear(), 'configmaps "extension-apiserver-authentication" not found'),
        (lambda cluster: setattr(cluster.api, "rbac", Rbac([])), "cannot get resource"),
        (
            lambda cluster: cluster.api.put("configmaps", "kube-system", "extension-apiserver-authentication", {}),
            "names no front proxy: start kube-apiserver with --requestheader-client-ca-file",
        ),
    ],
)
async def test_not_ready(cluster: FakeCluster, spoil: Callable[[FakeCluster], object], reason: str) -> None:
    """Before it is known who the front proxy is, nobody gets in; the probe says what is in the way, until it is not."""
    rbac = cluster.api.rbac
    spoil(cluster)
    async with (
        cluster.webhook(ready=False) as port,
        cluster.front_proxy(port) as proxy,
        cluster.front_proxy(port, pair=None) as kubelet,
    ):
        await eventually(lambda: len(cluster.api.asked) > 1, "the ConfigMap was asked for")
        reply = await kubelet.send("GET", "/readyz")
        assert (503, True) == (reply.status, reason in reply.body.decode())
        assert 200 == (await kubelet.send("GET", "/livez")).status
        assert_status((500, "InternalError"), await kubelet.get(RESOURCES, AVAILABILITY))
        with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
            await proxy.get(RESOURCES, AVAILABILITY)

        cluster.api.rbac = rbac
        cluster.configure_front_proxy()

        await eventually_answers(proxy, 200)
        assert 200 == (await kubelet.send("GET", "/readyz")).status


async def test_rotated_service_account(served: Served) -> None:
    """The kubelet replaces the token, and the cluster its CA; both are used as soon as they are there."""
    assert 200 == (await served.proxy.get(RESOURCES, DISCOVERY)).status

    served.cluster.mount_token("second")
    assert 200 == (await served.proxy.get(RESOURCES, DISCOVERY)).status

    (served.cluster.service_account / "ca.crt").write_text(Authority("another").pem)
    assert_status((500, "InternalError"), await served.proxy.get(RESOURCES, DISCOVERY))
    (served.cluster.service_account / "ca.crt").write_text(served.cluster.authority.pem)
    assert 200 == (await served.proxy.get(RESOURCES, DISCOVERY)).status


async def test_kept_connection(served: Served) -> None:
    """kube-apiserver may close a connection just as it is used again; the question is asked again, once."""
    hung_up: list[int] = []

    def hang_up(request: web.BaseRequest, _: object) -> web.Response | None:
        if not request.path.endswith("/subjectaccessreviews"):  # the front proxy is looked for meanwhile
            return None
        if len(hung_up) == times or request.transport is None:
            return None
        hung_up.append(1)
        request.transport.abort()
        return web.Response()

    served.cluster.api.fault = hang_up
    for times, status in ((1, 200), (3, 500)):
        assert status == (await served.proxy.get(RESOURCES, DISCOVERY)).status
        assert times == len(hung_up)


async def test_lost_service_account(served: Served) -> None:
    """Without its files nothing can be asked; it goes on as soon as they are back."""
    token = served.cluster.service_account / "token"
    content = token.read_text()
    for spoil in (token.unlink, lambda: token.write_text("a\nb")):
        spoil()
        assert_status((500, "InternalError"), await served.proxy.get(RESOURCES, DISCOVERY))

    token.write_text(content)
    assert 200 == (await served.proxy.get(RESOURCES, DISCOVERY)).status


@pytest.mark.parametrize(
    "data",
    [
        {"requestheader-client-ca-file": "x", "requestheader-allowed-names": "front-proxy"},
        {"requestheader-client-ca-file": "x", "requestheader-username-headers": '"X-Remote-User"'},
        {"requestheader-client-ca-file": "x", "requestheader-group-headers": "[1]"},
    ],
)
def test_malformed_config_map(data: dict[str, str]) -> None:
    """What kube-apiserver never writes is not guessed at."""
    with pytest.raises(InvalidConfiguration, match="is not a JSON array of strings"):
        Known.parse(data)


async def eventually_answers(proxy: FrontProxy, status: int) -> None:
    """Until a change was noticed, a new connection may fail, or be refused."""

    async def answers() -> None:
        while True:
            try:
                if status == (await proxy.get(RESOURCES, AVAILABILITY)).status:
                    return
            except (OSError, EOFError):
                pass
            await proxy.close()
            await asyncio.sleep(0.01)

    await asyncio.wait_for(answers(), PATIENCE)
