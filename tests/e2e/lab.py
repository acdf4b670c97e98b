"""
A small internet on loopback addresses, every server at its port 53: root, `com`, `example.com`, the service, resolvers.

    resolver --DNS--> knot: root, com, example.com --delegates--> the service: acme.example.com on ns1 and ns2

The delegation, glue and CNAMEs in `example.com` are what the service's own commands say should be put there.
"""

from __future__ import annotations

import json
import random
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import dns.message
import dns.name
import dns.query
import pytest

from tests.support.ports import share
from tests.support.processes import PATIENCE
from tests.support.requirements import lacking

from . import configuration
from .dns_client import answers
from .knot import serving_signed_parents
from .programs import require, running, wait_until
from .service import ZONE, Responder, Token

VALUES = ("a" * 43, "b" * 43)
"""What `www.example.com` has for its challenge and for that of its wildcard."""

BIG_VALUES = tuple(f"{number:x}" * 255 for number in range(16))
"""What `big.example.com` has: as much as one name may hold, and far more than a datagram does."""

HOSTS = ("www.example.com", "big.example.com", "empty.example.com", "a.deep.example.com")
"""Those with a token; all but the first two without a value."""

_RECORDS = """
leaf.ent 60 IN TXT "leaf"
alias 60 IN CNAME leaf.ent
"""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Who is where: all in one loopback network of this lab's own. Each resolver takes the next of *resolvers*."""

    parents: str
    ns1: str
    ns2: str
    resolvers: Iterator[str]


@dataclass(frozen=True, slots=True)
class Lab:
    """The running servers. *anchor* is the root's DS record, *hints* a file that names the root's server."""

    addresses: Addresses
    service: Responder
    challenge_names: dict[str, str]
    anchor: str
    hints: Path


@dataclass(frozen=True, slots=True)
class Resolver:
    """A resolver of the lab, what it logs, and the command that asks it for its statistics."""

    address: str
    log: Path
    _control: tuple[str, ...]

    def ask(self, name: str | dns.name.Name, rdtype: str) -> dns.message.Message:
        """The resolver's reply to a stub that trusts its validation; over TCP if it does not fit a datagram."""
        query = dns.message.make_query(name, rdtype, use_edns=0, payload=1232, want_dnssec=True)
        reply, _ = dns.query.udp_with_fallback(query, self.address, timeout=PATIENCE)
        return reply

    def statistics(self) -> dict[str, str]:
        """What it has counted since it started."""
        run = subprocess.run(
            [*self._control, "stats_noreset"], capture_output=True, text=True, timeout=PATIENCE, check=True
        )
        return dict(line.split("=", 1) for line in run.stdout.splitlines())


@contextmanager
def internet(directory: Path, *, records: Sequence[str] = (), ns2_answers: bool = True) -> Iterator[Lab]:
    """
    The lab without its resolvers. Skips the test where there are no rights to port 53, or a program is missing.

    *records* are more of those of `example.com`; without *ns2_answers*, nobody listens at the address of ns2.
    """
    _require_port_53()
    addresses = _free_addresses()
    with ExitStack() as stack:
        service = Responder(directory, configuration=_configuration(addresses, ns2_answers=ns2_answers))
        stack.callback(service.stop)
        service.start()
        challenge_names, cnames = _present_values(service)
        delegation = service.cli("zone", "delegation").stdout.splitlines()
        usual = [*delegation, *cnames, f"www A {addresses.ns1}"]
        lab = Lab(addresses, service, challenge_names, anchor="", hints=Path())
        yield stack.enter_context(below_parents(lab, _below(directory, "knot"), addresses.parents, [*usual, *records]))


@contextmanager
def bare_internet(directory: Path) -> Iterator[tuple[Lab, Callable[[Sequence[str]], None]]]:
    """
    The parents alone, without a delegation. The second part starts them again with more records in `example.com`.
    """
    _require_port_53()
    addresses = _free_addresses()
    with ExitStack() as stack:
        parents = stack.enter_context(ExitStack())
        nobody = Lab(addresses, Responder(_below(directory, "nobody")), {}, anchor="", hints=Path())
        lab = parents.enter_context(below_parents(nobody, _below(directory, "knot"), addresses.parents, []))

        def delegate(records: Sequence[str]) -> None:
            parents.close()
            parents.enter_context(below_parents(nobody, _below(directory, "later"), addresses.parents, records))

        yield lab, delegate


@contextmanager
def challenge_zone(directory: Path, hostname: str) -> Iterator[Lab]:
    """
    The lab with a service whose only zone is `_acme-challenge` of *hostname*, which `example.com` delegates to it.
    """
    _require_port_53()
    addresses = _free_addresses()
    zone = configuration.zone(f"_acme-challenge.{hostname}", {"ns1.example.com": []})
    listen = [f"{addresses.ns1}:53"]
    with ExitStack() as stack:
        service = Responder(directory, configuration=configuration.render(zone, listen=listen))
        stack.callback(service.stop)
        service.start(f"_acme-challenge.{hostname}")
        delegation = service.cli("zone", "delegation").stdout.splitlines()
        records = [*delegation, f"ns1 A {addresses.ns1}", f"www A {addresses.ns1}"]
        lab = Lab(addresses, service, {}, anchor="", hints=Path())
        yield stack.enter_context(below_parents(lab, _below(directory, "knot"), addresses.parents, records))


