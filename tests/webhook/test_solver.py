"""
What the webhook does for cert-manager, with a responder whose answers are at the test's will: every bad input has one
stable message, which names the object and the mend, and cleaning up keeps no namespace from going.
"""

from __future__ import annotations

import base64
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dns.asyncresolver
import pytest
from aiohttp import web
from yarl import URL

from responder.webhook import cluster as cluster_client
from responder.webhook import service, solver, statuses
from responder.webhook.issuer import IssuerConfig, PlainHttp
from tests.support import nameservers
from tests.support.kubernetes.cert_manager import CertManager, Order
from tests.support.kubernetes.certificates import Authority, Pair
from tests.support.kubernetes.cluster import NAMESPACE, SECRET, FakeCluster, fake_cluster, least_rbac
from tests.support.kubernetes.rbac import Attributes, Rbac
from tests.support.kubernetes.responder import TOKEN, FakeResponder, problem
from tests.support.zones import OTHER, VALUE

DELAYS = service.DELAYS
ORDER = Order(
    dns_name="none.example.com",
    key=VALUE,
    fqdn="_acme-challenge.none.acme.example.com.",
    zone="acme.example.com.",
)
SERVED = replace(ORDER, fqdn="_acme-challenge.two.acme.example.com.")
"""A challenge whose value the DNS shows."""

NO_CONFIG = "config of the issuer's webhook solver"
FIELDS = "set url, tokenSecretRef with name and key, and caBundle if the CA is private"


@dataclass(frozen=True, slots=True)
class Bench:
    """A cluster with a webhook in it, a responder, and the token for it in a Secret."""

    cluster: FakeCluster
    cert_manager: CertManager
    responder: FakeResponder

    def order(self, order: Order = ORDER, **config: Any) -> Order:
        return replace(order, config=self.responder.config | config)

    async def present(self, order: Order | None = None) -> str:
        """The message of a present that fails; the same if it is tried again."""
        order = order or self.order()
        message = await self.cert_manager.present(order)
        assert message is not None
        assert message == await self.cert_manager.present(order)
        assert str(self.responder.port) not in message
        assert TOKEN not in message
        return message

    async def clean_up(self, order: Order | None = None) -> str | None:
        return await self.cert_manager.clean_up(order or self.order())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "DELAYS", (0.0, 0.0))


@pytest.fixture(scope="module")
def resolver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dns.asyncresolver.Resolver]:
    """What the webhook asks whether a value is there: a nameserver with one at the name `two`, and none at `none`."""
    with nameservers.running(tmp_path_factory.mktemp("nameserver")) as nameserver:
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers = ["127.0.0.1"]
        resolver.port = nameserver.port
        yield resolver


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[FakeCluster]:
    async with fake_cluster(tmp_path) as cluster:
        cluster.api.put_secret(NAMESPACE, SECRET, token=TOKEN)
        yield cluster


@asynccontextmanager
async def bench_of(
    cluster: FakeCluster, resolver: dns.asyncresolver.Resolver, pair: Pair | None = None, **options: Any
) -> AsyncIterator[Bench]:
    responder = FakeResponder()
    async with (
        responder.listening(pair),
        cluster.webhook(resolver=resolver, **options) as port,
        cluster.cert_manager(port) as cert_manager,
    ):
        yield Bench(cluster, cert_manager, responder)


@pytest.fixture
async def bench(cluster: FakeCluster, resolver: dns.asyncresolver.Resolver) -> AsyncIterator[Bench]:
    async with bench_of(cluster, resolver) as bench:
        yield bench


def answering(status: int, message: str) -> Callable[[web.BaseRequest, Attributes], web.Response | None]:
    """For `FakeApi.fault`: kube-apiserver says this to whoever asks for a Secret."""

    def answer(_: web.BaseRequest, what: Attributes) -> web.Response | None:
        document = {"kind": "Status", "status": "Failure", "message": message, "code": status}
        return web.json_response(document, status=status) if what.resource == "secrets" else None

    return answer


