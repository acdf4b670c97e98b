"""
The doctor on real programs: a delegation in order, then broken ones, each of which it has to name, with its mend.

    responder check --> unbound, which validates --> knot: root, com, example.com --> the service on ns1; at ns2, a box

The names that are broken in `example.com` all live in the one parent zone; every other fault is of ns2 or the parent.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import PATIENCE

from .dns_client import values
from .lab import Lab, Resolver, below_parents, internet, strict_resolver
from .middlebox import lower_case, passing, without_edns
from .nsd import serving_at
from .programs import wait_until
from .service import ZONE

pytestmark = pytest.mark.e2e

CHALLENGE = f"_acme-challenge.{{}}.{ZONE}"

RECORDS = [
    # Each of these hostnames has something wrong.
    f"_acme-challenge.other CNAME {CHALLENGE.format('www')}.",
    "*.wild CNAME www",
    "_acme-challenge.text TXT leftover",
    "forbidden CAA 0 issue ca.example.net",
    f"_acme-challenge.forbidden CNAME {CHALLENGE.format('forbidden')}.",
    # These have not.
    f"_acme-challenge.chain CNAME link\nlink CNAME {CHALLENGE.format('chain')}.",
    'bound CAA 0 issue "letsencrypt.org; validationmethods=dns-01; accounturi=https://ca.example.net/acct/1"',
    f"_acme-challenge.bound CNAME {CHALLENGE.format('bound')}.",
]
"""Of `example.com`, besides what is in every lab."""

NAMES = ("missing", "other", "wild", "text", "forbidden", "chain", "bound")


@dataclass(frozen=True, slots=True)
class Report:
    """What `responder check --output json` said."""

    status: int
    findings: list[dict[str, Any]]

    def crosses(self) -> dict[str, str]:
        """The checks that failed, with their texts."""
        return {found["check"]: found["text"] for found in self.findings if found["mark"] == "cross"}

    def ticks(self) -> set[str]:
        return {found["check"] for found in self.findings if found["mark"] == "tick"}

    def fix(self, check: str) -> list[str]:
        """The records and commands that mend a cross, or are worth while for a note."""
        (lines,) = [found["fix"]["lines"] for found in self.findings if found["check"] == check and found["fix"]]
        return list(lines)


def check(lab: Lab, resolver: Resolver, *arguments: str) -> Report:
    """Run the doctor."""
    run = lab.service.attempt("check", "--resolver", resolver.address, "--output", "json", *arguments)
    assert run.returncode in (0, 1), run.stderr
    assert "" == run.stderr
    report = json.loads(run.stdout)
    assert report["passed"] is (run.returncode == 0)
    findings = [finding for section in report["sections"] for finding in section["findings"]]
    assert all(finding["fix"] for finding in findings if finding["mark"] == "cross"), "each cross says what mends it"
    return Report(run.returncode, findings)


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The lab, with the hostnames above, and nobody at ns2."""
    with internet(tmp_path_factory.mktemp("clinic"), records=RECORDS, ns2_answers=False) as lab:
        lab.service.cli("token", "mint", f"api.{ZONE}", *(f"{name}.example.com" for name in NAMES))
        yield lab


@pytest.fixture(scope="module")
def resolver(clinic: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Resolver]:
    with strict_resolver(clinic, tmp_path_factory.mktemp("resolver")) as running:
        yield running


@pytest.fixture
def ns2(clinic: Lab) -> Iterator[None]:
    """The second nameserver in order: behind a box that passes on what comes."""
    with passing(clinic.addresses.ns2, clinic.addresses.ns1):
        yield


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Resolver]]:
    """A lab in which nothing is wrong, and nothing in between."""
    directory = tmp_path_factory.mktemp("sound")
    with internet(directory) as lab, strict_resolver(lab, directory) as running:
        yield lab, running


# In order


def test_sound(sound: tuple[Lab, Resolver]) -> None:
    """Nothing has to be fixed; what is worth knowing is that loopback addresses are not public, CAA, a new database."""
    report = check(*sound, "www.example.com", "*.empty.example.com")

    assert (0, {}) == (report.status, report.crosses())
    assert report.ticks() == {
        "delegation", "glue", "DS", "UDP", "TCP", "authority", "serial", "EDNS", "letter case",
        "challenge name", "CNAME", "resolver", "CAA", "API",
    }  # fmt: skip
    assert {"public addresses", "CAA binding", "database"} == {
        found["check"] for found in report.findings if found["mark"] == "note"
    }