def _configuration(addresses: Addresses, *, ns2_answers: bool) -> str:
    nameservers = {f"ns1.{ZONE}": [addresses.ns1], f"ns2.{ZONE}": [addresses.ns2]}
    listen = [f"{address}:53" for address in (addresses.ns1, addresses.ns2)[: 1 + ns2_answers]]
    zone = configuration.zone(ZONE, nameservers, records=_RECORDS)
    return configuration.render(zone, listen=listen)


@contextmanager
def below_parents(lab: Lab, directory: Path, address: str, records: Sequence[str]) -> Iterator[Lab]:
    """The same lab below other parents, which are at *address* and have these *records* in `example.com`."""
    with serving_signed_parents(directory, address, records) as anchor:
        hints = directory / "root.hints"
        hints.write_text(f". 3600000 IN NS a.root.\na.root. 3600000 IN A {address}\n")
        yield replace(lab, anchor=anchor, hints=hints)


def _present_values(service: Responder) -> tuple[dict[str, str], list[str]]:
    """Mint a token and present its values; gives the challenge name of each host, and the CNAMEs they need."""
    minted = json.loads(service.cli("token", "mint", *HOSTS, "--output", "json").stdout)
    names = {granted["hostname"]: granted["challenge_name"] for granted in minted["hostnames"]}
    token = Token(minted["id"], minted["token"], names["www.example.com"])
    wait_until(lambda: service.introspect(token).status == 200, "the new token is good")
    for host, values in (("www.example.com", VALUES), ("big.example.com", BIG_VALUES)):
        for value in values:
            reply = service.present(token, value, name=names[host])
            assert reply.status == 200, reply
    return names, [granted["cname"] for granted in minted["hostnames"]]


_RESOLVER = """
server:
    interface: {address}@53
    outgoing-interface: {address}
    access-control: 127.0.0.0/8 allow
    username: ""
    chroot: ""
    directory: "{directory}"
    pidfile: ""
    use-syslog: no
    logfile: ""
    verbosity: 2
    extended-statistics: yes
    log-servfail: yes
    val-log-level: 2
    num-threads: 1
    outgoing-range: 256
    do-ip6: no
    do-not-query-localhost: no
    root-hints: "{hints}"
    trust-anchor: "{anchor}"
    module-config: "validator iterator"
    use-caps-for-id: yes
    harden-dnssec-stripped: yes
    harden-below-nxdomain: yes
    harden-referral-path: yes
    harden-algo-downgrade: yes
    aggressive-nsec: yes
    val-sig-skew-min: 0
    val-sig-skew-max: 0
    cache-max-ttl: 0
    cache-max-negative-ttl: 0
    ede: yes
    qname-minimisation: {minimise}
    qname-minimisation-strict: {minimise}
    edns-buffer-size: {buffer}
remote-control:
    control-enable: yes
    control-interface: "{directory}/control"
    control-use-cert: no
"""


@contextmanager
def strict_resolver(lab: Lab, directory: Path) -> Iterator[Resolver]:
    """A resolver that sends as little of a name as it can, takes any NXDOMAIN at its word, and small datagrams."""
    with _resolving(lab, directory, minimise="yes", buffer=512) as resolver:
        yield resolver


@contextmanager
def plain_resolver(lab: Lab, directory: Path) -> Iterator[Resolver]:
    """A resolver with the settings that Let's Encrypt publishes: whole names, and the datagrams of DNS flag day."""
    with _resolving(lab, directory, minimise="no", buffer=1232) as resolver:
        yield resolver


@contextmanager
def _resolving(lab: Lab, directory: Path, *, minimise: str, buffer: int) -> Iterator[Resolver]:
    unbound, control = require("unbound"), require("unbound-control")
    address = next(lab.addresses.resolvers)
    configuration = directory / "unbound.conf"
    text = _RESOLVER.format(
        address=address,
        directory=directory,
        hints=lab.hints,
        anchor=lab.anchor,
        minimise=minimise,
        buffer=buffer,
    )
    configuration.write_text(text)
    with running([unbound, "-d", "-p", "-c", str(configuration)], directory) as program:
        program.wait_until_ready(lambda: answers(53, "com", "SOA", host=address))
        yield Resolver(address, directory / "unbound.log", (control, "-c", str(configuration)))


def _require_port_53() -> None:
    """Skip the test, or fail it where RESPONDER_REQUIRE_ALL=1, if this user may not answer at port 53."""
    try:
        with socket.socket(type=socket.SOCK_DGRAM) as probe:
            probe.bind((f"127.{random.randrange(64, 127)}.255.254", 53))
    except PermissionError:
        lacking("only root may listen at port 53")


def _free_addresses() -> Addresses:
    """Addresses at whose port 53 nobody listens; another run of these tests may be using some network or other."""
    networks = share(range(64, 127))
    for network in random.sample(networks, len(networks)):
        parents, ns1, ns2, *resolvers = (f"127.{network}.0.{host}" for host in (53, 1, 2, *range(100, 130)))
        if all(map(_is_free, (parents, ns1, ns2, *resolvers))):
            return Addresses(parents, ns1, ns2, iter(resolvers))
    pytest.fail("somebody listens at port 53 of every loopback address")


def _is_free(address: str) -> bool:
    with socket.socket(type=socket.SOCK_DGRAM) as udp, socket.socket(type=socket.SOCK_STREAM) as tcp:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            udp.bind((address, 53))
            tcp.bind((address, 53))
        except OSError:
            return False
    return True


def _below(directory: Path, name: str) -> Path:
    """A new directory in *directory*."""
    (directory / name).mkdir()
    return directory / name
