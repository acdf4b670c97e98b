"""Tokens and grants: which hostnames, which names, which clients, until when."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from responder.errors import (
    InvalidHostname,
    InvalidName,
    NotAChallenge,
    NotCovered,
    Unauthenticated,
    WrongAccount,
    WrongNetwork,
)
from responder.names import Name
from responder.tokens.hostname import challenge_name, home_zone, parse_hostname, zone_of
from responder.tokens.network import is_within, network_fault, parse_network
from responder.tokens.secret import Secret, digest, mint_secret
from responder.tokens.serving import Serving
from responder.tokens.token import Grant, State, Token, describe
from responder.tokens.values import challenge_value

APEX = Name.parse("acme.example.com")
SERVING = Serving(apexes=frozenset([APEX]))
NOW = datetime(2030, 1, 1, tzinfo=UTC)


def grant(hostname: str) -> Grant:
    """The grant for *hostname* in the example zone."""
    name = Name.parse(hostname)
    return Grant(hostname=name, challenge_name=challenge_name(name, APEX), apex=APEX)


def token(*hostnames: str, **fields: Any) -> Token:
    """A token for *hostnames*."""
    return Token(
        id=UUID(int=1), description=None, grants=tuple(map(grant, hostnames)), created_at=NOW - timedelta(1), **fields
    )


# ---- secrets ----


def test_minted_secrets() -> None:
    """Secrets differ, carry the prefix that scanners look for, and hold 256 bits."""
    first, second = mint_secret(), mint_secret()

    assert first != second
    assert first.startswith("rsp_")
    assert len(first.removeprefix("rsp_")) == 43


def test_digest() -> None:
    """What is stored is the SHA-256 of the secret."""
    assert hashlib.sha256(b"rsp_secret").digest() == digest(Secret("rsp_secret"))


@given(st.text(st.characters()) | st.just("\udcff"))
def test_any_text_has_a_digest(text: str) -> None:
    """No text that a client sends breaks the digest, not even undecodable header octets."""
    assert len(digest(text)) == 32


# ---- hostnames ----


@pytest.mark.parametrize(
    ("text", "hostname"),
    [
        ("some.example.com", "some.example.com"),
        ("Some.Example.COM.", "some.example.com"),
        ("*.some.example.com", "some.example.com"),
        ("  some.example.com\n", "some.example.com"),
        ("bücher.example.com", "xn--bcher-kva.example.com"),
        ("xn--bcher-kva.example.com", "xn--bcher-kva.example.com"),
        ("some。example。com", "some.example.com"),
        ("a.internal", "a.internal"),
        ("example.co.uk", "example.co.uk"),
        ("xn--ls8h.la", "xn--ls8h.la"),
        ("Straße.XN--LS8H.la", "xn--strae-oqa.xn--ls8h.la"),
    ],
)
def test_parse_hostname(text: str, hostname: str) -> None:
    """Wildcards stand for the bare name, and internationalized names for their A-labels."""
    assert hostname == str(parse_hostname(text))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("192.0.2.1", "is an IP address"),
        ("2001:db8::1", "is an IP address"),
        ("[2001:db8::1]", "is an IP address"),
        ("\uff11\uff19\uff12.0.2.1", "is an IP address"),
        ("127.1", "ends in a number"),
        ("com", "is a public suffix"),
        ("co.uk", "is a public suffix"),
        ("*.co.uk", "is a public suffix"),
        ("localhost", "is a public suffix"),
        ("abc.onion", "is an .onion name"),
        ("", "is not a hostname"),
        ("*", "is not a hostname"),
        ("*.*.example.com", "is not a hostname"),
        ("a..example.com", "is not a hostname"),
        ("_acme-challenge.example.com", "is a challenge name: write the hostname, example.com"),
        ("a b.example.com", "is not a hostname: it has the character ' ': write it like some.example.com"),
        ("https://some.example.com", "is not a hostname: it has the character ':': write it like some.example.com"),
        ("some_host.example.com", "is not a hostname: it has an underscore, and CAs issue no certificate for"),
        ("some\uff3fhost.example.com", "is not a hostname: it has an underscore"),
        ("-a.example.com", "is not a hostname: its label '-a' begins or ends with a hyphen"),
        ("a-.example.com", "is not a hostname: its label 'a-' begins or ends with a hyphen"),
        ("ab--cd.example.com", "its label 'ab--cd' has a hyphen third and fourth"),
        ("xn--zzzz99999999.example.com", "its label 'xn--zzzz99999999' is not the xn-- form of any text"),
        ("xn--abc-.example.com", "is not a hostname: its label 'xn--abc-' begins or ends with a hyphen"),
        ("\U0001f4a9.la", "its label '\U0001f4a9' is not allowed in internationalized names"),
        ("\u0378.la", "it is not allowed in internationalized names"),
        (f"{'a' * 64}.example.com", "is not a hostname"),
        (".".join(["a" * 60] * 4), "is not a hostname"),
    ],
)
def test_parse_hostname_refuses(text: str, fault: str) -> None:
    """No token is minted for what no certificate can or should name."""
    with pytest.raises(InvalidHostname, match=fault):
        parse_hostname(text)


@given(st.text())
def test_any_text_is_a_hostname_or_refused(text: str) -> None:
    """Nothing but `InvalidHostname` comes out of any text, and what is accepted is accepted again."""
    try:
        hostname = parse_hostname(text)
    except InvalidHostname:
        return

    assert hostname == parse_hostname(str(hostname))


# ---- challenge names ----


@pytest.mark.parametrize(
    ("hostname", "name"),
    [
        ("some.example.com", "_acme-challenge.some.acme.example.com"),
        ("a.b.example.com", "_acme-challenge.a.b.acme.example.com"),
        ("example.com", "_acme-challenge.example.com.acme.example.com"),
        ("other.org", "_acme-challenge.other.org.acme.example.com"),
        ("api.acme.example.com", "_acme-challenge.api.acme.example.com"),
        ("acme.example.com", "_acme-challenge.acme.example.com"),
    ],
)
def test_challenge_name(hostname: str, name: str) -> None:
    """Below the zone's parent the relative part is kept, other names are appended whole, our own stay as they are."""
    assert name == str(challenge_name(Name.parse(hostname), APEX))


