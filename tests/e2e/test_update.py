"""DNS updates by the programs that people send them with, to certificates and to what is refused."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from subprocess import CompletedProcess

import dns.edns
import dns.message
import dns.query
import dns.rcode
import dns.tsigkeyring
import dns.update
import pytest

from tests.support.processes import PATIENCE

from .certbot import Certbot
from .dns_client import ask, serial, values
from .lego import Certificate, Lego
from .pebble import Authority
from .programs import wait_until
from .service import ZONE, Responder, Token
from .updates import Key, hook_environment, key_of, knsupdate, nsupdate, obtain_by_dehydrated, rfc2136, run_hook

pytestmark = pytest.mark.e2e

VALUE, OTHER = "a" * 43, "b" * 43

Client = Callable[..., CompletedProcess[str]]


_numbers = count(1)


@pytest.fixture
def token(service: Responder) -> Token:
    """A token for a hostname of this test's own."""
    return _minted(service, f"updated{next(_numbers)}.example.com")


def _minted(service: Responder, hostname: str) -> Token:
    """A new token, whose challenge name exists: whatever changes the zone from now on is the test's doing."""
    minted = service.mint(hostname)
    wait_until(
        lambda: ask(service.dns, minted.challenge_name, "TXT").rcode() == dns.rcode.NOERROR, "the challenge name exists"
    )
    return minted


def _expect(certificate: Certificate, authority: Authority, *names: str) -> None:
    certificate.verify(authority.root())
    assert set(names) == certificate.names()


def test_lego(service: Responder, lego: Lego, authority: Authority, tmp_path: Path) -> None:
    """lego obtains a certificate for a hostname and its wildcard, and leaves nothing behind."""
    token = service.mint("updated.example.com")
    names = "updated.example.com", "*.updated.example.com"

    certificate = lego.obtain(*names, provider=rfc2136(service, key_of(service, token)), directory=tmp_path)

    _expect(certificate, authority, *names)
    assert set() == values(service.dns, token.challenge_name)


@pytest.mark.parametrize("sign_query", ["false", "true"])
def test_certbot(service: Responder, authority: Authority, tmp_path: Path, sign_query: str) -> None:
    """certbot follows no CNAME, so it obtains certificates for names in the zone; its queries may be signed, too."""
    host = f"web-{sign_query}.{ZONE}"
    token = service.mint(host)
    key = key_of(service, token)
    credentials = {
        "server": "127.0.0.1",
        "port": str(service.dns),
        "name": f"{key.name}.",
        "secret": key.secret,
        "algorithm": "HMAC-SHA512",
        "sign_query": sign_query,
    }

    certificate = Certbot(authority).obtain(
        host,
        f"*.{host}",
        plugin="dns-rfc2136",
        credentials="".join(f"dns_rfc2136_{name} = {value}\n" for name, value in credentials.items()),
        directory=tmp_path,
    )

    _expect(certificate, authority, host, f"*.{host}")
    assert set() == values(service.dns, token.challenge_name)


def test_dehydrated(service: Responder, authority: Authority, resolver: int, tmp_path: Path) -> None:
    """dehydrated, with the hook that we ship, follows the CNAME of a hostname."""
    token = service.mint("hooked.example.com")
    names = "hooked.example.com", "*.hooked.example.com"

    certificate = obtain_by_dehydrated(authority, resolver, service, key_of(service, token), *names, directory=tmp_path)

    _expect(certificate, authority, *names)
    assert set() == values(service.dns, token.challenge_name)


