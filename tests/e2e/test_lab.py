"""
The service as the Internet would see it: delegated from a root, asked by resolvers, judged by other people's auditors.

Nothing here needs the service's own parser or printer: Unbound resolves, Zonemaster and DNSViz judge, dnspython reads.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import pytest

from tests.support.processes import PATIENCE

from .lab import BIG_VALUES, HOSTS, VALUES, Lab, Resolver, internet, plain_resolver, strict_resolver
from .programs import require
from .service import ZONE

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Root, parents and the service."""
    with internet(tmp_path_factory.mktemp("lab")) as running_lab:
        yield running_lab


@pytest.fixture(scope="module", params=[strict_resolver, plain_resolver], ids=["strict", "plain"])
def resolver(lab: Lab, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Resolver]:
    """First the one, then the other resolver."""
    with request.param(lab, tmp_path_factory.mktemp("resolver")) as running_resolver:
        yield running_resolver


@dataclass(frozen=True, slots=True)
class Expected:
    """What a resolver finds: *records* as type and rdata; *secure* is whether every part of it can be validated."""

    rcode: str
    records: frozenset[str] = frozenset()
    secure: bool = False


def found(*records: str, secure: bool = False) -> Expected:
    return Expected("NOERROR", frozenset(records), secure)


JUDGEMENT = 5 * PATIENCE
"""Seconds until an auditor, who takes ten or twenty, is given up."""

NODATA, NXDOMAIN = Expected("NOERROR"), Expected("NXDOMAIN")
CHALLENGE = f"_acme-challenge.www.{ZONE}"
TWO_VALUES = [f'TXT "{value}"' for value in VALUES]

RESOLVED = {
    # The parents: proof that the resolver validates, and that it was shown our zone to be insecure, not bogus.
    ("example.com", "NS"): found("NS ns.example.com.", secure=True),
    ("nope.example.com", "TXT"): Expected("NXDOMAIN", secure=True),
    (ZONE, "DS"): Expected("NOERROR", secure=True),
    # The apex.
    (ZONE, "NS"): found(f"NS ns1.{ZONE}.", f"NS ns2.{ZONE}."),
    (ZONE, "CAA"): found('CAA 0 issue ";"'),
    (ZONE, "TXT"): NODATA,
    (ZONE, "DNSKEY"): NODATA,
    (ZONE, "HTTPS"): NODATA,
    # What a CA asks for.
    ("_acme-challenge.www.example.com", "TXT"): found(f"CNAME {CHALLENGE}.", *TWO_VALUES),
    ("_acMe-ChAllEngE.wWw.ExAmplE.com", "TXT"): found(f"CNAME {CHALLENGE}.", *TWO_VALUES),
    ("_acme-challenge.www.example.com", "CAA"): found(f"CNAME {CHALLENGE}."),
    (CHALLENGE, "TXT"): found(*TWO_VALUES),
    (CHALLENGE, "CAA"): NODATA,
    (CHALLENGE, "A"): NODATA,
    (CHALLENGE, "NS"): NODATA,
    (CHALLENGE, "TYPE65280"): NODATA,
    (f"_acme-challenge.big.{ZONE}", "TXT"): found(*(f'TXT "{value}"' for value in BIG_VALUES)),
    # Granted, but without a value.
    (f"_acme-challenge.empty.{ZONE}", "TXT"): NODATA,
    (f"_acme-challenge.empty.{ZONE}", "CAA"): NODATA,
    ("_acme-challenge.empty.example.com", "TXT"): found(f"CNAME _acme-challenge.empty.{ZONE}."),
    # Above what exists, below it, beside it.
    (f"www.{ZONE}", "TXT"): NODATA,
    (f"deep.{ZONE}", "A"): NODATA,
    (f"a.deep.{ZONE}", "TXT"): NODATA,
    (f"ent.{ZONE}", "TXT"): NODATA,
    (f"below.{CHALLENGE}", "TXT"): NXDOMAIN,
    (f"x.y.leaf.ent.{ZONE}", "A"): NXDOMAIN,
    (f"nope.{ZONE}", "TXT"): NXDOMAIN,
    (f"_acme-challenge.nope.{ZONE}", "TXT"): NXDOMAIN,
    (f"*.{ZONE}", "TXT"): NXDOMAIN,
    # Static records.
    (f"leaf.ent.{ZONE}", "TXT"): found('TXT "leaf"'),
    (f"alias.{ZONE}", "TXT"): found(f"CNAME leaf.ent.{ZONE}.", 'TXT "leaf"'),
    (f"alias.{ZONE}", "A"): found(f"CNAME leaf.ent.{ZONE}."),
}


