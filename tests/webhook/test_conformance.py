"""
cert-manager's conformance suite for DNS01 solvers, assertion by assertion, through the webhook and the real service to
the DNS; with cert-manager's own lookups before, between and after.

The suite itself runs in tests/e2e/test_kube_apiserver.py, which needs Go and minutes; this one looks at more.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import dns.rcode
import pytest

from responder.tokens.values import challenge_value
from tests.e2e.dns_client import ask
from tests.e2e.programs import wait_until
from tests.e2e.service import ZONE, Responder, Token
from tests.support.kubernetes.cert_manager import CertManager, Order
from tests.support.kubernetes.cluster import NAMESPACE, SECRET, FakeCluster, fake_cluster, least_rbac
from tests.support.kubernetes.lookups import Lookups
from tests.support.processes import polled

KEY, OTHER_KEY = "123d==", "anothertestingkey"
"""The suite's own values: no digests at all."""

ACME_TOKEN, THUMBPRINT = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA", "9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI"
"""RFC 8555's own examples of them."""


@dataclass(frozen=True, slots=True)
class Suite:
    """What the suite has at hand: the solver, an order for it, and the DNS server."""

    cluster: FakeCluster
    cert_manager: CertManager
    token: Token
    order: Order
    lookups: Lookups

    async def present(self, order: Order) -> None:
        assert await self.cert_manager.present(order) is None

    async def clean_up(self, order: Order) -> None:
        assert await self.cert_manager.clean_up(order) is None

    async def is_propagated(self, order: Order) -> bool:
        return await self.lookups.propagated(order.fqdn, order.key)

    async def is_deleted(self, order: Order) -> bool:
        return await self.lookups.deleted(order.fqdn, order.key)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Responder]:
    """The service, as its users run it."""
    responder = Responder(tmp_path_factory.mktemp("service"))
    try:
        responder.start()
        yield responder
    finally:
        responder.stop()


@pytest.fixture
async def suite(tmp_path: Path, service: Responder, request: pytest.FixtureRequest) -> AsyncIterator[Suite]:
    """A token of a hostname of its own, in the Secret of a cluster with a webhook in it."""
    hostname = f"{request.node.name.replace('_', '-')}.example.com"
    token = service.mint(hostname)
    wait_until(lambda: _exists(service, token), "the new token's challenge name is served")
    order = Order(
        dns_name=hostname,
        key=KEY,
        fqdn=f"{token.challenge_name}.",
        zone=f"{ZONE}.",
        config={"url": service.endpoint, "tokenSecretRef": {"name": SECRET, "key": "token"}},
    )
    nameserver = "127.0.0.1", service.dns
    lookups = Lookups(nameserver, {f"ns1.{ZONE}.": nameserver})
    async with fake_cluster(tmp_path, least_rbac(challenges=True)) as cluster:
        cluster.api.put_secret(NAMESPACE, SECRET, token=token.secret)
        async with cluster.webhook(reads_challenges=True) as port, cluster.cert_manager(port) as cert_manager:
            yield Suite(cluster, cert_manager, token, order, lookups)


async def test_basic(suite: Suite) -> None:
    """
    Basic/PresentRecord: a value is presented and seen, cleaned up and seen no longer; cleaning up once more succeeds.

    None of cert-manager's lookups, before, between or after, meets anything but NOERROR.
    """
    order = suite.order
    assert order.fqdn == await suite.lookups.follow(order.fqdn)
    assert order.zone == await suite.lookups.zone(order.fqdn)
    assert not await suite.is_propagated(order)

    await suite.present(order)
    assert await suite.is_propagated(order)  # at once: what was acknowledged is served

    await suite.clean_up(order)
    assert await suite.is_deleted(order)
    await suite.clean_up(order)
    assert await suite.is_deleted(order)
    assert {dns.rcode.NOERROR} == suite.lookups.rcodes


async def test_extended(suite: Suite) -> None:
    """
    Extended/DeletingOneRecordRetainsOthers: of two values at one name, one is cleaned up, and the other stays. Then
    both are cleaned up, the first for the second time.
    """
    first, second = suite.order, replace(suite.order, key=OTHER_KEY)
    await suite.present(first)
    await suite.present(second)
    assert await suite.is_propagated(first)
    assert await suite.is_propagated(second)

    await suite.clean_up(second)
    assert await suite.is_deleted(second)
    assert await suite.is_propagated(first)

    await suite.clean_up(second)
    await suite.clean_up(first)
    assert await suite.is_deleted(first)
    assert {dns.rcode.NOERROR} == suite.lookups.rcodes