def test_challenge_name_too_long() -> None:
    """A hostname may be too long to be appended."""
    with pytest.raises(InvalidName):
        challenge_name(Name.from_labels([b"x" * 63, b"x" * 63, b"x" * 63, b"x" * 40]), APEX)


def test_home_zone() -> None:
    """A hostname is at home in the zone where its challenge name is shortest, or else in the first."""
    other = Name.parse("acme.example.org")

    assert home_zone(Name.parse("some.example.com"), [other, APEX]) == APEX
    assert other == home_zone(Name.parse("some.example.net"), [other, APEX])


def test_home_zone_beside_the_zone_of_one_hostname() -> None:
    """A zone like `_acme-challenge.www.other.org` is for the hostname that it is named after, unless it is alone."""
    narrow = Name.parse("_acme-challenge.www.other.org")

    homes = {
        host: home_zone(Name.parse(host), [narrow, APEX])
        for host in ("www.other.org", "api.other.org", "a.www.other.org", "other.org", "some.example.com")
    }

    assert {"www.other.org": narrow} == {host: apex for host, apex in homes.items() if apex != APEX}
    assert narrow == home_zone(Name.parse("api.other.org"), [narrow])


@pytest.mark.parametrize(
    ("name", "apex"),
    [
        ("_acme-challenge.some.acme.example.com", "acme.example.com"),
        ("acme.example.org", "acme.example.org"),
        ("some.example.com", None),
    ],
)
def test_zone_of(name: str, apex: str | None) -> None:
    """A name is in the zone whose apex it is or is below, or in none of ours."""
    expected = None if apex is None else Name.parse(apex)

    assert expected == zone_of(Name.parse(name), [Name.parse("acme.example.org"), APEX])


@pytest.mark.parametrize(
    ("hostname", "cname"),
    [
        (
            "some.example.com",
            "_acme-challenge.some.example.com. 300 IN CNAME _acme-challenge.some.acme.example.com.",
        ),
        ("api.acme.example.com", None),
    ],
)
def test_cname(hostname: str, cname: str | None) -> None:
    """A hostname outside the zone needs a CNAME to its challenge name, one inside needs none."""
    assert cname == grant(hostname).cname


# ---- tokens ----


@pytest.mark.parametrize("name", ["_acme-challenge.some.example.com", "_acme-challenge.some.acme.example.com"])
def test_grant_for(name: str) -> None:
    """A grant is found by the challenge name in our zone and by the hostname's own."""
    assert grant("some.example.com") == token("some.example.com", "other.org").grant_for(Name.parse(name))


