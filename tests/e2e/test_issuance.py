"""From a token to a certificate, and what a token that is not good enough gets instead."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import dns.rcode
import pytest

from .certbot import Certbot
from .dns_client import ask, serial, values
from .lego import Lego, Provider, build_acme_dns, httpreq, obtain_by_acme_dns
from .pebble import Authority
from .programs import wait_until
from .service import ZONE, Responder, Token

pytestmark = pytest.mark.e2e

VALUE = "a" * 43


def test_hostname_and_wildcard_in_one_certificate(
    service: Responder, lego: Lego, authority: Authority, tmp_path: Path
) -> None:
    """
    One token obtains one certificate for a hostname and its wildcard, whose two values share one name at the
    same time. Afterwards no value is left, and the challenge name still exists.
    """
    token = service.mint("some.example.com")

    certificate = lego.obtain(
        "some.example.com", "*.some.example.com", provider=_httpreq(service, token), directory=tmp_path
    )

    certificate.verify(authority.root())
    assert {"some.example.com", "*.some.example.com"} == certificate.names()
    values_left = json.loads(service.cli("value", "list", "--output", "json").stdout)
    assert [] == [value for value in values_left if value["hostname"] == "some.example.com"]
    left = ask(service.dns, token.challenge_name, "TXT")
    assert left.rcode() == dns.rcode.NOERROR
    assert left.answer == []


def test_raw_mode(service: Responder, lego: Lego, authority: Authority, tmp_path: Path) -> None:
    """In httpreq's RAW mode, which knows nothing of CNAMEs and has the value computed by the service."""
    token = service.mint("raw.example.com")

    certificate = lego.obtain(
        "raw.example.com", "*.raw.example.com", provider=_httpreq(service, token, mode="RAW"), directory=tmp_path
    )

    certificate.verify(authority.root())
    assert {"raw.example.com", "*.raw.example.com"} == certificate.names()
    assert set() == values(service.dns, token.challenge_name)


def test_acme_dns(service: Responder, lego: Lego, authority: Authority, tmp_path: Path) -> None:
    """By the API of acme-dns, with the storage file that was made for lego. Nothing cleans up there."""
    storage = tmp_path / "accounts.json"
    options = ("--format", "lego", "--url", service.endpoint, "--out", str(storage))
    service.cli("token", "mint", "stored.example.com", *options)

    certificate = obtain_by_acme_dns(
        build_acme_dns(tmp_path),
        lego,
        "stored.example.com",
        "*.stored.example.com",
        endpoint=service.endpoint,
        storage=storage,
        directory=tmp_path,
    )

    certificate.verify(authority.root())
    assert {"stored.example.com", "*.stored.example.com"} == certificate.names()
    assert 2 == len(values(service.dns, f"_acme-challenge.stored.{ZONE}"))


def test_shared_name(service: Responder, lego: Lego, authority: Authority, tmp_path: Path) -> None:
    """
    One certificate for two hostnames whose CNAMEs lead to one name. The client has one account, like acme.sh, and both
    values are served at the same time.
    """
    storage = tmp_path / "accounts.json"
    hosts = ("one.example.com", "two.example.com")
    options = ("--alias", f"site.{ZONE}", "--format", "lego", "--url", service.endpoint, "--out", str(storage))
    service.cli("token", "mint", *hosts, *options)
    assert {"site"} == {account["subdomain"] for account in json.loads(storage.read_text()).values()}
    wait_until(lambda: _exists(service, f"site.{ZONE}"), "the challenge name exists")

    certificate = obtain_by_acme_dns(
        build_acme_dns(tmp_path), lego, *hosts, endpoint=service.endpoint, storage=storage, directory=tmp_path
    )

    certificate.verify(authority.root())
    assert set(hosts) == certificate.names()
    assert 2 == len(values(service.dns, f"site.{ZONE}"))
    service.cli("value", "clear", hosts[1])
    wait_until(lambda: not values(service.dns, f"site.{ZONE}"), "the values are gone")