def last_used(lab: Lab) -> dict[str, tuple[str | None, str | None]]:
    """The description of each token by its id, and when it was last used."""
    tokens = json.loads(lab.service.cli("token", "list", "--output", "json").stdout)
    return {token["id"]: (token["description"], token["last_used_at"]) for token in tokens}


def test_write(sound: tuple[Lab, Resolver]) -> None:
    """A value of its own gets to every nameserver and through the resolver, and nothing is left of it."""
    lab, _ = sound
    before = lab.service.cli("value", "list", "--output", "json").stdout
    used = last_used(lab)

    report = check(*sound, "--write", "empty.example.com", "a.deep.example.com")

    assert (0, {}) == (report.status, report.crosses())
    assert 4 == sum(found["check"] == "probe value" for found in report.findings)
    assert before == lab.service.cli("value", "list", "--output", "json").stdout
    assert used.items() <= last_used(lab).items()
    assert {"responder check"} == {last_used(lab)[each][0] for each in last_used(lab).keys() - used.keys()}


def test_zones_alone(sound: tuple[Lab, Resolver]) -> None:
    """Without a hostname, before there is any token, the delegation is examined."""
    report = check(*sound)

    assert 0 == report.status
    assert {"delegation", "serial"} <= report.ticks()
    assert "CNAME" not in report.ticks()


def test_aliases_in_a_row(clinic: Lab, resolver: Resolver, ns2: None) -> None:
    """A CNAME may lead to the challenge name by way of another."""
    report = check(clinic, resolver, "chain.example.com")

    assert (0, {}) == (report.status, report.crosses())
    assert "CNAME" in report.ticks()


def test_bound_account(clinic: Lab, resolver: Resolver, ns2: None) -> None:
    """CAA that binds issuance to the account is a tick; another account's is a cross."""
    uri = "https://ca.example.net/acct/"

    assert {"CAA", "CAA binding"} <= check(clinic, resolver, "bound.example.com", "--account-uri", f"{uri}1").ticks()
    other = check(clinic, resolver, "bound.example.com", "--account-uri", f"{uri}2")

    assert {"CAA"} == other.crosses().keys()
    assert "accounturi names another account" in other.crosses()["CAA"]
    value = f"letsencrypt.org; validationmethods=dns-01; accounturi={uri}2"
    assert [f'bound.example.com. 300 IN CAA 0 issue "{value}"'] == other.fix("CAA")


def test_hostname_in_the_zone(clinic: Lab, resolver: Resolver, ns2: None) -> None:
    """A hostname in our own zone needs no CNAME, and its own leave from the CAA of the zone, in the configuration."""
    report = check(clinic, resolver, f"*.api.{ZONE}")

    assert {"CAA"} == report.crosses().keys()
    assert {"CNAME", "resolver"} <= report.ticks()
    assert [f'api.{ZONE}. 300 IN CAA 0 issue "letsencrypt.org; validationmethods=dns-01"'] == report.fix("CAA")


# Broken in the zone above


def test_delegation_missing(clinic: Lab, ns2: None, tmp_path: Path) -> None:
    """NS records missing at the parent: they and the glue have to be added."""
    with parents(clinic, tmp_path, []) as (lab, resolver):
        report = check(lab, resolver)

    assert {"delegation"} == report.crosses().keys()
    assert f"no NS records for {ZONE} according to every server of example.com" == report.crosses()["delegation"]
    assert delegation(clinic) == set(report.fix("delegation"))


def test_nameserver_missing_at_the_parent(clinic: Lab, ns2: None, tmp_path: Path) -> None:
    """One of the NS records missing at the parent: only that has to be added."""
    missing = {record for record in delegation(clinic) if "ns2" in record}
    with parents(clinic, tmp_path, delegation(clinic) - missing) as (lab, resolver):
        report = check(lab, resolver)

    assert {"delegation": f"NS ns2.{ZONE} missing according to every server of example.com"} == report.crosses()
    assert missing == set(report.fix("delegation"))


def test_nameserver_too_many_at_the_parent(clinic: Lab, ns2: None, tmp_path: Path) -> None:
    """An NS record that leads to somebody else: the whole delegation is shown as it has to be."""
    with parents(clinic, tmp_path, [*delegation(clinic), f"{ZONE}. NS old.example.com."]) as (lab, resolver):
        report = check(lab, resolver)

    assert {
        "delegation": "NS old.example.com not in [zones.nameservers] according to every server of example.com"
    } == report.crosses()
    assert delegation(clinic) == set(report.fix("delegation"))