@pytest.mark.parametrize(
    ("hostnames", "fault"),
    [
        ((), "this token does not cover a.b: it covers no hostname"),
        (("x.example.com", "y.org"), "this token does not cover a.b: it covers x.example.com, y.org"),
        (("a.b",), "a.b is a hostname: write its challenge name, _acme-challenge.a.b"),
        (
            tuple(f"{n}.example.com" for n in "abcdefghijkl"),
            "this token does not cover a.b: it covers "
            + ", ".join(f"{n}.example.com" for n in "abcdefghij")
            + " and 2 more",
        ),
    ],
)
def test_grant_for_others(hostnames: tuple[str, ...], fault: str) -> None:
    """A name without grant is refused with what the token does cover, but never at length."""
    with pytest.raises(NotCovered) as caught:
        token(*hostnames).grant_for(Name.parse("a.b"))

    assert fault == str(caught.value)


@pytest.mark.parametrize("name", ["some.example.com", "x._acme-challenge.some.example.com", "acme.example.com"])
def test_grants_cover_one_name(name: str) -> None:
    """Neither the hostname itself, nor anything below its challenge name, nor the zone is covered."""
    with pytest.raises(NotCovered):
        token("some.example.com").grant_for(Name.parse(name))


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({}, State.ACTIVE),
        ({"expires_at": NOW + timedelta(seconds=1)}, State.ACTIVE),
        ({"expires_at": NOW}, State.EXPIRED),
        ({"revoked_at": NOW}, State.REVOKED),
        ({"revoked_at": NOW, "expires_at": NOW - timedelta(days=1)}, State.REVOKED),
    ],
)
def test_state(fields: dict[str, Any], state: State) -> None:
    """A token is active until the moment at which it expires, and revoked for good, expired or not."""
    assert state is token(**fields).state(NOW)


@pytest.mark.parametrize(
    ("fields", "client"),
    [
        ({}, "192.0.2.1"),
        ({"expires_at": NOW + timedelta(seconds=1)}, "192.0.2.1"),
        ({"allow_from": (ip_network("2001:db8::/32"), ip_network("192.0.2.0/24"))}, "192.0.2.1"),
        ({"allow_from": (ip_network("192.0.2.0/24"),)}, "::ffff:192.0.2.1"),
        ({"allow_from": (ip_network("fe80::/10"),)}, "fe80::1%eth0"),
    ],
)
def test_admit(fields: dict[str, Any], client: str) -> None:
    """A token is good until it expires, from where it is allowed; mapped addresses count as IPv4."""
    token(**fields).admit(client, now=NOW)


@pytest.mark.parametrize(
    ("fields", "error", "fault"),
    [
        ({"revoked_at": NOW}, Unauthenticated, "this token was revoked: ask your platform team for a new one"),
        ({"expires_at": NOW}, Unauthenticated, "this token has expired: ask your platform team for a new one"),
        (
            {"allow_from": (ip_network("192.0.2.0/24"), ip_network("2001:db8::/32"))},
            WrongNetwork,
            "this token may not be used from your address (198.51.100.1): it is limited to 192.0.2.0/24, 2001:db8::/32",
        ),
    ],
)
def test_admit_refuses(fields: dict[str, Any], error: Callable[..., Exception], fault: str) -> None:
    """A token that was revoked, has expired, or is used from elsewhere is refused with the reason."""
    with pytest.raises(Exception, match=r".") as caught:
        token(**fields).admit("198.51.100.1", now=NOW)

    assert (error, fault) == (type(caught.value), str(caught.value))


THUMBPRINT = "9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI"  # of the account in RFC 7638, section 3.1


@pytest.mark.parametrize("acme_token", [None, "any", "other"])
def test_any_account(acme_token: str | None) -> None:
    """A token that is pinned to no account publishes any value."""
    token().check_account("value", acme_token)


def test_pinned_account() -> None:
    """A pinned token publishes the value of its own account's challenge."""
    token(account_thumbprint=THUMBPRINT).check_account(challenge_value(f"any.{THUMBPRINT}"), "any")


@pytest.mark.parametrize(
    ("acme_token", "fault"),
    [
        (None, "pinned to an ACME account: use POST /present, with the challenge's own token as acme_token"),
        ("other", "pinned to an ACME account, and the value is not one of that account"),
    ],
)
def test_pinned_account_refuses(acme_token: str | None, fault: str) -> None:
    """A pinned token publishes no value that was not proven to be its account's."""
    with pytest.raises(WrongAccount, match=fault):
        token(account_thumbprint=THUMBPRINT).check_account(challenge_value(f"any.{THUMBPRINT}"), acme_token)