# What is asked of the responder


async def test_present_and_clean_up(bench: Bench) -> None:
    """Both verbs go to the issuer's URL, with the token of its Secret, and the name and value of the challenge."""
    assert await bench.cert_manager.present(bench.order()) is None
    assert await bench.clean_up() is None

    body = {"fqdn": ORDER.fqdn, "value": VALUE}
    present, cleanup = bench.responder.requests
    assert ("/present", f"Bearer {TOKEN}", body | {"lifetime": 3600}) == present
    assert ("/cleanup", f"Bearer {TOKEN}", body) == cleanup


async def test_responder_with_short_lifetimes(bench: Bench) -> None:
    """A responder that allows no hour for a value decides itself how long it stays."""

    def answer(body: Mapping[str, str]) -> web.Response:
        if "lifetime" in body:
            return problem(400, "invalid-request", '"lifetime": a number of seconds from 1 to 1800 is expected')
        return web.json_response({"value": body["value"]})

    bench.responder.answer = answer

    assert await bench.cert_manager.present(bench.order()) is None
    assert ["lifetime" in body for _, _, body in bench.responder.requests] == [True, False]


@pytest.mark.parametrize("prefix", ["/team/acme", "/team/acme/"])
async def test_path_prefix(bench: Bench, prefix: str) -> None:
    """A responder may live below a path."""
    assert await bench.cert_manager.present(bench.order(url=bench.responder.url + prefix)) is None

    assert ["/team/acme/present"] == [path for path, _, _ in bench.responder.requests]


async def test_white_space_around_a_token(bench: Bench) -> None:
    """A Secret made with `echo` ends in a line break."""
    bench.cluster.api.put_secret(NAMESPACE, SECRET, token=f"{TOKEN}\n")

    assert await bench.cert_manager.present(bench.order()) is None


async def test_namespaces(bench: Bench) -> None:
    """The token is the one of the namespace that asks; what another team has is out of reach."""
    bench.cluster.api.put_secret("team-b", SECRET, token=TOKEN)

    message = await bench.present(replace(bench.order(), namespace="team-b"))

    assert message == (
        "the webhook may not read Secret team-b/responder-token: let its ServiceAccount get that Secret (secrets"
        ' "responder-token" is forbidden: User "system:serviceaccount:responder:responder-webhook" cannot get resource'
        ' "secrets" in API group "" in the namespace "team-b")'
    )
    assert [] == bench.responder.requests


# The Secret


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, " does not exist: create it, with the token under the key token (responder token mint)"),
        ({"other": TOKEN}, " has no key token: put the token there, or fix tokenSecretRef in the issuer"),
        *(
            (
                {"token": wrong},
                (
                    ", key token: the value is not a token: put the whole token there (rsp_...), as responder"
                    " token mint printed it"
                ),
            )
            for wrong in ("", "rsp_", "hunter2", b"\xff\x00", f"{TOKEN} {TOKEN}", f"{TOKEN}\r\nX: y", f"Bearer {TOKEN}")
        ),
    ],
)
async def test_bad_secret(bench: Bench, data: dict[str, Any] | None, message: str) -> None:
    """What is no token of ours is neither sent to anybody nor told; there is nothing to clean up with it."""
    if data is None:
        bench.cluster.api.objects.pop(("secrets", NAMESPACE, SECRET))
    else:
        bench.cluster.api.put_secret(NAMESPACE, SECRET, **data)

    assert f"Secret team-a/responder-token{message}" == await bench.present()
    assert await bench.clean_up() is None
    assert [] == bench.responder.requests


async def test_no_right_to_the_secret(bench: Bench) -> None:
    """In a namespace that is being deleted, the right to read the Secret goes before the Challenge does."""
    bench.cluster.api.rbac = Rbac([each for each in least_rbac() if each["metadata"]["name"] != "webhook-tokens"])

    assert (await bench.present()).startswith("the webhook may not read Secret team-a/responder-token: ")
    assert await bench.clean_up() is None


