"""The clients that cert-manager has built in, with the manifests that `responder manifest` prints for them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from .builtin_solvers import CertManager
from .dns_client import values
from .programs import wait_until
from .service import Responder, Token

pytestmark = pytest.mark.e2e

HOST = "some.example.com"


@pytest.fixture
def token(service: Responder) -> Iterator[Token]:
    """A token for the hostname, whose values are gone after the test."""
    minted = service.mint(HOST)
    yield minted
    service.cli("token", "revoke", minted.id)


@pytest.fixture
def acme_dns(service: Responder, resolver: int, token: Token, tmp_path: Path) -> CertManager:
    """cert-manager with the acmeDNS solver."""
    file = tmp_path / "token"
    file.write_text(f"{token.secret}\n")
    printed = service.cli(
        *("manifest", HOST, f"*.{HOST}", "--solver", "acme-dns"),
        *("--url", service.endpoint, "--token-file", str(file)),
    )
    return CertManager.applying(printed.stdout, resolver)


@pytest.fixture(params=["TCP", "UDP"])
def rfc2136(request: pytest.FixtureRequest, service: Responder, resolver: int, tmp_path: Path) -> Iterator[CertManager]:
    """cert-manager with the rfc2136 solver, and a token of its own, whose key it signs with."""
    file = tmp_path / "key"
    service.cli("token", "mint", HOST, "--format", "tsig", "--out", str(file))
    printed = service.cli(
        *("manifest", HOST, "--solver", "rfc2136", "--nameserver", f"127.0.0.1:{service.dns}"),
        *("--token-file", str(file)),
    )
    assert "protocol: TCP" in printed.stdout
    manager = CertManager.applying(printed.stdout.replace("protocol: TCP", f"protocol: {request.param}"), resolver)
    yield manager
    service.cli("token", "revoke", manager.tsig_token)


def key() -> str:
    """A key that no other test presents: 43 characters, as a SHA-256 has in base64url."""
    return secrets.token_urlsafe(32)


def assert_checked(manager: CertManager, bare: str, wild: str) -> None:
    """Both pass cert-manager's self-check, as soon as the resolver has forgotten what it saw there before."""
    wait_until(lambda: "" == manager.check(HOST, bare), "the key is seen")
    wait_until(lambda: "" == manager.check(HOST, wild, wildcard=True), "the key of the wildcard is seen")


def test_acme_dns_bare_and_wildcard(acme_dns: CertManager, service: Responder, token: Token) -> None:
    """Both values of a name and its wildcard pass cert-manager's self-check; it never cleans up, and we keep them."""
    bare, wild = key(), key()

    assert "" == acme_dns.present(HOST, bare)
    assert "" == acme_dns.present(HOST, wild, wildcard=True)
    assert "" == acme_dns.present(HOST, bare)

    assert_checked(acme_dns, bare, wild)
    assert "" == acme_dns.clean_up(HOST, bare)
    assert {bare, wild} <= set(values(service.dns, token.challenge_name))


def test_acme_dns_other_names(acme_dns: CertManager) -> None:
    """A name that the manifest was not made for finds no solver; one that is not presented yet is waited for."""
    assert "no solver of the issuer is for www.some.example.com" == acme_dns.present(f"www.{HOST}", key())
    assert f"_acme-challenge.{HOST}. does not show the key yet" == acme_dns.check(HOST, key())


def test_acme_dns_revoked(acme_dns: CertManager, service: Responder, token: Token) -> None:
    """A token that was revoked is one stable line in the Challenge."""
    assert "" == acme_dns.present(HOST, key())
    service.cli("token", "revoke", token.id)

    refusals = {acme_dns.present(HOST, key()) for _ in range(2)}

    (refusal,) = refusals
    assert "401" in refusal


def test_rfc2136_bare_and_wildcard(rfc2136: CertManager, service: Responder, token: Token) -> None:
    """Both values pass cert-manager's self-check, and cleaning up takes away one at a time, as often as asked."""
    bare, wild = key(), key()

    assert "" == rfc2136.present(HOST, bare)
    assert "" == rfc2136.present(HOST, wild, wildcard=True)
    assert "" == rfc2136.present(HOST, bare)
    assert_checked(rfc2136, bare, wild)

    assert "" == rfc2136.clean_up(HOST, bare)
    assert "" == rfc2136.clean_up(HOST, bare)
    assert {wild} == {bare, wild} & set(values(service.dns, token.challenge_name))
    assert "" == rfc2136.clean_up(HOST, wild, wildcard=True)
    assert not {bare, wild} & set(values(service.dns, token.challenge_name))


def test_rfc2136_without_follow(rfc2136: CertManager) -> None:
    """
    Without `cnameStrategy: Follow` the update goes to the zone above, which is not ours. The reply is a signed NOTAUTH,
    which the client of cert-manager reports as it reports a wrong key.
    """
    rfc2136.issuer["spec"]["acme"]["solvers"][0]["dns01"]["cnameStrategy"] = "None"

    assert "DNS update failed: dns: bad authentication" == rfc2136.present(HOST, key())


def test_rfc2136_wrong_key(rfc2136: CertManager) -> None:
    """A key of the right name and another secret is refused, in cert-manager's words."""
    rfc2136.secret["tsig-secret"] = "d3Jvbmcgc2VjcmV0IG9mIDMyIG9jdGV0cyBhYmNkZWY="

    assert "DNS update failed: dns: bad authentication" == rfc2136.present(HOST, key())