@pytest.mark.parametrize("value", ["v=spf1 -all", "A" * 42, "A" * 44, "A" * 42 + "=", "A" * 42 + "\n", ""])
def test_what_an_account_may_publish(value: str) -> None:
    """A name that a client registered itself takes digests in base64url only; one of a hostname takes any value."""
    own, hosts = (
        Grant(hostname=Name.parse(host), challenge_name=Name.parse("a.acme.example.com"), apex=APEX)
        for host in ("a.acme.example.com", "some.example.com")
    )
    own.check_value("-_09azAZ" + "A" * 35)
    hosts.check_value(value)
    with pytest.raises(NotAChallenge, match=r"^a\.acme\.example\.com accepts only dns-01 challenge values"):
        own.check_value(value)


def test_tokens_show_no_index() -> None:
    """The index by name is an inner matter: it is neither shown nor compared."""
    assert "_by_name" not in repr(token("some.example.com"))
    assert token("some.example.com") == token("some.example.com")


def test_addresses_in_networks() -> None:
    """An address is in a network of its own kind, and text that is no address is in none."""
    networks = [ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")]
    found = {text: is_within(text, networks) for text in ("192.0.2.7", "2001:db8::1", "198.51.100.1", "unknown")}
    assert {"192.0.2.7": True, "2001:db8::1": True, "198.51.100.1": False, "unknown": False} == found


@pytest.mark.parametrize(
    ("apex", "needs"),
    [
        (
            "_acme-challenge.some.example.com",
            "no CNAME, but the NS records for _acme-challenge.some.example.com that responder zone delegation prints",
        ),
        (
            "acme.example.com",
            "_acme-challenge.some.example.com. 300 IN CNAME _acme-challenge.some.acme.example.com.",
        ),
        ("some.example.com", "no CNAME needed, _acme-challenge.some.example.com is in our zone"),
    ],
)
def test_what_a_grant_needs(apex: str, needs: str) -> None:
    """The record for the hostname's own zone, if its DNS needs one."""
    hostname, zone = Name.parse("some.example.com"), Name.parse(apex)
    grant = Grant(hostname=hostname, challenge_name=challenge_name(hostname, zone), apex=zone)
    assert needs == grant.needs


def test_networks() -> None:
    """Bits beyond the prefix may be wrong; the zone of an address, which may be any text, is no part of a network."""
    assert ip_network("192.0.2.0/24") == parse_network("192.0.2.0/24")
    assert ip_network("192.0.2.0/24") == parse_network("192.0.2.7/24", strict=False)
    with pytest.raises(ValueError, match="host bits"):
        parse_network("192.0.2.7/24")
    with pytest.raises(ValueError, match="no zone"):
        parse_network("fe80::%\x1b[31m/64")
    assert 'write the network, "192.0.2.0/24"' in network_fault("192.0.2.7/24")
    assert '"here" is not a network' in network_fault("here")


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ("::ffff:192.0.2.1", "192.0.2.1/32"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::ffff:0:0/95", "::fffe:0:0/95"),
        ("::/0", "::/0"),
    ],
)
def test_mapped_networks(text: str, network: str) -> None:
    """A network of IPv4 addresses that is written as one of IPv6 is the one that the clients' addresses are in."""
    assert ip_network(network) == parse_network(text, strict=False)


def test_describe() -> None:
    """What a token may do, as the interface lays it down."""
    described = describe(
        token("some.example.com", "api.acme.example.com", expires_at=NOW, allow_from=(ip_network("192.0.2.0/24"),)),
        SERVING,
    )

    assert described == {
        "id": "00000000-0000-0000-0000-000000000001",
        "description": None,
        "hostnames": [
            {
                "hostname": "some.example.com",
                "challenge_name": "_acme-challenge.some.acme.example.com",
                "cname": "_acme-challenge.some.example.com. 300 IN CNAME _acme-challenge.some.acme.example.com.",
                "served": True,
            },
            {
                "hostname": "api.acme.example.com",
                "challenge_name": "_acme-challenge.api.acme.example.com",
                "cname": None,
                "served": True,
            },
        ],
        "expires_at": "2030-01-01T00:00:00+00:00",
        "allow_from": ["192.0.2.0/24"],
        "account_thumbprint": None,
    }
    assert describe(token(), SERVING)["expires_at"] is None