async def test_refusals_that_name_more(bench: Bench) -> None:
    """
    After its own words, kube-apiserver tells what else it met: roles that bindings name and nobody has made, in any
    order. That is not passed on, as cert-manager begins anew at once when a text changes.
    """
    own = 'secrets "responder-token" is forbidden: User "u" cannot get resource "secrets" in API group "" in the'
    reasons = ["RBAC: [role a not found, role b not found]", "RBAC: [role b not found, role a not found]"]
    texts = set()
    for message in (*(f'{own} namespace "team-a": {reason}' for reason in reasons), f'{own} namespace "team-a"'):
        bench.cluster.api.fault = answering(403, message)
        texts.add(await bench.present())

    refused = "the webhook may not read Secret team-a/responder-token: let its ServiceAccount get that Secret"
    assert {f'{refused} ({own} namespace "team-a")'} == texts
    bench.cluster.api.fault = answering(403, "no, says another authorizer at 12:34")
    assert f"{refused} (kube-apiserver gives no reason)" == await bench.present()


# The issuer's config


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        (None, "it is missing"),
        ({}, '"url" is missing, "tokenSecretRef" is missing'),
        ({"url": "https://a.example", "token": "x"}, '"tokenSecretRef" is missing, "token" is not known here'),
        (
            {"url": "https://a.example", "tokenSecretRef": {"name": "A B", "key": "../x", "namespace": "team-b"}},
            ", ".join(
                [
                    '"tokenSecretRef.name" is not a valid name',
                    '"tokenSecretRef.key" is not a valid name',
                    '"tokenSecretRef.namespace" is not known here',
                ]
            ),
        ),
    ],
)
async def test_bad_config(bench: Bench, config: dict[str, Any] | None, fault: str) -> None:
    """Everything that is wrong is told at once, and what there is to write."""
    order = replace(ORDER, config=config)

    assert f"{NO_CONFIG}: {fault}: {FIELDS}" == await bench.present(order)
    assert await bench.clean_up(order) is None
    assert Attributes("get", resource="secrets", namespace=NAMESPACE, name=SECRET) not in {
        what for _, what in bench.cluster.api.asked
    }


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        (7, "must be text"),
        ("", 'is not a web address: write one like "https://responder.example.com"'),
        ("responder.example.com", 'is not a web address: write one like "https://responder.example.com"'),
        ("ftp://responder.example.com", 'is not a web address: write one like "https://responder.example.com"'),
        ("https://", 'is not a web address: write one like "https://responder.example.com"'),
        *(
            (url, 'is not a web address: write one like "https://responder.example.com"')
            for url in (
                "https://a.example:99999",
                "https://a..example",
                f"https://{'a' * 64}.example",
            )
        ),
        ("https://u:p@responder.example.com", "has parts that are not allowed: remove the user, the password, ? and #"),
        ("https://responder.example.com?a=b", "has parts that are not allowed: remove the user, the password, ? and #"),
        ("https://responder.example.com#a", "has parts that are not allowed: remove the user, the password, ? and #"),
        (
            "http://responder.example.com",
            "would send the token unencrypted: write https (http is only for NAME.NAMESPACE.svc)",
        ),
        (
            "http://192.0.2.1",
            "would send the token unencrypted: write https (http is only for NAME.NAMESPACE.svc)",
        ),
        *(
            (url, "would send the token unencrypted: write https (http is only for NAME.NAMESPACE.svc)")
            for url in (
                "http://127.0.0.2:8053",
                "http://[::1]:8053",
                "http://localhost:8053",
                "http://a.b.svc.evil.example",
                "http://a.b.svc.cluster.local.evil.example",
                "http://a.b.c.svc",
                "http://b.svc.cluster.local",
                "http://svc.cluster.local",
            )
        ),
    ],
)
async def test_bad_url(bench: Bench, url: Any, fault: str) -> None:
    """A URL that cannot be meant is refused before anything is sent there."""
    assert f'{NO_CONFIG}: "url" {fault}: {FIELDS}' == await bench.present(bench.order(url=url))


