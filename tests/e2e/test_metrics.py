"""Prometheus's view of the whole service, the nameserver's counts included."""

from __future__ import annotations

from pathlib import Path
from urllib.request import urlopen

import dns.message
import dns.query
import dns.rcode
import dns.tsigkeyring
import dns.update
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.processes import PATIENCE

from . import configuration
from .dns_client import ask
from .programs import wait_until
from .service import ZONE, Responder
from .updates import key_of

pytestmark = pytest.mark.e2e


def samples(service: Responder) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels."""
    with urlopen(f"http://127.0.0.1:{service.admin}/metrics") as response:
        text = response.read().decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_what_nameservers_count(fresh_service: Responder) -> None:
    """Queries, replies and messages of the nameserver process show up within seconds, and add up across its death."""
    token = fresh_service.mint("some.example.com")
    wait_until(lambda: ask(fresh_service.dns, token.challenge_name, "TXT").rcode() == 0, "the name is there")
    for _ in range(5):
        ask(fresh_service.dns, token.challenge_name, "TXT")
    ask(fresh_service.dns, f"absent.{ZONE}", "CAA")
    wait_until(lambda: samples(fresh_service).get(("responder_dns_queries_total", "CAA"), 0) == 1, "it is counted")
    before = samples(fresh_service)
    assert before["responder_dns_queries_total", "TXT"] >= 6
    assert before["responder_dns_replies_total", "NXDOMAIN", ZONE] >= 1
    assert before["responder_dns_messages_total", "udp"] >= 7

    refused = before.get(("responder_dns_replies_total", "REFUSED", "none"), 0)
    key = key_of(fresh_service, token)
    for message, rcode in (
        (dns.message.make_query("version.bind", "TXT", "CH"), dns.rcode.REFUSED),
        (dns.update.UpdateMessage(ZONE), dns.rcode.REFUSED),
        (
            dns.update.UpdateMessage(
                ZONE, keyring=dns.tsigkeyring.from_text({key.name: key.secret}), keyalgorithm="hmac-sha256"
            ),
            dns.rcode.NOERROR,
        ),
    ):
        assert rcode == dns.query.udp(message, "127.0.0.1", PATIENCE, fresh_service.dns).rcode()
    wait_until(
        lambda: samples(fresh_service).get(("responder_dns_replies_total", "NOERROR", "none"), 0) == 1,
        "the reply to the update is counted",
    )
    assert samples(fresh_service)["responder_dns_replies_total", "REFUSED", "none"] == refused + 2

    victim = fresh_service.child("nameserver")
    victim.kill()
    fresh_service.replacement(victim, "nameserver")
    ask(fresh_service.dns, f"absent.{ZONE}", "CAA")

    wait_until(lambda: samples(fresh_service)["responder_dns_queries_total", "CAA"] == 2, "the new one counts on")
    assert samples(fresh_service)["responder_child_restarts_total", "nameserver"] == 1


def test_types_without_a_name_here(tmp_path: Path) -> None:
    """
    Records of types that mean nothing to the service are asked for again and again, and counted: no process ends.

    The second query is the one that the quick half of the exchange answers and counts.
    """
    records = f"_443._tcp.api TLSA 3 1 1 {'ab' * 32}\nhost PTR some.example.com.\nhost TYPE65280 \\# 2 abcd"
    zone = configuration.zone(ZONE, {f"ns1.{ZONE}": ["127.0.0.1"]}, records=records)
    service = Responder(tmp_path, configuration=configuration.render(zone))
    service.start()
    try:
        before = {service.child("control"), service.child("nameserver")}
        for name, rdtype in (("_443._tcp.api", "TLSA"), ("host", "PTR"), ("host", "TYPE65280")):
            for _ in range(2):
                assert ask(service.dns, f"{name}.{ZONE}", rdtype).answer
        wait_until(lambda: samples(service).get(("responder_dns_queries_total", "other"), 0) == 6, "all are counted")

        assert before == {service.child("control"), service.child("nameserver")}
        assert samples(service)["responder_child_restarts_total", "nameserver"] == 0
    finally:
        service.stop()
