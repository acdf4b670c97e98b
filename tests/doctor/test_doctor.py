"""
The doctor, case by case: what it makes of servers that say what no real one can be brought to say.

What it says of real servers, and of everything that goes wrong with those, is in the end-to-end tests.
"""

from __future__ import annotations

import errno
import functools
import socket
import subprocess
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import dns.asyncquery
import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
import pytest_asyncio

from responder.config import ZoneSettings
from responder.doctor import (
    Case,
    Finding,
    Mark,
    Patient,
    Policy,
    delegation,
    examine,
    hostname,
    probe,
    questions,
    system_resolvers,
    undelegated,
    walk,
)
from responder.doctor import nameservers as probing
from responder.doctor.caa import Judgment, Property, judge
from responder.doctor.report import dig
from responder.errors import CannotExamine
from responder.names import Name
from responder.store import AuditAction, NewToken, Store
from responder.tokens.hostname import challenge_name
from responder.tokens.secret import Digest
from responder.tokens.serving import Serving
from responder.tokens.token import Grant
from tests.support.service import new_database
from tests.support.world import Bend, World, failing, silent, straight, world

APEX = "acme.example.com"
RESOLVER, PARENT_A, PARENT_B, NS1, NS2 = (f"127.0.9.{number}" for number in (1, 2, 3, 11, 12))

DELEGATION = f"""
{APEX}. NS ns1.{APEX}.
{APEX}. NS ns2.{APEX}.
ns1.{APEX}. A {NS1}
ns2.{APEX}. A {NS2}
"""
PARENT = f"""
example.com. SOA a.example.com. hostmaster.example.com. 1 60 60 60 60
example.com. NS a.example.com.
example.com. NS b.example.com.
a.example.com. A {PARENT_A}
b.example.com. A {PARENT_B}
some.example.com. A 192.0.2.80
"""
CNAME = f"_acme-challenge.some.example.com. CNAME _acme-challenge.some.{APEX}."
ZONE = f"""
{APEX}. SOA ns1.{APEX}. hostmaster.example.com. 7 60 60 60 60
_acme-challenge.some.{APEX}. TXT waiting
"""


@dataclass
class Clinic:
    """Servers, a patient's settings, and what the doctor is asked."""

    world: World
    zone: dict[str, list[str]]
    write: Store | None = None
    token_id: UUID | None = None
    wildcard: bool = False

    async def parents(self, *texts: str, bends: Sequence[Bend] = (straight, straight)) -> None:
        """Let the servers of `example.com` have these records: the same, if it is but one text."""
        both = texts if len(texts) > 1 else texts * 2
        for address, text, bend in zip((PARENT_A, PARENT_B), both, bends, strict=True):
            await self.world.add(address, PARENT + text, bend=bend)

    async def nameservers(self, *texts: str, bends: Sequence[Bend] = (straight, straight)) -> None:
        """Let ours have these records, as `parents` does."""
        both = texts if len(texts) > 1 else texts * 2
        for address, text, bend in zip((NS1, NS2), both, bends, strict=True):
            await self.world.add(address, text + DELEGATION, bend=bend)

    async def resolver(self, text: str = "", *, bend: Bend = straight) -> None:
        """Let the resolver know everything that is right, and *text*."""
        await self.world.add(RESOLVER, PARENT + CNAME + ZONE + DELEGATION + text, recursive=True, bend=bend)

    @property
    def settings(self) -> ZoneSettings:
        """Those of the zone."""
        return ZoneSettings.model_validate(
            {"name": APEX, "hostmaster": "hostmaster@example.com", "nameservers": self.zone}
        )

    async def examine(self, *hostnames: str, policy: Policy | None = None, serial: int = 7) -> list[Finding]:
        """What the doctor finds."""
        apex = Name.parse(APEX)
        zone = self.settings
        grants = [
            Grant(hostname=name, challenge_name=challenge_name(name, apex), apex=apex)
            for name in map(Name.parse, hostnames)
        ]
        case = Case(
            zones=[zone],
            serving=Serving(apexes=frozenset([apex])),
            serials={apex: serial},
            patients=[
                Patient(grant=grant, token_id=self.token_id or uuid4(), wildcard=self.wildcard) for grant in grants
            ],
            policy=policy or Policy(("ca.example.net",)),
            resolvers=[RESOLVER],
            resolver_port=self.world.port,
            port=self.world.port,
            write=self.write,
        )
        sections = await examine(case, waiting=lambda _: None, found=lambda _: None)
        assert [APEX, *hostnames] == [str(section.subject) for section in sections]
        findings = [finding for section in sections for finding in section.findings]
        assert all(finding.fix for finding in findings if finding.mark is Mark.CROSS), "each says what mends it"
        return findings