@pytest.mark.parametrize(
    ("url", "plain_http"),
    [
        ("http://responder.acme.svc:8053", PlainHttp()),
        ("http://responder.acme.svc.cluster.local", PlainHttp()),
        ("http://responder.acme.svc.cluster.local.:80", PlainHttp()),
        ("http://responder.acme.svc", PlainHttp("k8s.example.com")),
        ("http://responder.acme.svc.k8s.example.com", PlainHttp("k8s.example.com")),
        ("http://[::1]:8053", PlainHttp(hosts=frozenset({"::1"}))),
        ("https://a.b/c", PlainHttp()),
    ],
)
def test_good_url(url: str, plain_http: PlainHttp) -> None:
    """Within the cluster, and to hosts that whoever runs the webhook has named, the token may go unencrypted."""
    config = IssuerConfig.parse({"url": url, "tokenSecretRef": {"name": "a", "key": "b"}}, plain_http)

    assert str(URL(url)) == str(config.url)


@pytest.mark.parametrize("bundle", [7, "", "@", "-----BEGIN", base64.b64encode(b"no PEM").decode()])
async def test_bad_bundle(bench: Bench, bundle: Any) -> None:
    """A bundle without certificates is a mistake, not a wish to trust nobody, or everybody."""
    message = await bench.present(bench.order(caBundle=bundle))

    assert message.startswith(f'{NO_CONFIG}: "caBundle" ')


# Its certificate


@pytest.mark.parametrize("encode", [str, lambda pem: base64.encodebytes(pem.encode()).decode()])
async def test_bundle(cluster: FakeCluster, resolver: dns.asyncresolver.Resolver, encode: Callable[[str], str]) -> None:
    """The issuer's bundle is what is trusted, as PEM or in base64."""
    authority = Authority("responder")
    async with bench_of(cluster, resolver, authority.server("127.0.0.1")) as bench:
        assert await bench.cert_manager.present(bench.order(caBundle=encode(authority.pem))) is None


async def test_untrusted_certificate(cluster: FakeCluster, resolver: dns.asyncresolver.Resolver) -> None:
    """Without a bundle, or with another one, or under another name, the token goes to nobody."""
    authority = Authority("responder")
    fix = "add the CA that signed it to caBundle in the issuer's config, or fix the certificate"
    async with bench_of(cluster, resolver, authority.server("127.0.0.1")) as bench:
        for order in (bench.order(), bench.order(caBundle=Authority("another").pem)):
            assert await bench.present(order) == (
                "the certificate of the responder at 127.0.0.1 is not trusted here (unable to get local issuer"
                f" certificate): {fix}"
            )
            assert await bench.clean_up(order) is None
        order = bench.order(caBundle=authority.pem, url=bench.responder.url.replace("127.0.0.1", "localhost"))
        other = "is for another name: fix the issuer's url, or the certificate"
        assert await bench.present(order) == f"the certificate of the responder at localhost {other}"
        assert [] == bench.responder.requests


async def test_no_tls(bench: Bench) -> None:
    """A plain port is no HTTPS one."""
    message = await bench.present(bench.order(url=bench.responder.url.replace("http:", "https:")))

    assert message.startswith("the responder at 127.0.0.1 does not answer: ")


# A responder that does not answer, or not as one


NO_RESPONDER = "the server at 127.0.0.1 is not a responder: fix the issuer's url"


def in_front(status: int) -> str:
    return (
        f"the responder at 127.0.0.1 cannot be reached: another server in front of it responds with status {status}:"
        " check that the issuer's url leads to the responder's API"
    )


DOWN = (
    "the responder at 127.0.0.1 does not answer: check that it is running, that the issuer's url is correct,"
    " that its host resolves in the cluster, and that no network policy blocks it"
)