@pytest.mark.parametrize(("name", "rdtype"), RESOLVED, ids=lambda word: word)
def test_resolution(resolver: Resolver, name: str, rdtype: str) -> None:
    """Every name resolves to what is there, and to the right kind of nothing where there is nothing."""
    reply = resolver.ask(name, rdtype)

    assert RESOLVED[name, rdtype] == Expected(
        dns.rcode.to_text(reply.rcode()), frozenset(records(reply)), bool(reply.flags & dns.flags.AD)
    )


def test_resolution_of_addresses(lab: Lab, resolver: Resolver) -> None:
    """The addresses of the nameservers, which the parent has as glue, are in the zone itself as well."""
    assert {f"A {lab.addresses.ns1}"} == records(resolver.ask(f"ns1.{ZONE}", "A"))
    assert {f"A {lab.addresses.ns2}"} == records(resolver.ask(f"ns2.{ZONE}", "A"))
    assert set() == records(resolver.ask(f"ns1.{ZONE}", "AAAA"))


def test_resolution_over_tcp(lab: Lab, tmp_path: Path) -> None:
    """What does not fit a datagram makes a resolver come again over TCP, which it does for nothing else."""
    with plain_resolver(lab, tmp_path) as fresh_resolver:
        fresh_resolver.ask(CHALLENGE, "TXT")
        assert "0" == fresh_resolver.statistics()["num.query.tcpout"]

        fresh_resolver.ask(f"_acme-challenge.big.{ZONE}", "TXT")
        assert "0" != fresh_resolver.statistics()["num.query.tcpout"]


def test_case_of_letters(resolver: Resolver) -> None:
    """The resolver scrambles the case of every name it asks for, and never has to make allowance for ours."""
    for number in range(50):
        assert "NXDOMAIN" == dns.rcode.to_text(resolver.ask(f"randomly-spelled-name-{number}.{ZONE}", "TXT").rcode())

    assert "caps" not in resolver.log.read_text().lower()


@pytest.mark.parametrize("rdtype", ["SOA", "NS", "CAA", "TXT"])
def test_nameservers_agree(lab: Lab, rdtype: str) -> None:
    """Both addresses of the service answer for themselves, over UDP and TCP, and say the same."""
    name = f"_acme-challenge.big.{ZONE}" if rdtype == "TXT" else ZONE
    query = dns.message.make_query(name, rdtype, flags=0)

    over_udp = [
        dns.query.udp_with_fallback(query, host, timeout=PATIENCE)[0] for host in (lab.addresses.ns1, lab.addresses.ns2)
    ]
    over_tcp = [dns.query.tcp(query, host, timeout=PATIENCE) for host in (lab.addresses.ns1, lab.addresses.ns2)]

    assert all(reply.flags & dns.flags.AA for reply in (*over_udp, *over_tcp))
    assert [records(over_udp[0])] * 4 == [records(reply) for reply in (*over_udp, *over_tcp)]
    assert records(over_udp[0])