def test_glue_wrong(clinic: Lab, ns2: None, tmp_path: Path) -> None:
    """Glue that leads elsewhere: the right addresses are given."""
    wrong = next(clinic.addresses.resolvers)
    records = {record.replace(clinic.addresses.ns2, wrong) for record in delegation(clinic)}
    with parents(clinic, tmp_path, records) as (lab, resolver):
        report = check(lab, resolver)

    expected = f"ns2.{ZONE} has {wrong} instead of {clinic.addresses.ns2} according to every server of example.com"
    assert {"glue": expected} == report.crosses()
    assert [f"ns2.{ZONE}. 3600 IN A {clinic.addresses.ns2}"] == report.fix("glue")


def test_signatures_missing(clinic: Lab, ns2: None, tmp_path: Path) -> None:
    """A DS at the parent for a zone that is not signed, and what it does to a resolver that validates."""
    ds = f"{ZONE}. 3600 IN DS 4242 13 2 {'ab' * 32}"
    with parents(clinic, tmp_path, [*delegation(clinic), ds, cname("www")]) as (lab, resolver):
        report = check(lab, resolver, "www.example.com")

    assert {"DS", "resolver"} == report.crosses().keys()
    assert f"example.com has a DS for {ZONE}, which is not signed" in report.crosses()["DS"]
    assert [ds] == report.fix("DS")
    assert "SERVFAIL" in report.crosses()["resolver"]


# Broken at a nameserver


def test_nameserver_dead(clinic: Lab, resolver: Resolver) -> None:
    """Nobody at one of two nameservers."""
    report = check(clinic, resolver)

    expected = f"ns2.{ZONE} ({clinic.addresses.ns2}) replies neither over UDP nor over TCP"
    assert {"reachable": expected} == report.crosses()
    assert f"dig @{clinic.addresses.ns2} {ZONE} SOA +tcp" in report.fix("reachable")
    assert {"UDP", "TCP", "authority", "serial"} <= report.ticks(), "the other one is in order"


def test_tcp_closed(clinic: Lab, resolver: Resolver) -> None:
    """A firewall that lets UDP through only."""
    with passing(clinic.addresses.ns2, clinic.addresses.ns1, tcp=False):
        report = check(clinic, resolver)

    assert {"TCP": f"ns2.{ZONE} ({clinic.addresses.ns2}) refuses the connection over TCP"} == report.crosses()
    assert [f"dig @{clinic.addresses.ns2} {ZONE} SOA +tcp"] == report.fix("TCP")


def test_lame(clinic: Lab, resolver: Resolver, tmp_path: Path) -> None:
    """A server that is delegated to and knows nothing of the zone."""
    text = "@ 60 SOA ns1 hostmaster 1 60 60 60 60\n@ 60 NS ns1\nns1 60 A 127.0.0.1\n"
    with serving_at(clinic.addresses.ns2, tmp_path, "elsewhere.example", text):
        report = check(clinic, resolver, "www.example.com")

    assert {"authority"} == report.crosses().keys()
    lame = f"ns2.{ZONE} ({clinic.addresses.ns2}) is lame: for {ZONE}, it replies with REFUSED"
    assert report.crosses()["authority"].startswith(lame)
    assert [f"dig @{clinic.addresses.ns2} {ZONE} SOA +norecurse"] == report.fix("authority")


def test_serial_stale(clinic: Lab, resolver: Resolver, tmp_path: Path) -> None:
    """A server with the zone of yesterday, which never hears of a change."""
    yesterday = clinic.service.cli("zone", "show").stdout
    clinic.service.mint("today.example.com")
    with serving_at(clinic.addresses.ns2, tmp_path, ZONE, yesterday):
        report = check(clinic, resolver)

    assert {"serial"} == report.crosses().keys()
    assert report.crosses()["serial"].startswith(f"ns2.{ZONE} ({clinic.addresses.ns2}) is stale: it serves serial ")
    assert "journalctl --unit responder --since -1h" in report.fix("serial")


def test_letters_changed(clinic: Lab, resolver: Resolver) -> None:
    """A box that lower-cases: resolvers that mix the letters of a question take its answers for forged."""
    with passing(clinic.addresses.ns2, clinic.addresses.ns1, lower_case):
        report = check(clinic, resolver, "www.example.com")

    assert {"letter case"} == report.crosses().keys()
    assert report.crosses()["letter case"].startswith(f"ns2.{ZONE} ({clinic.addresses.ns2}) changes the letter case")
    assert [f"dig @{clinic.addresses.ns2} aCmE.eXaMpLe.cOm SOA +norecurse +edns"] == report.fix("letter case")