@pytest.mark.parametrize("options", [(), ("-v",)], ids=["UDP", "TCP"])
def test_nsupdate(service: Responder, token: Token, tmp_path: Path, options: tuple[str, ...]) -> None:
    """nsupdate finds the zone by a signed query, adds and deletes values, and tells what is not as expected."""
    key = key_of(service, token).bind(tmp_path)
    name = f"{token.challenge_name}."

    def send(*lines: str) -> str:
        return nsupdate(key, f"server 127.0.0.1 {service.dns}", *lines, "send", "answer", options=options).stdout

    assert "status: NOERROR" in send(f"update add {name} 60 TXT {VALUE}", f"update add {name} 60 TXT {OTHER}")
    assert {VALUE, OTHER} == values(service.dns, token.challenge_name)
    assert "status: NOERROR" in send(f"prereq yxrrset {name} TXT", f"update delete {name} TXT {VALUE}")
    assert {OTHER} == values(service.dns, token.challenge_name)
    assert "NXRRSET" in send(f"prereq yxrrset {name} TXT {VALUE}", f"update delete {name}")
    assert "YXDOMAIN" in send(f"prereq nxdomain {name}", f"update delete {name}")
    assert {OTHER} == values(service.dns, token.challenge_name)
    assert "status: NOERROR" in send(f"update delete {name}")
    assert set() == values(service.dns, token.challenge_name)


def test_key_file_as_minted(service: Responder, tmp_path: Path) -> None:
    """The file that `token mint --format tsig` writes is nsupdate's, and says what knsupdate reads."""
    file, line = tmp_path / "minted.key", tmp_path / "knot.key"
    service.cli("token", "mint", "minted.example.com", "--format", "tsig", "--out", str(file))
    name = f"_acme-challenge.minted.{ZONE}"
    line.write_text(next(text.lstrip("#/ ") for text in file.read_text().splitlines() if "hmac-sha256:" in text))
    script = f"server 127.0.0.1 {service.dns}", f"zone {ZONE}."

    assert 0 == nsupdate(file, *script, f"update add {name}. 60 TXT {VALUE}", "send").returncode
    assert 0 == knsupdate(line, *script, f"update add {name}. 60 TXT {OTHER}", "send").returncode

    assert {VALUE, OTHER} == values(service.dns, name)


def test_nsupdate_by_a_large_update(service: Responder, token: Token, tmp_path: Path) -> None:
    """As many values as a name may hold come in one message, for which nsupdate takes TCP by itself."""
    lines = [f"update add {token.challenge_name}. 60 TXT {n:043}" for n in range(16)]

    run = nsupdate(key_of(service, token).bind(tmp_path), f"server 127.0.0.1 {service.dns}", *lines, "send")

    assert (0, "") == (run.returncode, run.stdout)
    assert 16 == len(values(service.dns, token.challenge_name))


@pytest.mark.parametrize("options", [(), ("-v",)], ids=["UDP", "TCP"])
def test_knsupdate(service: Responder, token: Token, tmp_path: Path, options: tuple[str, ...]) -> None:
    """knsupdate likewise."""
    key = key_of(service, token).knot(tmp_path)
    name = f"{token.challenge_name}."

    def send(*lines: str) -> CompletedProcess[str]:
        head = f"server 127.0.0.1 {service.dns}", f"zone {ZONE}."
        return knsupdate(key, *head, *lines, "send", "answer", options=options)

    assert "NOERROR" in send(f"update add {name} 60 TXT {VALUE}", f"update add {name} 60 TXT {OTHER}").stdout
    assert {VALUE, OTHER} == values(service.dns, token.challenge_name)
    assert "NOERROR" in send(f"update delete {name} TXT {VALUE}").stdout
    assert {OTHER} == values(service.dns, token.challenge_name)
    assert "NXRRSET" in send(f"prereq yxrrset {name} TXT {VALUE}", f"update delete {name} TXT").stdout
    assert "NOERROR" in send(f"update delete {name} TXT").stdout
    assert set() == values(service.dns, token.challenge_name)