ZONEMASTER_ACCEPTED = {
    "NAMESERVER_IP_PRIVATE_NETWORK": "ERROR: the lab's nameservers are on loopback addresses",
    "NAMESERVER_IP_WITHOUT_REVERSE": "WARNING: the lab has no in-addr.arpa",
    "NO_IPV6_NS_CHILD": "NOTICE: the lab's nameservers have IPv4 addresses only",
    "NO_IPV6_NS_DEL": "NOTICE: the same, seen from the parent",
    "NEITHER_DNSKEY_NOR_DS": "NOTICE: the zone is not signed",
    "NOT_SIGNED": "NOTICE: the zone is not signed",
    "RNAME_MAIL_DOMAIN_INVALID": "NOTICE: example.com has no mail server",
    "SOA_DEFAULT_TTL_MAXIMUM_VALUE_LOWER": "NOTICE: negative answers are remembered for 5 s on purpose",
    "Z09_MISSING_MAIL_TARGET": "NOTICE: nobody sends mail to a challenge zone",
}
"""Every message of Zonemaster, from NOTICE up, that may be about this zone."""


def test_zonemaster(lab: Lab) -> None:
    """Zonemaster finds nothing to say about the zone but what is accepted above."""
    command = [require("zonemaster-cli"), "--no-ipv6", "--hints", str(lab.hints), "--level", "NOTICE", "--json", ZONE]
    run = subprocess.run(command, capture_output=True, text=True, timeout=JUDGEMENT, check=True)

    messages = json.loads(run.stdout)

    assert "NAMESERVER_IP_PRIVATE_NETWORK" in {message["tag"] for message in messages}, "it got as far as the zone"
    assert [] == [message for message in messages if message["tag"] not in ZONEMASTER_ACCEPTED]
    assert [] == [
        message for message in messages if not ZONEMASTER_ACCEPTED[message["tag"]].startswith(message["level"])
    ]


DNSVIZ_ACCEPTED = {
    "NS_NAME_PRIVATE_IP": "the lab's nameservers are on loopback addresses",
    "GLUE_PRIVATE_IP": "and so the parent says",
}
"""Every error and warning of DNSViz that may be about this zone."""


def test_dnsviz(lab: Lab, tmp_path: Path) -> None:
    """DNSViz, probing every server of the chain with and without EDNS, finds no fault but what is accepted above."""
    dnsviz, parents = require("dnsviz"), lab.addresses.parents
    servers = (f".:a.root={parents}", f"com:ns.com={parents}", f"example.com:ns.example.com={parents}")
    names = [ZONE, f"nope.{ZONE}", f"ent.{ZONE}", *(lab.challenge_names[host] for host in HOSTS)]
    probed, chain = tmp_path / "probe.json", [word for server in servers for word in ("-x", server)]
    probe = [dnsviz, "probe", "-4", "-E", "-A", "-a", ".", *chain, "-R", "SOA,NS,TXT,A,CAA,DNSKEY,CDS,CDNSKEY,HTTPS"]
    subprocess.run([*probe, "-o", str(probed), *names], capture_output=True, timeout=JUDGEMENT, check=True)
    grok = [dnsviz, "grok", "-l", "warning", "-r", str(probed)]
    run = subprocess.run(grok, capture_output=True, text=True, timeout=JUDGEMENT, check=True)

    complaints = codes(json.loads(run.stdout))

    assert "NS_NAME_PRIVATE_IP" in complaints, "it got as far as the zone"
    assert complaints <= DNSVIZ_ACCEPTED.keys(), run.stdout


def records(message: dns.message.Message) -> set[str]:
    """The answer section as types and rdata, without signatures. Names have whatever case their compression found."""
    return {
        f"{dns.rdatatype.to_text(rrset.rdtype)} {rdata if rrset.rdtype == dns.rdatatype.TXT else str(rdata).lower()}"
        for rrset in message.answer
        if rrset.rdtype != dns.rdatatype.RRSIG
        for rdata in rrset
    }


def codes(report: object) -> set[str]:
    """The codes of all complaints in a report of DNSViz, wherever in it they are."""
    match report:
        case dict():
            here = {str(report["code"])} if "code" in report else set()
            return here.union(*map(codes, report.values()))
        case list():
            return set[str]().union(*map(codes, report))
        case _:
            return set()