async def test_responder_down(bench: Bench) -> None:
    """A present fails. A cleanup does only if the DNS still shows the value, or shows nothing at all."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"

        assert DOWN == await bench.present(bench.order(url=url))
        assert await bench.clean_up(bench.order(url=url)) is None
        assert (
            await bench.clean_up(bench.order(replace(ORDER, fqdn="_acme-challenge.no.acme.example.com."), url=url))
            is None
        )
        assert await bench.clean_up(bench.order(replace(SERVED, key=OTHER), url=url)) is None
        assert DOWN == await bench.clean_up(bench.order(SERVED, url=url))
        assert DOWN == await bench.clean_up(bench.order(replace(ORDER, fqdn="refused.example.net."), url=url))


@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.json_response({"kind": "Status", "message": "too many requests"}, status=429),
        lambda: web.Response(text="no JSON"),
        lambda: web.json_response([]),
        lambda: web.Response(status=500),
    ],
)
async def test_cluster_api_down(bench: Bench, answer: Callable[[], web.Response]) -> None:
    """Without the Kubernetes API there is no token, and no cleanup either, unless there is nothing to clean up."""
    bench.cluster.api.fault = lambda _, what: answer() if what.resource == "secrets" else None

    assert (await bench.present()).startswith("the Kubernetes API ")
    assert await bench.clean_up() is None
    assert await bench.clean_up(bench.order(SERVED)) == await bench.present()


async def test_cluster_api_in_trouble(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """What kube-apiserver says of its own troubles names ports and times: that is for the log alone."""
    texts = set()
    for reason in (
        "read tcp 10.0.0.1:40001->10.0.0.2:2379: i/o timeout",
        "read tcp 10.0.0.1:40002->10.0.0.2:2379: EOF",
    ):
        bench.cluster.api.fault = answering(500, reason)
        texts.add(await bench.present())
        assert reason in capsys.readouterr().out

    assert {"the Kubernetes API answers the webhook with status 500: the webhook's log has its reason"} == texts


async def test_responder_that_hangs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each try has its time, and all of them together have less than cert-manager waits."""
    monkeypatch.setattr(service, "ATTEMPT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert DOWN == await bench.present(bench.order(url=f"http://127.0.0.1:{silent.getsockname()[1]}"))


async def test_retries(bench: Bench) -> None:
    """What may succeed later is tried again before cert-manager hears of it."""
    statuses = iter([503, 500, 200])

    def answer(body: Mapping[str, str]) -> web.Response:
        status = next(statuses)
        return problem(status, "unavailable", "no") if status != 200 else web.json_response({"value": body["value"]})

    bench.responder.answer = answer

    assert await bench.cert_manager.present(bench.order()) is None
    assert 3 == len(bench.responder.requests)


async def test_unavailable(bench: Bench) -> None:
    """A responder that cannot do it now says so, in its own words."""
    bench.responder.answer = lambda _: problem(
        503, "unavailable", "the service cannot do this now: try again later, which is safe"
    )

    message = await bench.present()

    assert message == (
        "the responder at 127.0.0.1 cannot do this now: the service cannot do this now: try again later, which is safe"
    )
    assert 2 * 3 == len(bench.responder.requests)
    assert message == await bench.clean_up(bench.order(SERVED))


async def test_too_many_requests(bench: Bench) -> None:
    """A responder that asks for patience is not asked again at once."""
    detail = "too many requests with this token: 600 per 1 minute are allowed; wait for the time in Retry-After"
    bench.responder.answer = lambda _: problem(429, "too-many-requests", detail)

    assert await bench.present() == f"the responder at 127.0.0.1 limits the rate of requests: {detail}"
    assert 2 == len(bench.responder.requests)
    assert await bench.clean_up() is None


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda _: web.Response(status=502, text="upstream 10.1.2.3:4711 request 8f2a"), in_front(502)),
        (lambda _: web.Response(text="<html>Welcome</html>"), NO_RESPONDER),
        (lambda _: web.json_response(["value"]), NO_RESPONDER),
        (lambda _: web.json_response({"value": "another"}), NO_RESPONDER),
        (lambda _: web.Response(text="[" * 20_000), NO_RESPONDER),
        (
            lambda _: web.Response(status=307, headers={"Location": "http://127.0.0.1:1/"}),
            "the responder at 127.0.0.1 redirects: set the issuer's url to the target of the redirect",
        ),
        (lambda _: web.json_response({"type": "about:blank", "detail": "secret"}, status=403), in_front(403)),
        (lambda _: problem(400, "invalid-request", "no\nprintable text"), in_front(400)),
        (
            lambda _: problem(404, "no-such-route", "there is no such route here: see /openapi.json"),
            "the responder at 127.0.0.1 has no API at that path: fix the path in the issuer's url",
        ),
    ],
)
async def test_no_responder(bench: Bench, answer: Callable[[Mapping[str, str]], web.Response], message: str) -> None:
    """What is no answer of a responder's is not quoted: whoever writes an issuer could read anything with it."""
    bench.responder.answer = answer

    assert message == await bench.present()
    assert await bench.clean_up() is None