def test_certbot_by_acme_dns(service: Responder, authority: Authority, tmp_path: Path) -> None:
    """certbot's plugin for acme-dns reads the same accounts, and follows the CNAME of the hostname as a CA does."""
    accounts = tmp_path / "accounts.json"
    options = ("--format", "lego", "--out", str(accounts), "--url", service.endpoint)
    service.cli("token", "mint", "bot.example.com", *options)
    name = f"_acme-challenge.bot.{ZONE}"
    wait_until(lambda: _exists(service, name), "the challenge name exists")
    names = ("bot.example.com", "*.bot.example.com")

    certificate = Certbot(authority).obtain(
        *names,
        plugin="dns-acmedns",
        credentials=f"dns_acmedns_api_url = {service.endpoint}/\ndns_acmedns_registration_file = {accounts}\n",
        directory=tmp_path,
    )

    certificate.verify(authority.root())
    assert set(names) == certificate.names()
    assert 2 == len(values(service.dns, name))


def test_questions_before_the_first_value(
    service: Responder, lego: Lego, authority: Authority, resolver: int, tmp_path: Path
) -> None:
    """
    What clients ask about a challenge name before they present its first value leaves nothing in the cache of
    the CA's resolver that would hide the value.
    """
    token = service.mint("early.example.com")
    own_name = "_acme-challenge.early.example.com"
    wait_until(lambda: _exists(service, token.challenge_name), "the challenge name exists")

    early = {
        (name, rdtype): ask(resolver, name, rdtype)
        for name in (own_name, token.challenge_name)
        for rdtype in ("SOA", "A", "CNAME")
    }
    certificate = lego.obtain("early.example.com", provider=_httpreq(service, token), directory=tmp_path)

    assert {dns.rcode.NOERROR} == {answer.rcode() for answer in early.values()}
    certificate.verify(authority.root())
    assert {"early.example.com"} == certificate.names()


def test_token_for_another_hostname(service: Responder, lego: Lego, tmp_path: Path) -> None:
    """A token for one hostname obtains nothing for another; its user reads why, the zone stays as it is."""
    mine, yours = service.mint("mine.example.com"), service.mint("yours.example.com")
    wait_until(lambda: _exists(service, mine.challenge_name), "one challenge name exists")
    wait_until(lambda: _exists(service, yours.challenge_name), "the other challenge name exists")
    before = serial(service.dns, ZONE)

    run = lego.run("yours.example.com", provider=_httpreq(service, mine), directory=tmp_path)
    reply = service.present(mine, VALUE, name=yours.challenge_name)

    assert run.returncode != 0
    assert "does not cover" in run.stdout
    assert reply.status == 403
    assert before == serial(service.dns, ZONE)
    assert set() == values(service.dns, yours.challenge_name)


def test_new_token(service: Responder) -> None:
    """A token that is minted while the service runs can be used soon."""
    token = service.mint("new.example.com")

    wait_until(lambda: service.present(token, VALUE).status == 200, "the new token is good")

    assert {VALUE} == values(service.dns, token.challenge_name)


@pytest.mark.parametrize("command", [("revoke",), ("rotate", "--grace", "0")], ids=["revoked", "rotated"])
def test_what_is_taken_away(service: Responder, command: tuple[str, ...]) -> None:
    """Once the command returns, the service takes the secret for nothing, however busy it was with it until then."""
    token = service.mint(f"{command[0]}.example.com")
    wait_until(lambda: service.present(token, VALUE).status == 200, "the new token is good")
    done = Event()

    def use() -> None:
        while not done.is_set() and service.present(token, VALUE).status == 200:
            pass

    with ThreadPoolExecutor() as others:
        using = others.submit(use)
        try:
            service.cli("token", command[0], token.id, *command[1:])
            present, introspected = service.present(token, VALUE), service.introspect(token)
        finally:
            done.set()
    using.result()

    assert [401, 401] == [present.status, introspected.status]
    if command[0] == "revoke":
        wait_until(lambda: not values(service.dns, token.challenge_name), "its value is gone")


def test_expired_token(service: Responder) -> None:
    """A token stops being good when its time is over."""
    token = service.mint("expired.example.com", "--expires-in", "1s")

    wait_until(lambda: service.introspect(token).status == 401, "the token is good no longer")

    assert service.present(token, VALUE).status == 401


def _httpreq(service: Responder, token: Token, mode: str = "") -> Provider:
    return httpreq(service.endpoint, token.id, token.secret, mode=mode)


def _exists(service: Responder, name: str) -> bool:
    """Whether the name is there, asked of the service itself, so that no cache remembers that it was not."""
    return ask(service.dns, name, "TXT").rcode() == dns.rcode.NOERROR