def test_edns_dropped(clinic: Lab, resolver: Resolver) -> None:
    """A box that drops what has EDNS, as the queries of all resolvers have."""
    with passing(clinic.addresses.ns2, clinic.addresses.ns1, without_edns):
        report = check(clinic, resolver)

    assert {"EDNS"} == report.crosses().keys()
    assert "does not reply when a query has EDNS" in report.crosses()["EDNS"]


# Broken at a hostname


def test_cname_missing(clinic: Lab, resolver: Resolver, ns2: None) -> None:
    """No CNAME: it is shown."""
    report = check(clinic, resolver, "missing.example.com")

    assert {"CNAME", "resolver"} == report.crosses().keys()
    assert (
        "_acme-challenge.missing.example.com has no CNAME according to every server of example.com"
        == report.crosses()["CNAME"]
    )
    assert [cname("missing")] == report.fix("CNAME")


def test_cname_to_another_name(clinic: Lab, resolver: Resolver, ns2: None) -> None:
    """A CNAME to the challenge name of another hostname."""
    report = check(clinic, resolver, "other.example.com")

    assert {"CNAME", "resolver"} == report.crosses().keys()
    wanted = CHALLENGE.format("other")
    assert f"leads to {CHALLENGE.format('www')} instead of {wanted}" in report.crosses()["CNAME"]
    assert [cname("other")] == report.fix("CNAME")


def test_wildcard_in_the_way(clinic: Lab, resolver: Resolver, ns2: None) -> None:
    """A wildcard CNAME answers for a name that has none of its own."""
    report = check(clinic, resolver, "wild.example.com")

    assert {"wildcard CNAME", "resolver"} == report.crosses().keys()
    assert "so *.wild.example.com answers for it with www.example.com" in report.crosses()["wildcard CNAME"]
    assert [cname("wild")] == report.fix("wildcard CNAME")


def test_text_in_the_way(clinic: Lab, resolver: Resolver, ns2: None) -> None:
    """A TXT that some client left, where a CNAME has to be."""
    report = check(clinic, resolver, "text.example.com")

    assert {"CNAME", "TXT beside it", "resolver"} == report.crosses().keys()
    assert "has a TXT record, which conflicts with the CNAME" in report.crosses()["TXT beside it"]
    assert [cname("text")] == report.fix("TXT beside it")


def test_ca_forbidden(clinic: Lab, resolver: Resolver, ns2: None) -> None:
    """CAA that names another CA; asked about that one, it is in order."""
    report = check(clinic, resolver, "forbidden.example.com")

    assert {"CAA"} == report.crosses().keys()
    assert "the CAA of forbidden.example.com does not allow letsencrypt.org to issue" in report.crosses()["CAA"]
    assert ['forbidden.example.com. 300 IN CAA 0 issue "letsencrypt.org"'] == report.fix("CAA")
    assert {} == check(clinic, resolver, "forbidden.example.com", "--ca", "ca.example.net").crosses()


# What else may happen


def test_hostname_without_a_token(clinic: Lab, resolver: Resolver) -> None:
    """One line for each that says how to mint; nothing is asked."""
    run = clinic.service.attempt("check", "--resolver", resolver.address, "new.example.com", "newer.example.com")

    assert (1, "") == (run.returncode, run.stdout)
    assert [
        f"responder: no valid token covers {host}: mint one with responder token mint {host}"
        for host in ("new.example.com", "newer.example.com")
    ] == run.stderr.splitlines()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(clinic: Lab, resolver: Resolver, ns2: None, number: signal.Signals) -> None:
    """A value that was presented is cleaned up when its examination is interrupted."""
    arguments = ("check", "--resolver", resolver.address, "--write", "missing.example.com")
    with clinic.service.begin(*arguments) as process:
        wait_until(lambda: values(clinic.service.dns, CHALLENGE.format("missing")), "the value is there")
        process.send_signal(number)
        _, err = process.communicate(timeout=PATIENCE)

    assert (1, "responder: interrupted") == (process.returncode, err.strip())
    assert "missing.example.com" not in clinic.service.cli("value", "list").stdout


@contextmanager
def parents(lab: Lab, directory: Path, records: Iterable[str]) -> Iterator[tuple[Lab, Resolver]]:
    """The clinic below other parents with these records, and a resolver that starts from them."""
    address = next(lab.addresses.resolvers)
    with below_parents(lab, directory, address, list(records)) as other, strict_resolver(other, directory) as running:
        yield other, running


def delegation(lab: Lab) -> set[str]:
    """The records that the zone above ought to have."""
    return set(lab.service.cli("zone", "delegation").stdout.splitlines()[1:])


def cname(name: str) -> str:
    return f"_acme-challenge.{name}.example.com. 300 IN CNAME {CHALLENGE.format(name)}."