async def test_endless_answer(bench: Bench) -> None:
    """Only as much is read as an honest answer may have."""
    bench.responder.answer = lambda _: web.Response(body=b" " * (4 << 20))

    assert NO_RESPONDER == await bench.present()


# A token that is refused


def refused(detail: str) -> str:
    return f"Secret team-a/responder-token, key token: the responder at 127.0.0.1 refuses: {detail}"


@pytest.mark.parametrize(
    ("status", "kind", "detail"),
    [
        (401, "unauthenticated", "this token was revoked: ask your platform team for a new one"),
        (403, "wrong-network", "this token may not be used from your address: it is limited to 192.0.2.0/24"),
        (403, "not-served", "the zone of _acme-challenge.a.b is not served here any more: ask your platform team"),
        (409, "too-many-values", "the name already has 16 values: clean some up"),
    ],
)
async def test_refused(bench: Bench, status: int, kind: str, detail: str) -> None:
    """A refusal is passed on with the Secret that it concerns. The token has nothing left to clean up."""
    bench.responder.answer = lambda _: problem(status, kind, detail)

    assert refused(detail) == await bench.present()
    assert 2 == len(bench.responder.requests)
    assert await bench.clean_up() is None


async def test_token_for_another_hostname(bench: Bench) -> None:
    """The message names what would help: another grant, or a CNAME, or that cert-manager follows it."""
    detail = "this token does not cover x: it covers some.example.com"
    bench.responder.answer = lambda _: problem(403, "not-covered", detail)
    unfollowed = bench.order(replace(ORDER, fqdn="_acme-challenge.NONE.example.com."))

    assert await bench.present() == refused(
        f"{detail}: let it cover none.example.com (responder token allow), or point the CNAME of"
        " _acme-challenge.none.example.com. at a name it covers"
    )
    assert await bench.present(unfollowed) == refused(
        f"{detail}: let it cover none.example.com (responder token allow), or set cnameStrategy: Follow in the issuer"
        " if _acme-challenge.NONE.example.com. is a CNAME to a name it covers"
    )
    bench.responder.requests.clear()
    assert await bench.clean_up() is None
    assert [ORDER.fqdn, "_acme-challenge.none.example.com."] == [
        body["fqdn"] for _, _, body in bench.responder.requests
    ]


# A token that is pinned to an ACME account


PINNED = "this token is pinned to an ACME account: send acme_token"


def pinned(body: Mapping[str, str]) -> web.Response:
    if body.get("acme_token") != "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA":
        return problem(403, "pinned", PINNED)
    return web.json_response({"value": body["value"]})


def put_challenges(cluster: FakeCluster) -> None:
    """Several Challenges, on more than one page; the third is the one."""
    for number, (host, key, token) in enumerate(
        [
            ("other.example.com", VALUE, "another-host"),
            ("none.example.com", OTHER, "another-value"),
            ("none.example.com", VALUE, "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"),
        ]
    ):
        spec = {"type": "DNS-01", "dnsName": host, "key": key, "token": token, "wildcard": False}
        cluster.api.put("challenges", NAMESPACE, f"some-1-{number}", {"spec": spec})


