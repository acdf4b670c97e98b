"""
A challenge name as a zone of its own: `_acme-challenge.some.example.com`, delegated by NS records, without a CNAME.

    lego --> the service <-- unbound, which validates --> knot: root, com, example.com
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dns.rcode
import pytest

from .dns_client import ask, values
from .lab import Lab, Resolver, challenge_zone, strict_resolver
from .lego import Lego, build_acme_dns, httpreq, obtain_by_acme_dns
from .pebble import Authority, issuing
from .programs import wait_until
from .service import Token
from .test_doctor import check
from .updates import key_of, nsupdate

pytestmark = pytest.mark.e2e

HOST = "some.example.com"
APEX = f"_acme-challenge.{HOST}"
VALUE = "a" * 43


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with challenge_zone(tmp_path_factory.mktemp("lab"), HOST) as running:
        yield running


@pytest.fixture(scope="module")
def resolver(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Resolver]:
    with strict_resolver(lab, tmp_path_factory.mktemp("resolver")) as running:
        yield running


@pytest.fixture(scope="module")
def authority(resolver: Resolver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    with issuing(tmp_path_factory.mktemp("authority"), 53, address=resolver.address) as running:
        yield running


@pytest.fixture
def token(lab: Lab) -> Iterator[Token]:
    minted = lab.service.mint(HOST)
    wait_until(lambda: lab.service.introspect(minted).status == 200, "the new token is good")
    yield minted
    lab.service.cli("token", "revoke", minted.id)


def test_doctor(lab: Lab, resolver: Resolver, token: Token) -> None:
    """The delegation is as it has to be: nothing has to be removed or added."""
    report = check(lab, resolver, HOST, f"*.{HOST}", "--write")

    assert (0, {}) == (report.status, report.crosses())
    assert {"delegation", "DS", "authority", "serial", "challenge name", "CNAME", "resolver"} <= report.ticks()


def test_httpreq(lab: Lab, resolver: Resolver, authority: Authority, token: Token, tmp_path: Path) -> None:
    """lego gets a certificate for the hostname and its wildcard; the zone stays as it is when the token is revoked."""
    lego = Lego(authority, 53, resolver.address)
    provider = httpreq(lab.service.endpoint, token.id, token.secret)

    certificate = lego.obtain(HOST, f"*.{HOST}", provider=provider, directory=tmp_path)

    certificate.verify(authority.root())
    assert {HOST, f"*.{HOST}"} == certificate.names()
    assert APEX == token.challenge_name
    assert set() == values(lab.service.dns, APEX)


def test_acme_dns(lab: Lab, resolver: Resolver, authority: Authority, token: Token, tmp_path: Path) -> None:
    """The account of the file for lego names the apex as it is."""
    storage = tmp_path / "accounts.json"
    options = ("--format", "lego", "--url", lab.service.endpoint, "--out", str(storage))
    lab.service.cli("token", "mint", HOST, *options)
    lego = Lego(authority, 53, resolver.address)

    certificate = obtain_by_acme_dns(
        build_acme_dns(tmp_path),
        lego,
        HOST,
        endpoint=lab.service.endpoint,
        storage=storage,
        directory=tmp_path,
    )

    certificate.verify(authority.root())
    lab.service.cli("value", "clear", HOST)


def test_update(lab: Lab, token: Token, tmp_path: Path) -> None:
    """By DNS update, with the apex as the zone and as the name; its SOA and NS records cannot be touched."""
    key = key_of(lab.service, token).bind(tmp_path)
    server, zone = f"server 127.0.0.1 {lab.service.dns}", f"zone {APEX}."

    added = nsupdate(key, server, zone, f"update add {APEX}. 1 TXT {VALUE}", "send")
    found = values(lab.service.dns, APEX)
    refused = nsupdate(key, server, zone, f"update add {APEX}. 1 NS ns.example.net.", "send")
    removed = nsupdate(key, server, zone, f"update delete {APEX}. TXT", "send")

    assert (0, 0) == (added.returncode, removed.returncode), added.stderr + removed.stderr
    assert 0 != refused.returncode
    assert {VALUE} == found
    assert set() == values(lab.service.dns, APEX)


def test_revoked(lab: Lab) -> None:
    """When the grant ends, its values go, and the zone stays."""
    token = lab.service.mint(HOST)
    wait_until(lambda: lab.service.present(token, VALUE).status == 200, "the new token is good")
    before = values(lab.service.dns, APEX)

    lab.service.cli("token", "revoke", token.id)

    wait_until(lambda: not values(lab.service.dns, APEX), "the value is gone")
    assert {VALUE} == before
    assert dns.rcode.NOERROR == ask(lab.service.dns, APEX, "TXT").rcode()
    assert ask(lab.service.dns, APEX, "SOA").answer
    assert ask(lab.service.dns, APEX, "NS").answer


def test_texts(lab: Lab) -> None:
    """What the commands print as needed is the delegation, and no CNAME; an alias at the apex is the same name."""
    minted = lab.service.cli("token", "mint", HOST, "--alias", APEX).stdout
    manifest = lab.service.cli("manifest", HOST, "--url", "https://api.example.com").stdout

    expected = f"no CNAME, but the NS records for {APEX} that responder zone delegation prints"
    assert f"{HOST}: {expected}\n" in minted
    assert f"#   {expected}\n" in manifest
    assert " IN CNAME " not in minted + manifest
    assert f"{APEX}. 3600 IN NS ns1.example.com.\n" in lab.service.cli("zone", "delegation").stdout
