"""From an Issuer to a certificate: kube-apiserver, the webhook in a process of its own, the service, the CA."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import dns.rcode
import pytest
from cryptography import x509

from tests.support.kubernetes.cert_manager import CertManager, Order
from tests.support.kubernetes.cluster import NAMESPACE, SECRET, fake_cluster
from tests.support.kubernetes.lookups import Lookups
from tests.support.ports import free_port
from tests.support.processes import polled

from .acme_client import Account, Challenge
from .dns_client import ask
from .pebble import Authority
from .programs import require, wait_until
from .service import ZONE, Responder

pytestmark = pytest.mark.e2e

HOSTNAME = "cluster.example.com"


@pytest.fixture
async def cert_manager(service: Responder, tmp_path: Path) -> AsyncIterator[CertManager]:
    """The cert-manager of a cluster whose webhook runs as in a pod; the token is in the Secret of a namespace."""
    token = service.mint(HOSTNAME)
    wait_until(lambda: ask(service.dns, token.challenge_name, "TXT").rcode() == dns.rcode.NOERROR, "the name is served")
    port = free_port()
    async with fake_cluster(tmp_path) as cluster:
        cluster.api.put_secret(NAMESPACE, SECRET, token=token.secret)
        async with cluster.process(port=port), cluster.cert_manager(port) as cert_manager:
            yield cert_manager


async def test_hostname_and_wildcard(
    service: Responder, authority: Authority, resolver: int, cert_manager: CertManager, tmp_path: Path
) -> None:
    """
    cert-manager obtains one certificate for a hostname and its wildcard. Its two challenges share one name; it does
    them one after the other. None of its lookups, through a resolver that caches, meets anything but NOERROR or
    NXDOMAIN.
    """
    lookups = Lookups(("127.0.0.1", resolver), {f"ns1.{ZONE}.": ("127.0.0.1", service.dns)})
    account = await asyncio.to_thread(Account.register, authority)
    try:
        order = await asyncio.to_thread(account.order, HOSTNAME, f"*.{HOSTNAME}")
        challenges = list(account.challenges(order))
        for challenge in challenges:
            await _solve(account, challenge, cert_manager, lookups, service)
        chain = await asyncio.to_thread(account.finalize, order)
    finally:
        account.close()

    assert [(HOSTNAME, False), (HOSTNAME, True)] == sorted((c.hostname, c.is_wildcard) for c in challenges)
    assert {HOSTNAME, f"*.{HOSTNAME}"} == _names(chain)
    _verify(chain, authority.root(), tmp_path)
    assert {dns.rcode.NOERROR, dns.rcode.NXDOMAIN} >= lookups.rcodes


async def _solve(
    account: Account, challenge: Challenge, cert_manager: CertManager, lookups: Lookups, service: Responder
) -> None:
    """What cert-manager's challenge controller does, in its order, with `cnameStrategy: Follow`."""
    name = f"_acme-challenge.{challenge.hostname}."
    fqdn = await lookups.follow(name)
    order = Order(
        dns_name=challenge.hostname,
        key=challenge.value,
        fqdn=fqdn,
        zone=await lookups.zone(fqdn),
        config={"url": service.endpoint, "tokenSecretRef": {"name": SECRET, "key": "token"}},
    )
    assert (f"_acme-challenge.cluster.{ZONE}.", f"{ZONE}.") == (order.fqdn, order.zone)
    assert not await lookups.propagated(name, challenge.value)

    assert await cert_manager.present(order) is None
    assert await lookups.propagated(name, challenge.value)
    # Here cert-manager sleeps for a minute, so that the CA's resolver, which may remember that there was no value or
    # another one, has the time to forget it. Ours takes some seconds.
    await polled(lambda: _sees(lookups, fqdn, challenge.value), "the CA's resolver sees the value")
    await asyncio.to_thread(account.validate, challenge)

    assert await cert_manager.clean_up(order) is None
    assert await cert_manager.clean_up(order) is None
    await polled(lambda: lookups.deleted(fqdn, challenge.value), "the value is gone")


async def _sees(lookups: Lookups, fqdn: str, value: str) -> bool:
    return not await lookups.deleted(fqdn, value)


def _names(chain: str) -> set[str]:
    certificate = x509.load_pem_x509_certificate(chain.encode())
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return set(extension.value.get_values_for_type(x509.DNSName))


def _verify(chain: str, root: str, directory: Path) -> None:
    """Fails unless the chain leads from the root to the certificate."""
    (directory / "chain.pem").write_text(chain)
    (directory / "root.pem").write_text(root)
    arguments = ["-CAfile", "root.pem", "-untrusted", "chain.pem", "chain.pem"]
    run = subprocess.run([require("openssl"), "verify", *arguments], cwd=directory, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