@pytest_asyncio.fixture
async def clinic(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Clinic]:
    """Settings with two nameservers, and nobody anywhere. What servers here have not done soon, they never do."""
    monkeypatch.setattr(questions, "LOOK_INTERVAL", 0.01)
    for module in (probing, hostname):
        monkeypatch.setattr(module, "FOLLOW_PATIENCE", 0.02)
    async with world() as servers:
        yield Clinic(servers, {f"ns1.{APEX}": [NS1], f"ns2.{APEX}": [NS2]})


def crosses(findings: Sequence[Finding]) -> dict[str, str]:
    return {finding.check.value: finding.text for finding in findings if finding.mark is Mark.CROSS}


def notes(findings: Sequence[Finding]) -> dict[str, str]:
    return {finding.check.value: finding.text for finding in findings if finding.mark is Mark.NOTE}


def fix(findings: Sequence[Finding], check: str) -> tuple[str, ...]:
    """The one mend of a check, its instruction and lines."""
    ((instruction, lines),) = [(f.fix.instruction, f.fix.lines) for f in findings if f.check.value == check and f.fix]
    return instruction, *lines


async def test_in_order(clinic: Clinic) -> None:
    """What the tests below break."""
    await clinic.parents(DELEGATION + CNAME)
    await clinic.nameservers(ZONE)
    await clinic.resolver()

    findings = await clinic.examine("some.example.com")

    assert {} == crosses(findings)
    assert {"public addresses", "CAA binding"} == notes(findings).keys()


# The resolver