@pytest.mark.parametrize("client", [nsupdate, knsupdate])
def test_what_is_refused(service: Responder, token: Token, tmp_path: Path, client: Client) -> None:
    """Without a key, with a wrong one, or for other names nothing changes, and the client tells its user why."""
    yours = _minted(service, f"yours-{client.__name__}.example.com")
    good = key_of(service, token)
    keys = {"good": good, "forged": Key(good.name, "A" * 43 + "="), "stranger": Key("x", good.secret)}
    before = serial(service.dns, ZONE)

    def send(key: str | None, zone: str, *lines: str) -> str:
        file = None
        if key is not None:
            file = keys[key].bind(tmp_path) if client is nsupdate else keys[key].knot(tmp_path)
        run = client(file, f"server 127.0.0.1 {service.dns}", f"zone {zone}.", *lines, "send", "answer")
        return run.stdout

    mine, theirs = (f"update add {each.challenge_name}. 60 TXT {VALUE}" for each in (token, yours))
    assert "REFUSED" in send(None, ZONE, mine)
    assert "BADSIG" in send("forged", ZONE, mine)
    assert "BADKEY" in send("stranger", ZONE, mine)
    assert "REFUSED" in send("good", ZONE, theirs)
    assert "REFUSED" in send("good", ZONE, mine, theirs)
    assert "REFUSED" in send("good", ZONE, f"update delete {yours.challenge_name}.")
    assert "REFUSED" in send("good", ZONE, f"update add {token.challenge_name}. 60 CNAME {ZONE}.")
    assert "REFUSED" in send("good", ZONE, f"update delete {ZONE}. NS")
    assert "NOTAUTH" in send("good", "example.com", f"update add x.example.com. 60 TXT {VALUE}")

    assert before == serial(service.dns, ZONE)
    assert set() == values(service.dns, token.challenge_name) | values(service.dns, yours.challenge_name)


def test_hook_of_uacme(service: Responder, token: Token, resolver: int, tmp_path: Path) -> None:
    """The hook that we ship understands uacme's arguments as well, and leaves other types of challenges alone."""
    environment = hook_environment(service, key_of(service, token), resolver, tmp_path)
    host = token.challenge_name.removeprefix("_acme-challenge.")

    assert 0 == run_hook(environment, "begin", "dns-01", host, "token", VALUE)
    assert {VALUE} == values(service.dns, token.challenge_name)
    assert 0 != run_hook(environment, "begin", "http-01", host, "token", OTHER)
    assert 0 == run_hook(environment, "done", "dns-01", host, "token", VALUE)
    assert set() == values(service.dns, token.challenge_name)


def test_reasons(service: Responder) -> None:
    """A client with EDNS gets the reason with each answer that is not what it asked for (RFC 8914)."""
    token = _minted(service, "reasons.example.com")
    other = f"_acme-challenge.other.{ZONE}"
    key = key_of(service, token)
    keyring = dns.tsigkeyring.from_text({key.name: key.secret})
    unsigned, uncovered, outside = (dns.update.UpdateMessage(zone) for zone in (ZONE, ZONE, "example.org"))
    uncovered.use_tsig(keyring, key.name, algorithm="hmac-sha256")
    for update in (unsigned, uncovered, outside):
        update.use_edns(0, payload=1232)
        update.add("_acme-challenge.other", 60, "TXT", VALUE)
    absent = dns.message.make_query(f"absent.{ZONE}", "TXT", use_edns=0)
    malformed = dns.message.make_query(
        ZONE, "SOA", use_edns=0, options=[dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"7octets")]
    )

    for message, rcode, code, text in (
        (unsigned, "REFUSED", 18, "an update must be signed with the key of a token"),
        (uncovered, "REFUSED", 18, f"this token does not cover {other}: it covers reasons.example.com"),
        (outside, "NOTAUTH", 20, "an update must name a zone that is served here"),
        (absent, "NXDOMAIN", 0, "no token covers this name"),
        (malformed, "FORMERR", 0, "a DNS cookie must have 8 or 16 to 40 octets"),
    ):
        reply = dns.query.udp(message, "127.0.0.1", PATIENCE, service.dns)
        (why,) = reply.options
        assert isinstance(why, dns.edns.EDEOption)
        assert (rcode, code, text) == (dns.rcode.to_text(reply.rcode()), why.code, why.text)
