"""One order from its beginning to its end, whichever that is."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from responder.certificate.authority import Authority, Challenge
from responder.certificate.order import obtain
from responder.certificate.session import Order
from responder.errors import CertificateRefused, Invalid, TooManyValues, Unavailable
from responder.tls.keypair import KeyPair
from tests.support.keypairs import key_pair

NAMES = ("some.example.com", "*.some.example.com", "old.example.com")


class Ca:
    """A CA that believes in one of three names already, and issues what it is asked for."""

    def __init__(self) -> None:
        self.answered: list[str] = []
        self.refusal: Exception | None = None
        self.hangs = False
        self.foreign = False

    async def place(self, names: list[str], *, replaces: x509.Certificate | None) -> Order:
        return Order("order", "finalize", tuple(names))

    async def challenge(self, url: str) -> Challenge | None:
        if url == "old.example.com":
            return None
        return Challenge(url.removeprefix("*."), f"value of {url}", "token", cast(Any, None))

    async def begin_validation(self, challenge: Challenge) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.refusal is not None:
            raise self.refusal
        self.answered.append(challenge.value)

    async def finalize(self, order: Order, csr_pem: bytes) -> bytes:
        csr = x509.load_pem_x509_csr(csr_pem)
        names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert set(NAMES) == set(names.get_values_for_type(x509.DNSName))
        if self.foreign:
            return key_pair(*NAMES).chain
        signer = key_pair("ca.example")
        key = serialization.load_pem_private_key(signer.key, None)
        leaf = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(signer.leaf.subject)
            .public_key(csr.public_key())
            .serial_number(7)
            .not_valid_before(signer.not_before)
            .not_valid_after(signer.not_after)
            .add_extension(names, critical=True)
            .sign(cast(Any, key), hashes.SHA256())
        )
        return leaf.public_bytes(serialization.Encoding.PEM) + signer.chain


class Dns:
    """Where values are published."""

    def __init__(self) -> None:
        self.values: set[str] = set()
        self.history: list[str] = []
        self.refuses: str | None = None
        self.keeps = False

    async def present(self, challenge: Challenge) -> str:
        self.values.add(challenge.value)  # even if the answer never comes
        if challenge.value == self.refuses:
            raise TooManyValues("it is full")
        self.history.append(challenge.value)
        return "_acme-challenge.somewhere"

    async def cleanup(self, challenge: Challenge) -> None:
        if self.keeps:
            raise Unavailable("not now")
        self.values.discard(challenge.value)


async def run(ca: Ca, dns: Dns, **how: Any) -> KeyPair | None:
    return await obtain(cast(Authority, ca), NAMES, dns, **how)


async def test_obtain() -> None:
    """All values are there before the CA looks for the first; afterwards none is, and the pair is for the names."""
    ca, dns, steps = Ca(), Dns(), list[str]()

    pair = await run(ca, dns, progress=steps.append)

    assert pair is not None
    assert KeyPair.parse(pair.chain, pair.key) == pair
    assert ["value of some.example.com", "value of *.some.example.com"] == dns.history == ca.answered
    assert set() == dns.values
    assert steps == [
        "ordered a certificate for some.example.com, *.some.example.com, old.example.com",
        "the CA has already validated 1 of them",
        *["some.example.com: the value is being served at _acme-challenge.somewhere"] * 2,
        *["some.example.com: the CA has validated it"] * 2,
    ]


async def test_dry_run() -> None:
    """A dry run ends before the CA is asked to issue anything."""
    ca, dns = Ca(), Dns()
    ca.foreign = True  # and would be refused

    assert await run(ca, dns, dry_run=True) is None
    assert 2 == len(ca.answered)
    assert set() == dns.values


@pytest.mark.parametrize("value", ["value of some.example.com", "value of *.some.example.com"])
async def test_value_that_is_refused(value: str) -> None:
    """A value that cannot be presented ends the order, and those before it are taken back, and it as well."""
    ca, dns = Ca(), Dns()
    dns.refuses = value

    with pytest.raises(TooManyValues):
        await run(ca, dns)

    assert [] == ca.answered
    assert set() == dns.values


async def test_authority_that_refuses() -> None:
    """What the CA says is what is raised, even if the values cannot be taken back: that is logged."""
    ca, dns = Ca(), Dns()
    ca.refusal, dns.keeps = CertificateRefused("no"), True

    with structlog.testing.capture_logs() as logs, pytest.raises(CertificateRefused):
        await run(ca, dns)

    assert ["not now"] * 2 == [entry["reason"] for entry in logs]


async def test_cancelled() -> None:
    """Whoever is stopped while the CA dallies takes everything back first."""
    ca, dns = Ca(), Dns()
    ca.hangs = True
    running = asyncio.create_task(run(ca, dns))
    while len(dns.history) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert set() == dns.values


async def test_foreign_certificate() -> None:
    """A certificate for another key is refused."""
    ca, dns = Ca(), Dns()
    ca.foreign = True

    with pytest.raises(Invalid, match=r"^the CA issued another certificate than requested: the private key"):
        await run(ca, dns)