async def test_repeated_present(suite: Suite) -> None:
    """A value is presented again when cert-manager lost its own note of that; it is one value still."""
    await suite.present(suite.order)
    await suite.present(suite.order)
    assert await suite.is_propagated(suite.order)

    await suite.clean_up(suite.order)
    assert await suite.is_deleted(suite.order)


async def test_clean_up_without_present(suite: Suite) -> None:
    """Cleaning up what was never presented succeeds, and changes nothing."""
    await suite.clean_up(suite.order)

    assert await suite.is_deleted(suite.order)
    assert {dns.rcode.NOERROR} == suite.lookups.rcodes


async def test_without_follow(suite: Suite) -> None:
    """With cnameStrategy None, the request names the user's own zone; the token's grant says which name is meant."""
    hostname = suite.order.dns_name
    unfollowed = replace(suite.order, fqdn=f"_acme-challenge.{hostname}.", zone="example.com.")

    await suite.present(unfollowed)
    assert await suite.is_propagated(suite.order)

    await suite.clean_up(unfollowed)
    assert await suite.is_deleted(suite.order)


async def test_moved_cname(suite: Suite) -> None:
    """The CNAME was followed when the value was presented, and leads elsewhere when it is cleaned up."""
    await suite.present(suite.order)

    await suite.clean_up(replace(suite.order, fqdn="elsewhere.example.net.", zone="example.net."))

    assert await suite.is_deleted(suite.order)


async def test_pinned_token(suite: Suite, service: Responder) -> None:
    """A token that is pinned to an ACME account publishes that account's values alone; the Challenge proves it."""
    _pin(service, suite.token)
    order = replace(suite.order, key=challenge_value(f"{ACME_TOKEN}.{THUMBPRINT}"))
    for key, is_theirs in ((order.key, True), (OTHER_KEY, False)):
        order = replace(order, key=key)
        spec = {"type": "DNS-01", "dnsName": order.dns_name, "key": key, "token": ACME_TOKEN}
        suite.cluster.api.put("challenges", NAMESPACE, "the-only-one", {"spec": spec})

        message = await suite.cert_manager.present(order)

        assert is_theirs == (message is None)
        assert is_theirs == await suite.is_propagated(order)
        await suite.clean_up(order)
        assert await suite.is_deleted(order)
    assert message == (
        "Secret team-a/responder-token, key token: the responder at 127.0.0.1 refuses: this token is pinned to an ACME"
        " account, and the value is not one of that account: use the account that it was minted for"
    )


async def test_revoked_token(suite: Suite, service: Responder) -> None:
    """With a token that was revoked, nothing is presented; its values went with it, so there is nothing to clean up."""
    await suite.present(suite.order)

    service.cli("token", "revoke", suite.token.id)
    wait_until(lambda: service.introspect(suite.token).status == 401, "the token is good no longer")

    # Within a second, the refusal may be that of the transaction, which does not look for the reason.
    assert await suite.cert_manager.present(suite.order) in {
        "Secret team-a/responder-token, key token: the responder at 127.0.0.1 refuses: this token "
        f"{reason}: ask your platform team for a new one"
        for reason in ("was revoked", "is unknown, was revoked or replaced, or has expired")
    }
    await suite.clean_up(suite.order)
    await polled(lambda: suite.is_deleted(suite.order), "its value is gone")


async def test_token_for_another_hostname(suite: Suite) -> None:
    """A token of another hostname does nothing here, and the message says what would help."""
    strange = replace(suite.order, dns_name="strange.example.com", fqdn=f"_acme-challenge.strange.{ZONE}.")
    own, name = suite.order.dns_name, "_acme-challenge.strange.example.com."

    for fqdn, mend in (
        (strange.fqdn, f"point the CNAME of {name} at a name it covers"),
        (name, f"set cnameStrategy: Follow in the issuer if {name} is a CNAME to a name it covers"),
    ):
        assert await suite.cert_manager.present(replace(strange, fqdn=fqdn)) == (
            "Secret team-a/responder-token, key token: the responder at 127.0.0.1 refuses: this token does not cover"
            f" {fqdn.rstrip('.')}: it covers {own}: let it cover strange.example.com (responder token allow), or {mend}"
        )
        await suite.clean_up(replace(strange, fqdn=fqdn))


def _pin(service: Responder, token: Token) -> None:
    """Bind the token to an ACME account, before anybody has used it."""
    with closing(sqlite3.connect(service.directory / "responder.db")) as database, database:
        database.execute("UPDATE tokens SET account_thumbprint = ? WHERE id = ?", (THUMBPRINT, token.id))


def _exists(service: Responder, token: Token) -> bool:
    """Whether the nameserver has heard of the token: it takes half a second."""
    return ask(service.dns, token.challenge_name, "TXT").rcode() == dns.rcode.NOERROR