async def test_pinned_token(cluster: FakeCluster, resolver: dns.asyncresolver.Resolver) -> None:
    """If the responder asks for it, ACME's own token is read from the Challenge of this name and value, and sent."""
    cluster.api.rbac = Rbac(least_rbac(challenges=True))
    put_challenges(cluster)
    async with bench_of(cluster, resolver, reads_challenges=True) as bench:
        bench.responder.answer = pinned

        assert await bench.cert_manager.present(bench.order()) is None
        assert await bench.clean_up() is None


async def test_challenges_are_read_only_if_need_be(cluster: FakeCluster, resolver: dns.asyncresolver.Resolver) -> None:
    """Challenges are not read for tokens that do not need it."""
    cluster.api.rbac = Rbac(least_rbac(challenges=True))
    async with bench_of(cluster, resolver, reads_challenges=True) as bench:
        assert await bench.cert_manager.present(bench.order()) is None

    assert "challenges" not in {what.resource for _, what in cluster.api.asked}


async def test_pinned_token_without_reading(bench: Bench) -> None:
    """Where reading Challenges is not enabled, none is read, whatever the rules would allow; the mend is named."""
    bench.cluster.api.rbac = Rbac(least_rbac(challenges=True))
    bench.responder.answer = pinned

    assert await bench.present() == refused(
        f"{PINNED}: let the webhook read Challenges (--read-challenges), which have that token"
    )
    assert await bench.clean_up() is None
    assert "challenges" not in {what.resource for _, what in bench.cluster.api.asked}


async def test_pinned_token_without_challenge(cluster: FakeCluster, resolver: dns.asyncresolver.Resolver) -> None:
    """A ClusterIssuer's Secret is in another namespace than the Challenge; and there may be no right to list them."""
    async with bench_of(cluster, resolver, reads_challenges=True) as bench:
        bench.responder.answer = pinned
        assert await bench.present() == (
            "the webhook may not list the Challenges in namespace team-a, which a token pinned to an ACME account"
            " needs: give its ServiceAccount that right (challenges.acme.cert-manager.io is forbidden: User"
            ' "system:serviceaccount:responder:responder-webhook" cannot list resource "challenges" in API group'
            ' "acme.cert-manager.io" in the namespace "team-a")'
        )
        assert await bench.clean_up() is None

        cluster.api.rbac = Rbac(least_rbac(challenges=True))
        assert await bench.present() == (
            "there is no Challenge for none.example.com in namespace team-a, which a token pinned to an ACME account"
            " needs: use an Issuer in the Certificate's own namespace, not a ClusterIssuer"
        )
        assert await bench.clean_up() is None


# What it takes


async def test_least_rights(cluster: FakeCluster, resolver: dns.asyncresolver.Resolver) -> None:
    """The rules that were granted are needed, every one, and no request goes beyond them."""
    cluster.api.rbac = Rbac(least_rbac(challenges=True))
    put_challenges(cluster)
    async with bench_of(cluster, resolver, reads_challenges=True) as bench:
        bench.responder.answer = pinned
        assert await bench.cert_manager.present(bench.order()) is None

    assert {
        Attributes("get", "", "configmaps", "kube-system", "extension-apiserver-authentication"),
        Attributes("create", "authorization.k8s.io", "subjectaccessreviews"),
        Attributes("get", "", "secrets", NAMESPACE, SECRET),
        Attributes("list", "acme.cert-manager.io", "challenges", NAMESPACE),
    } == {what for _, what in cluster.api.asked}
    assert all(cluster.api.rbac.allows(user, what) for user, what in cluster.api.asked)


def test_time_limits() -> None:
    """A responder that takes all the time it is given leaves enough of cert-manager's for the rest."""
    tries = (len(DELAYS) + 1) * service.ATTEMPT + sum(DELAYS)

    assert tries + 2 * cluster_client.REQUEST_DEADLINE + solver.DNS_DEADLINE <= statuses.RESPONSE_DEADLINE < 30
