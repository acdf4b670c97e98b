"""
The service and NSD, serving the same random zones, answer thousands of random queries alike.

Replies are compared as dnspython reads them, section by section, flags and EDNS included. Where the two may differ,
the difference has a name in `differences`, a reason, and says what our reply has to be instead.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import dns.message
import dns.name
import dns.query
import pytest

from tests.support.processes import PATIENCE

from . import configuration, knot, nsd
from .differences import compare
from .programs import wait_until
from .random_dns import APEXES, RandomZone, random_queries, random_zone
from .replies import Client
from .service import ZONE, Responder, Token

pytestmark = pytest.mark.e2e

SEED = int(os.environ.get("DIFFERENTIAL_SEED", "8"))
"""Of the zones and the queries. Another one is another test; a failure names the one that it needs."""

QUERIES = 3000

NSID = "the-same"


@pytest.fixture
def zones() -> list[RandomZone]:
    """Random zones."""
    return [random_zone(random.Random(f"{SEED} {apex}"), apex) for apex in APEXES]


@pytest.fixture
def service(zones: list[RandomZone], tmp_path: Path) -> Iterator[Responder]:
    """The service with these zones."""
    responder = Responder(tmp_path, configuration=_configuration(zones))
    try:
        responder.start()
        yield responder
    finally:
        responder.stop()


def test_differential(zones: list[RandomZone], service: Responder, tmp_path: Path) -> None:
    """Every reply is the same as NSD's, or different in a way that has a name; most are the same."""
    names = _present(service, zones)
    texts = _as_shown(service)
    asked = _with_names_above([*_owners(texts), *map(dns.name.from_text, names.values())])
    for zone in zones:
        texts[zone.apex] += "".join(_marked(names[host]) for host, values in zone.values.items() if not values)
    outcomes: Counter[str] = Counter()
    unlike = []
    with nsd.serving_alike(tmp_path, texts, nsid=NSID) as port, Client(service.dns) as us, Client(port) as them:
        for query in islice(random_queries(random.Random(SEED), asked), QUERIES):
            outcome = compare(query, us, them)
            outcomes[outcome or "unlike"] += 1
            if outcome is None:
                unlike.append(f"{query}\n  ours:   {us.ask(query)}\n  theirs: {them.ask(query)}")

    print(f"DIFFERENTIAL_SEED={SEED}", *(f"{count:5} {outcome}" for outcome, count in outcomes.most_common()), sep="\n")
    assert not unlike, "\n".join(unlike[:5])
    assert outcomes["equal"] > 0.6 * QUERIES


@pytest.mark.parametrize("size", [None, 512, 700, 1232])
def test_nameservers_whose_addresses_do_not_fit(tmp_path: Path, size: int | None) -> None:
    """Thirteen nameservers of two addresses: all are named, and as many addresses as fit, as NSD and Knot answer."""
    nameservers = {f"nameserver-{n}.{ZONE}": [f"192.0.2.{n}", f"2001:db8::{n}"] for n in range(1, 14)}
    query = dns.message.make_query(ZONE, "NS", use_edns=-1 if size is None else 0, payload=size or 0)
    service = Responder(tmp_path, configuration=configuration.render(configuration.zone(ZONE, nameservers)))
    service.start()
    try:
        text = _as_shown(service)
        with nsd.serving_alike(tmp_path, text) as nsd_port, knot.serving_alike(tmp_path, text) as knot_port:
            ours, *theirs = (
                dns.query.udp(query, "127.0.0.1", PATIENCE, port) for port in (service.dns, nsd_port, knot_port)
            )
    finally:
        service.stop()

    for reply in theirs:
        assert (reply.rcode(), reply.flags, reply.answer) == (ours.rcode(), ours.flags, ours.answer)
    assert 13 == len(ours.answer[0])
    assert min(_addresses(reply) for reply in theirs) <= _addresses(ours)
    assert (size == 1232) == (_addresses(ours) == 26)


def _addresses(reply: dns.message.Message) -> int:
    return sum(map(len, reply.additional))


def _as_shown(service: Responder) -> dict[str, str]:
    """The text of each zone, as the service's own command prints it."""
    shown = json.loads(service.cli("zone", "show", "--output", "json").stdout)
    return {zone["zone"]: "".join(f"{record}\n" for record in zone["records"]) for zone in shown}


def _marked(challenge_name: str) -> str:
    """
    A record that makes the name exist without data: NSD knows no name without records but empty non-terminals.

    Nobody asks for the name of this record itself, which the service does not have.
    """
    return f"only-nsd-has-this.{challenge_name}. 1 IN TXT mark\n"


def _owners(texts: dict[str, str]) -> set[dns.name.Name]:
    return {dns.name.from_text(line.split()[0]) for text in texts.values() for line in text.splitlines()}


def _with_names_above(names: list[dns.name.Name]) -> list[bytes]:
    """These names, and all that they are below, each once, in wire form."""
    everything = {name.split(depth)[1] for name in names for depth in range(1, len(name.labels) + 1)}
    return sorted(wire for name in everything if (wire := name.to_wire()) is not None)


def _present(service: Responder, zones: list[RandomZone]) -> dict[str, str]:
    """Mint one token for all hostnames and present their values; gives their challenge names."""
    values = {host: wanted for zone in zones for host, wanted in zone.values.items()}
    minted = json.loads(service.cli("token", "mint", *values, "--output", "json").stdout)
    names = {granted["hostname"]: granted["challenge_name"] for granted in minted["hostnames"]}
    token = Token(minted["id"], minted["token"], "")
    wait_until(lambda: service.introspect(token).status == 200, "the new token is good")
    for host, wanted in values.items():
        for value in wanted:
            reply = service.present(token, value, name=names[host])
            assert reply.status == 200, reply
    return names


def _configuration(zones: list[RandomZone]) -> str:
    hostmaster = "host.master@example.com"
    return configuration.render(
        *(configuration.zone(z.apex, z.nameservers, records=z.records, hostmaster=hostmaster) for z in zones),
        dns=f'nsid = "{NSID}"',
        rate_limit="replies_per_second = 0",
    )