@pytest.mark.parametrize(
    ("bend", "fault"),
    [
        (silent, "does not reply"),
        (lambda _: b"nonsense", "replies with a message that does not match the query"),
        (lambda _: b"\0" * 40, "replies with a message that does not match the query"),
    ],
)
async def test_resolver_without_sense(clinic: Clinic, bend: Bend, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that says nothing, or nonsense, is one line that says what to do."""
    monkeypatch.setattr(questions, "RECURSION_PATIENCE", (0.1, 0.1))
    await clinic.resolver(bend=bend)

    with pytest.raises(CannotExamine) as refusal:
        await clinic.examine()

    at = f"the resolver {RESOLVER}, port {clinic.world.port}, {fault}"
    assert f"{at}: choose another with --resolver ADDRESS[:PORT]" == str(refusal.value)


def test_no_resolver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without a resolver is one line, too; with one, that is taken."""
    file = tmp_path / "resolv.conf"
    monkeypatch.setattr(walk, "RESOLV_CONF", str(file))
    with pytest.raises(CannotExamine, match="choose one with --resolver"):
        system_resolvers()
    file.write_text("search example.com\n")
    with pytest.raises(CannotExamine):
        system_resolvers()

    file.write_text("nameserver 192.0.2.53\nnameserver 2001:db8::53\n")

    assert ["192.0.2.53", "2001:db8::53"] == system_resolvers()


async def test_time_runs_out(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many servers are silent, there is an end."""
    monkeypatch.setattr("responder.doctor.examination.DEADLINE", 0.01)
    await clinic.resolver(bend=silent)

    with pytest.raises(CannotExamine, match="check fewer hostnames at once"):
        await clinic.examine()


# The zone above


async def test_parent_unknown(clinic: Clinic) -> None:
    """A resolver that does not know the zone above."""
    await clinic.nameservers(ZONE)
    await clinic.resolver(bend=failing(dns.rcode.SERVFAIL))

    findings = await clinic.examine()

    assert {
        "delegation": "the resolver finds no nameservers for example.com, where the zone has to be delegated"
    } == crosses(findings)


async def test_parent_silent(clinic: Clinic) -> None:
    """Nobody of the zone above answers."""
    await clinic.nameservers(ZONE)
    await clinic.resolver()

    findings = await clinic.examine()

    assert {"delegation": f"no server of example.com replies, so resolvers cannot find {APEX}"} == crosses(findings)


OTHERS = f"{APEX}. NS ns.other.example.\n"


@pytest.mark.parametrize(
    ("texts", "is_certain"),
    [
        (("",), True),
        ((OTHERS,), True),
        ((DELEGATION,), False),
        ((DELEGATION, ""), False),
        ((DELEGATION, OTHERS), False),
    ],
)
async def test_undelegated(clinic: Clinic, texts: Sequence[str], *, is_certain: bool) -> None:
    """A zone is certainly not delegated if no server of its parent names one of its nameservers."""
    await clinic.parents(*texts)
    await clinic.resolver()

    found = await undelegated([RESOLVER], clinic.settings, port=clinic.world.port)

    missing = f"no server of example.com delegates {APEX} to ns1.{APEX}, ns2.{APEX}"
    assert (missing if is_certain else "") == found


async def test_nothing_is_certain_without_an_answer(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither without a resolver, nor without a server of the parent that answers, nor in no time."""
    ask = functools.partial(undelegated, [RESOLVER], clinic.settings, port=clinic.world.port)
    assert "" == await ask()
    await clinic.resolver()
    assert "" == await ask()
    await clinic.parents("", bends=(failing(dns.rcode.REFUSED), failing(dns.rcode.SERVFAIL)))
    assert "" == await ask()
    monkeypatch.setattr(delegation, "DEADLINE", 0.0)
    assert "" == await ask()


async def test_one_parent_server_out_of_order(clinic: Clinic) -> None:
    """A server of the zone above that does not answer for it is worth knowing; the others do."""
    await clinic.parents(DELEGATION, bends=(straight, failing(dns.rcode.REFUSED)))
    await clinic.nameservers(ZONE)
    await clinic.resolver()

    findings = await clinic.examine()

    assert {} == crosses(findings)
    assert f"b.example.com ({PARENT_B}), a server of example.com, replies with REFUSED" == notes(findings)["delegation"]


@pytest.mark.parametrize(
    ("records", "check", "fault"),
    [
        ("", "delegation", f"no NS records for {APEX}"),
        (DELEGATION.replace(NS2, "127.0.9.99"), "glue", f"ns2.{APEX} has 127.0.9.99 instead of {NS2}"),
    ],
)
async def test_one_parent_server_lags(clinic: Clinic, records: str, check: str, fault: str) -> None:
    """Where the servers of the zone above differ, the one that is wrong is named, and no record is to be changed."""
    await clinic.parents(DELEGATION, records)
    await clinic.nameservers(ZONE)
    await clinic.resolver()

    findings = await clinic.examine()

    assert {check: f"{fault} according to b.example.com ({PARENT_B})"} == crosses(findings)
    instruction, command = fix(findings, check)
    assert "other servers of example.com differ" in instruction
    assert f"dig @{PARENT_B} -p {clinic.world.port} {APEX} NS +norecurse" == command


async def test_parent_server_that_holds_our_zone_too(clinic: Clinic) -> None:
    """It answers with authority, and without glue, which resolvers then do not need from it."""
    apex = (
        f"{APEX}. SOA ns1.{APEX}. hostmaster.example.com. 7 60 60 60 60\n{APEX}. NS ns1.{APEX}.\n{APEX}. NS ns2.{APEX}."
    )
    await clinic.parents(apex)
    await clinic.nameservers(ZONE)
    await clinic.resolver()

    assert {} == crosses(await clinic.examine())


# Our nameservers


async def test_nameserver_outside_the_zone(clinic: Clinic) -> None:
    """Its address is not ours to give, and found by the resolver."""
    clinic.zone = {"ns.example.org": []}
    await clinic.parents(f"{APEX}. NS ns.example.org.")
    await clinic.world.add(NS1, f"{ZONE}{APEX}. NS ns.example.org.")
    await clinic.resolver(f"ns.example.org. A {NS1}")

    assert {} == crosses(await clinic.examine())


async def test_nameserver_without_address(clinic: Clinic) -> None:
    """A nameserver that has no address anywhere."""
    clinic.zone = {f"ns1.{APEX}": [NS1], "ns.example.org": []}
    await clinic.parents(f"{APEX}. NS ns1.{APEX}.\n{APEX}. NS ns.example.org.\nns1.{APEX}. A {NS1}")
    await clinic.world.add(NS1, ZONE)
    await clinic.resolver()

    assert {"reachable": "nameserver ns.example.org has no address"} == crosses(await clinic.examine())


async def test_ipv6(clinic: Clinic) -> None:
    """IPv6 addresses are asked as well: at first nobody answers at this one, then somebody does."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probing_socket:
        try:
            probing_socket.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
    clinic.zone = {f"ns1.{APEX}": [NS1, "::1"]}
    records = f"{APEX}. NS ns1.{APEX}.\nns1.{APEX}. A {NS1}\nns1.{APEX}. AAAA ::1\n"
    await clinic.parents(records)
    await clinic.world.add(NS1, ZONE + records)
    await clinic.resolver()

    without = await clinic.examine()
    await clinic.world.add("::1", ZONE + records)

    assert {"reachable": f"ns1.{APEX} (::1) replies neither over UDP nor over TCP"} == crosses(without)
    assert {} == crosses(await clinic.examine())


async def test_no_route(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    """That this machine has no IPv6 is no fault of the nameserver's."""
    clinic.zone = {f"ns1.{APEX}": [NS1, "2001:db8::1"]}
    records = f"{APEX}. NS ns1.{APEX}.\nns1.{APEX}. A {NS1}\nns1.{APEX}. AAAA 2001:db8::1\n"
    await clinic.parents(records)
    await clinic.world.add(NS1, ZONE + records)
    await clinic.resolver(f"b.example.com. AAAA 2001:db8::2\n{records}")
    for name in ("udp", "tcp"):
        original = getattr(dns.asyncquery, name)

        async def ask(q: object, where: str, _original: Any = original, **how: object) -> object:
            if ":" in where:
                raise OSError(errno.ENETUNREACH, "Network is unreachable")
            return await _original(q, where, **how)

        monkeypatch.setattr(dns.asyncquery, name, ask)

    findings = await clinic.examine()

    assert {} == crosses(findings)
    assert f"skipped, because this machine has no route to ns1.{APEX} (2001:db8::1)" == notes(findings)["reachable"]


def without_authority(reply: dns.message.Message) -> dns.message.Message:
    reply.flags &= ~dns.flags.AA
    return reply


def without_edns(reply: dns.message.Message) -> dns.message.Message:
    reply.use_edns(False)
    return reply


@pytest.mark.parametrize(
    ("bend", "check", "fault"),
    [
        (without_authority, "authority", f"is lame: for {APEX}, it answers without authority"),
        (failing(dns.rcode.NOERROR), "authority", f"is lame: for {APEX}, it has no SOA record for it"),
        (without_edns, "EDNS", "answers without EDNS (RFC 6891) to a query with EDNS"),
    ],
)
async def test_replies_out_of_order(clinic: Clinic, bend: Bend, check: str, fault: str) -> None:
    """Replies that resolvers do not take, or do not like."""
    await clinic.parents(DELEGATION)
    await clinic.nameservers(ZONE, bends=(straight, bend))
    await clinic.resolver()

    assert {check: f"ns2.{APEX} ({NS2}) {fault}"} == crosses(await clinic.examine())


async def test_database_ahead(clinic: Clinic) -> None:
    """Nameservers that agree with each other, but not with the database, do not follow it."""
    await clinic.parents(DELEGATION)
    await clinic.nameservers(ZONE)
    await clinic.resolver()

    findings = await clinic.examine(serial=2**32 + 8)

    assert [
        f"{name} is stale: it serves serial 7, but the newest is 8"
        for name in (f"ns1.{APEX} ({NS1})", f"ns2.{APEX} ({NS2})")
    ] == [finding.text for finding in findings if finding.mark is Mark.CROSS]


async def test_challenge_name_unknown(clinic: Clinic) -> None:
    """A nameserver that denies the challenge name has another database."""
    await clinic.parents(DELEGATION + CNAME)
    await clinic.nameservers(ZONE, ZONE.splitlines()[1])
    await clinic.resolver()

    fault = f"ns2.{APEX} ({NS2}) does not know _acme-challenge.some.{APEX}, which a token covers"
    assert {"challenge name": fault} == crosses(await clinic.examine("some.example.com"))


@pytest.mark.parametrize(
    ("serial", "than", "expected"),
    [(1, 2, True), (2, 1, False), (2, 2, False), (2**32 - 1, 0, True), (0, 2**32 - 1, False), (2**32 - 10, 5, True)],
)
def test_serials_go_round(serial: int, than: int, expected: bool) -> None:  # noqa: FBT001
    """Serials are compared as RFC 1982 has it."""
    assert expected == probing.is_older(serial, than)
    assert (than if expected else serial) == probing.latest([serial, than])


def test_letters_are_mixed() -> None:
    """Every label has letters of both cases, and what is no letter stays."""
    mixed = probing.mix_case(dns.name.from_text("_acme-challenge.WWW.example.com"))

    assert "_AcMe-cHaLlEnGe.wWw.eXaMpLe.cOm." == mixed.to_text()


# Hostnames


async def in_order_but(clinic: Clinic, cname: str, *more: str, resolved: str = "") -> None:
    """Everything is in order, but for what stands at `_acme-challenge.some.example.com` at the parent's servers."""
    await clinic.parents(*(DELEGATION + text for text in (cname, *more)))
    await clinic.nameservers(ZONE)
    await clinic.resolver(resolved)


async def test_text_beside_the_alias(clinic: Clinic) -> None:
    """A TXT beside the CNAME, as some providers let one have."""
    await in_order_but(clinic, f"{CNAME}\n_acme-challenge.some.example.com. TXT leftover")

    findings = await clinic.examine("some.example.com")

    assert {"TXT beside it"} == crosses(findings).keys()
    assert f"{CNAME.replace('. CNAME', '. 300 IN CNAME')}" in fix(findings, "TXT beside it")


async def test_challenge_name_delegated_elsewhere(clinic: Clinic) -> None:
    """NS records of an older arrangement, where the CNAME has to be."""
    await in_order_but(clinic, "_acme-challenge.some.example.com. NS ns.cloud.example.")

    findings = await clinic.examine("some.example.com")

    assert "is delegated by NS records and so has no CNAME" in crosses(findings)["CNAME"]
    assert "remove those NS records from example.com, and add:" == fix(findings, "CNAME")[0]


async def test_delegated_to_us(clinic: Clinic) -> None:
    """NS records that lead to this service are kept: the name has to be a zone here, and the token has to have it."""
    delegated = f"_acme-challenge.some.example.com. NS ns1.{APEX}."
    await clinic.parents(DELEGATION + delegated)
    await clinic.nameservers(ZONE)
    await clinic.resolver()

    findings = await clinic.examine("some.example.com")

    assert "_acme-challenge.some.example.com is delegated to this service" in crosses(findings)["CNAME"]
    assert fix(findings, "CNAME")[1:] == (
        "responder token deny ID some.example.com",
        "responder token allow ID some.example.com",
    )


async def test_nameserver_that_is_an_alias(clinic: Clinic) -> None:
    """Some resolvers do not follow a CNAME at the name of a nameserver: its addresses belong there."""
    clinic.zone = {f"ns1.{APEX}": [NS1], "ns2.example.net": []}
    delegation = f"{APEX}. NS ns1.{APEX}.\n{APEX}. NS ns2.example.net.\nns1.{APEX}. A {NS1}\n"
    await clinic.parents(delegation + CNAME)
    for address in (NS1, NS2):
        await clinic.world.add(address, ZONE + delegation)
    alias = f"ns2.example.net. CNAME host.example.net.\nhost.example.net. A {NS2}\n"
    await clinic.world.add(RESOLVER, PARENT + CNAME + ZONE + delegation + alias, recursive=True)

    findings = await clinic.examine("some.example.com")

    assert crosses(findings) == {
        "nameserver name": "nameserver ns2.example.net is an alias of host.example.net, which some resolvers refuse "
        "(RFC 2181, section 10.3)"
    }
    assert fix(findings, "nameserver name") == (
        "in the zone that holds ns2.example.net, replace its CNAME by its addresses:",
        f"ns2.example.net. 3600 IN A {NS2}",
    )


async def test_one_server_of_the_hostname_lags(clinic: Clinic) -> None:
    """One of two servers has no CNAME yet: it is named, and no record is to be added."""
    await in_order_but(clinic, CNAME, "")

    findings = await clinic.examine("some.example.com")

    assert {
        "CNAME": f"_acme-challenge.some.example.com has no CNAME according to b.example.com ({PARENT_B})"
    } == crosses(findings)
    command = f"dig @{PARENT_B} -p {clinic.world.port} _acme-challenge.some.example.com CNAME +norecurse"
    assert command in fix(findings, "CNAME")


async def test_wildcard_without_its_source(clinic: Clinic) -> None:
    """A server that does not show its wildcard, when asked for it: the likeliest one is named."""

    def bend(reply: dns.message.Message) -> dns.message.Message:
        name = reply.question[0].name
        if name.is_subdomain(dns.name.from_text("some.example.com")) and not name.is_wild() and len(name) == 5:
            reply.set_rcode(dns.rcode.NOERROR)
            reply.answer = [dns.rrset.from_text(name, 60, "IN", "CNAME", "lb.example.net.")]
        return reply

    await clinic.parents(DELEGATION, bends=(bend, bend))
    await clinic.nameservers(ZONE)
    await clinic.resolver()

    findings = await clinic.examine("some.example.com")

    assert "so *.some.example.com answers for it with lb.example.net" in crosses(findings)["wildcard CNAME"]


async def test_hostname_nowhere(clinic: Clinic) -> None:
    """A hostname whose zone the resolver does not find, or whose zone has no servers that it finds."""
    await clinic.parents(DELEGATION)
    await clinic.nameservers(f"{ZONE}\n_acme-challenge.www.other.org.{APEX}. TXT waiting")
    await clinic.resolver("other.net. SOA a.other.net. a.other.net. 1 1 1 1 1")

    findings = await clinic.examine("www.other.org", "www.other.net")

    assert [
        f"the resolver finds no nameservers for {name}, where the CNAME has to be"
        for name in ("www.other.org", "other.net")
    ] == [finding.text for finding in findings if finding.check.value == "CNAME"]


async def test_hostname_with_servers_that_are_out_of_reach(clinic: Clinic) -> None:
    """Where only the resolver gets to the hostname's zone, what it says decides."""
    await clinic.parents(DELEGATION)
    await clinic.nameservers(f"{ZONE}\n_acme-challenge.www.other.org.{APEX}. TXT waiting")
    zone = "other.org. SOA a.other.org. a.other.org. 1 1 1 1 1\nother.org. NS a.other.org.\na.other.org. A 127.0.9.77"
    ours = f"_acme-challenge.www.other.org.{APEX}"
    await clinic.resolver(f"{zone}\n_acme-challenge.www.other.org. CNAME {ours}.\n{ours}. TXT waiting")

    findings = await clinic.examine("www.other.org")

    assert {} == crosses(findings)
    assert "this machine reaches no server of other.org" in notes(findings)["CNAME"]


@pytest.mark.parametrize(
    ("rcode", "fault"),
    [
        (dns.rcode.SERVFAIL, "it cannot resolve _acme-challenge.some.example.com: SERVFAIL (no \x1b signatures)"),
        (dns.rcode.NXDOMAIN, f"it reports that _acme-challenge.some.{APEX} does not exist"),
    ],
)
async def test_path(clinic: Clinic, rcode: dns.rcode.Rcode, fault: str) -> None:
    """What goes wrong on the way of the resolver, in its own words, but for what could command a terminal."""

    def bend(reply: dns.message.Message) -> dns.message.Message:
        if reply.question[0].name == dns.name.from_text("_acme-challenge.some.example.com"):
            reply.set_rcode(rcode)
            reply.use_edns(0, options=[dns.edns.EDEOption(dns.edns.EDECode.RRSIGS_MISSING, "no \x1b signatures")])
        return reply

    await clinic.parents(DELEGATION + CNAME)
    await clinic.nameservers(ZONE)
    await clinic.resolver(bend=bend)

    assert {"resolver": fault.replace("\x1b", " ")} == crosses(await clinic.examine("some.example.com"))


# A value of our own


@pytest_asyncio.fixture
async def store(database: str) -> AsyncIterator[Store]:
    opened = await Store.open(database)
    await opened.register_zones({Name.parse(APEX): None}, now=datetime.now(UTC))
    yield opened
    await opened.close()


@pytest.fixture
def database(tmp_path: Path) -> str:
    return new_database(tmp_path)


async def patient(clinic: Clinic, store: Store) -> None:
    """Let the doctor write, with a token for `some.example.com`."""
    some, apex = Name.parse("some.example.com"), Name.parse(APEX)
    grant = Grant(hostname=some, challenge_name=challenge_name(some, apex), apex=apex)
    token = await store.mint(NewToken(digest=Digest(b"d" * 32), grants=(grant,), created_at=datetime.now(UTC)))
    clinic.write, clinic.token_id = store, token.id


async def test_value_that_never_arrives(clinic: Clinic, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nameservers that do not follow the database; and nothing is left in that."""
    monkeypatch.setattr(probe, "SERVED_PATIENCE", 0.02)
    monkeypatch.setattr(probe, "RESOLVED_PATIENCE", -5.0)  # and 5 s for the resolver to forget
    await patient(clinic, store)
    await in_order_but(clinic, CNAME)

    findings = await clinic.examine("some.example.com")

    assert {
        "probe value": "the test value is in the database, but is not served by "
        f"ns1.{APEX} ({NS1}), ns2.{APEX} ({NS2})",
        "resolver": "it finds the name, but not the test value",
    } == crosses(findings)
    assert [] == await store.values()


async def test_value_that_may_not_be_presented(clinic: Clinic, store: Store) -> None:
    """A token that is revoked meanwhile, in the words of the store."""
    await patient(clinic, store)
    assert clinic.token_id is not None
    await store.revoke(clinic.token_id, at=datetime.now(UTC))
    await in_order_but(clinic, CNAME)

    assert "was revoked" in crosses(await clinic.examine("some.example.com"))["probe value"]


async def test_value_without_nameservers(clinic: Clinic, store: Store) -> None:
    """Where nobody would serve it, none is presented."""
    await patient(clinic, store)
    await clinic.parents(DELEGATION + CNAME)
    await clinic.resolver()

    findings = await clinic.examine("some.example.com")

    assert {"reachable", "probe value"} == crosses(findings).keys()
    events = await store.audit(datetime.now(UTC) - timedelta(hours=1))
    assert [AuditAction.MINT] == [event.action for event in events]


# CAA


async def test_caa_look_up_fails(clinic: Clinic) -> None:
    """A CA that gets no answer to its CAA question issues nothing."""

    def bend(reply: dns.message.Message) -> dns.message.Message:
        if reply.question[0].rdtype == dns.rdatatype.CAA:
            reply.set_rcode(dns.rcode.SERVFAIL)
        return reply

    await clinic.parents(DELEGATION + CNAME)
    await clinic.nameservers(ZONE)
    await clinic.resolver(bend=bend)

    assert "the CAA query for some.example.com fails" in crosses(await clinic.examine("some.example.com"))["CAA"]


@pytest.mark.parametrize(
    ("records", "tags"),
    [
        ('some.example.com. CAA 0 issue "ca.example.net"\nsome.example.com. CAA 0 issuewild ";"', ["issuewild"]),
        ('example.com. CAA 0 issue "other.example.net"', ["issue"]),
        ('example.com. CAA 0 issue ";"\nexample.com. CAA 0 issuewild ";"', ["issue", "issuewild"]),
        ('example.com. CAA 0 iodef "mailto:me@example.com"', []),
    ],
)
async def test_wildcards_have_properties_of_their_own(clinic: Clinic, records: str, tags: list[str]) -> None:
    """The mend of a wildcard that may not be issued is one for wildcards, where that matters."""
    clinic.wildcard = True
    await in_order_but(clinic, CNAME, resolved=f"\n{records}")

    findings = await clinic.examine("some.example.com")

    owner = records.split()[0]
    assert [(f'{owner} 300 IN CAA 0 {tag} "ca.example.net"',) for tag in tags] == [
        finding.fix.lines for finding in findings if finding.mark is Mark.CROSS and finding.fix
    ]


async def test_critical_property(clinic: Clinic) -> None:
    """A property that CAs do not know, and may not overlook, has to go."""
    await in_order_but(clinic, CNAME, resolved='\nsome.example.com. CAA 128 future "x"')

    findings = await clinic.examine("some.example.com")

    assert "CAs do not know the critical property 'future'" in crosses(findings)["CAA"]
    assert 'some.example.com. IN CAA 128 future "x"' in fix(findings, "CAA")


async def test_hostname_that_is_an_alias(clinic: Clinic) -> None:
    """CAA is looked for where an alias leads; what is found there is what counts, whatever is above the alias."""
    await clinic.parents(f"{DELEGATION}_acme-challenge.cdn.example.com. CNAME _acme-challenge.cdn.{APEX}.")
    await clinic.nameservers(f"{ZONE}\n_acme-challenge.cdn.{APEX}. TXT waiting")
    await clinic.resolver(
        f"""
        cdn.example.com. CNAME lb.example.net.
        _acme-challenge.cdn.example.com. CNAME _acme-challenge.cdn.{APEX}.
        _acme-challenge.cdn.{APEX}. TXT waiting
        lb.example.net. CAA 0 issue "ca.example.net"
        """
    )

    findings = await clinic.examine("cdn.example.com", policy=Policy(("ca.example.net",), "https://ca.example.net/1"))

    assert {} == crosses(findings)
    value = "ca.example.net; validationmethods=dns-01; accounturi=https://ca.example.net/1"
    assert (
        "replace those that name ca.example.net in the records of lb.example.net:",
        f'lb.example.net. 300 IN CAA 0 issue "{value}"',
    ) == fix(findings, "CAA binding")


ADD = "add to the records of the zone in the configuration, and restart the service:"
NO_ALIAS = f"a name with a CNAME cannot have a CAA, so give www.{APEX} addresses instead, and {ADD}"
BOUND = f"this record applies to all names in the zone, so it has to name your account: {ADD}"
ACCOUNT = "; accounturi=<URL of your ACME account>"


@pytest.mark.parametrize(
    ("hostname", "records", "instruction", "owner", "more"),
    [
        (f"www.{APEX}", "", ADD, f"www.{APEX}", ""),
        (f"www.{APEX}", f"www.{APEX}. CNAME elsewhere.example.net.", NO_ALIAS, f"www.{APEX}", ""),
        (f"www.{APEX}", f'www.{APEX}. CNAME lb.{APEX}.\nlb.{APEX}. CAA 0 issue ";"', ADD, f"lb.{APEX}", ""),
        ("some.example.com", f'some.example.com. CNAME lb.{APEX}.\nlb.{APEX}. CAA 0 issue ";"', ADD, f"lb.{APEX}", ""),
        (APEX, "", BOUND, APEX, ACCOUNT),
    ],
    ids=["usual", "alias", "alias to another", "alias from outside", "apex"],
)
async def test_caa_in_our_zone(
    clinic: Clinic, hostname: str, records: str, instruction: str, owner: str, more: str
) -> None:
    """
    In a zone of ours, whose CAA lets nobody issue, no more is let out than the name that it is about: else whoever has
    a token for another hostname could have a certificate for the name in our zone that its values are at.
    """
    granted = f"{ZONE}\n_acme-challenge.{hostname}. TXT waiting"
    await clinic.parents(DELEGATION + CNAME)
    await clinic.nameservers(granted)
    await clinic.resolver(f'{granted}\n{APEX}. CAA 0 issue ";"\n{records}')

    findings = await clinic.examine(hostname)

    record = f'{owner}. 300 IN CAA 0 issue "ca.example.net; validationmethods=dns-01{more}"'
    assert (instruction, record) == fix(findings, "CAA")


MINE, YOURS = "https://ca.example.net/acct/1", "https://ca.example.net/acct/2"
ALLOWED = Judgment()
UNNAMED = Judgment("it does not name ca.example.net")


def bound(*uris: str, methods: bool = False) -> Judgment:
    return Judgment(account_uris=frozenset(uris), binds_method=methods)


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([], ALLOWED),
        (["0 iodef mailto:me@example.com"], ALLOWED),
        (["128 iodef mailto:me@example.com"], ALLOWED),
        (["0 future x"], ALLOWED),
        (["128 future x"], Judgment("CAs do not know the critical property 'future'")),
        (["0 issuewild ;"], ALLOWED),
        (["0 issue ;"], UNNAMED),
        (["0 issue"], UNNAMED),
        (["0 issue other.example.net"], UNNAMED),
        (["0 issue ca.example.net"], ALLOWED),
        (["0 issue  \t CA.Example.NET \t ; \t "], ALLOWED),
        (["0 issue other.example.net", "0 issue ca.example.net"], ALLOWED),
        (["0 issue ;", "0 issue ca.example.net"], ALLOWED),
        # Parameters: malformed ones make the whole record allow nobody.
        (["0 issue ca.example.net; policy=ev"], ALLOWED),
        (["0 issue ca.example.net; policy"], UNNAMED),
        (["0 issue ca.example.net; policy=ev;"], UNNAMED),
        (["0 issue ca.example.net; po licy=ev"], UNNAMED),
        (["0 issue ca.example.net; policy=e v"], UNNAMED),
        (["0 issue ca.example.net; a=1; A=2"], UNNAMED),
        (["0 issue ca.example.net; =1"], UNNAMED),
        # RFC 8657.
        ([f"0 issue ca.example.net; accounturi={MINE}"], bound(MINE)),
        ([f"0 issue ca.example.net;accounturi = {MINE} ;validationmethods=dns-01"], bound(MINE, methods=True)),
        ([f"0 issue ca.example.net; accounturi={YOURS}"], Judgment("its accounturi names another account")),
        ([f"0 issue ca.example.net; accounturi={uri}" for uri in (MINE, YOURS)], bound(MINE)),
        ([f"0 issue ca.example.net; accounturi={MINE}", "0 issue ca.example.net"], ALLOWED),
        (["0 issue ca.example.net; validationmethods=http-01,dns-01"], Judgment(binds_method=True)),
        (
            ["0 issue ca.example.net; validationmethods=http-01"],
            Judgment("its validationmethods do not include dns-01"),
        ),
        (["0 issue ca.example.net; validationmethods="], Judgment("its validationmethods do not include dns-01")),
    ],
)
def test_caa(records: list[str], expected: Judgment) -> None:
    """Record sets are read as strictly as CAs read them."""
    properties = [Property(int(flags), tag, value) for flags, tag, value in (f"{r} ".split(" ", 2) for r in records)]

    assert expected == judge(properties, Policy(("ca.example.net",), MINE), wildcard=False)


def test_caa_of_a_ca_with_several_names() -> None:
    """A CA may go by several names; one is enough."""
    properties = [Property(0, "issue", "second.example.net")]

    assert ALLOWED == judge(properties, Policy(("first.example.net", "second.example.net")), wildcard=True)
    assert Judgment("it does not name first.example.net or third.example.net") == judge(
        properties, Policy(("first.example.net", "third.example.net")), wildcard=True
    )


def test_caa_without_a_known_account() -> None:
    """Without an account of one's own to compare with, those that are named are told."""
    properties = [Property(0, "issue", f"ca.example.net; accounturi={uri}") for uri in (MINE, YOURS)]

    assert bound(MINE, YOURS) == judge(properties, Policy(("ca.example.net",)), wildcard=False)


# Commands


def test_command() -> None:
    """It asks the same server at the same port, which goes without saying if it is that of every server."""
    apex = Name.parse(APEX)

    assert f"dig @192.0.2.1 {APEX} SOA +tcp" == dig(questions.Server("ns1", "192.0.2.1"), apex, "SOA", "+tcp")
    assert f"dig @2001:db8::1 -p 5300 {APEX} NS" == dig(questions.Server("ns1", "2001:db8::1", 5300), apex, "NS")


def test_command_with_a_strange_name() -> None:
    """What a shell would act on, it hands to dig as it is: whoever chooses a name does not choose what is run."""
    name = Name.from_labels([b"a;`reboot` $(reboot)|&<>'\"#", b"example", b"com"])

    run = subprocess.run(
        ["sh", "-c", dig(questions.Server("ns1", "192.0.2.1"), name, "SOA").replace("dig", "printf '%s\n'", 1)],
        capture_output=True,
        text=True,
        check=True,
    )

    assert ["@192.0.2.1", str(name), "SOA"] == run.stdout.splitlines()


# Asking


async def test_answer_that_does_not_fit(clinic: Clinic) -> None:
    """What does not fit a datagram is asked for over TCP, of servers and of the resolver."""
    many = "\n".join(f"_acme-challenge.some.{APEX}. TXT {number:x}{'x' * 200}" for number in range(16))
    asker = questions.Asker(lambda _: None)
    await clinic.world.add(NS1, ZONE + many)
    await clinic.resolver(many)
    name = Name.parse(f"_acme-challenge.some.{APEX}")

    outcomes = [
        await asker.ask(questions.Server("ns1", NS1, clinic.world.port), name, "TXT"),
        await asker.ask_resolver(questions.Server("it", RESOLVER, clinic.world.port), name, "TXT"),
    ]

    assert [17, 17] == [len(out.texts(name)) for out in outcomes if isinstance(out, questions.Reply)]


async def test_waiting_is_told(clinic: Clinic) -> None:
    """Whom it waits for is told as it begins, and nobody when all have answered."""
    told: list[str] = []
    await clinic.resolver()
    asker = questions.Asker(told.append)

    await asker.ask_resolver(questions.Server("it", RESOLVER, clinic.world.port), Name.parse(APEX), "NS")

    assert [f"it ({RESOLVER}) over UDP", ""] == told
