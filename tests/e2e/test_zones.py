"""Zones that were renamed, removed or given other records: what was acknowledged is served, and serials only grow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.postgres import PostgresServer

from . import configuration
from .dns_client import ask, serial, values
from .programs import wait_until
from .service import ZONE, Responder, Token
from .updates import key_of, nsupdate

pytestmark = pytest.mark.e2e

VALUE, OTHER = "a" * 43, "b" * 43

NOT_IN_CONFIGURATION = "a zone of the database is not in the configuration"


def configured(*zones: str, records: str = "") -> str:
    """A configuration with these zones, each with its nameserver and *records*."""
    return configuration.render(
        *(configuration.zone(zone, {f"ns1.{zone}": ["127.0.0.1"]}, records=records) for zone in zones)
    )


class Restarted:
    """A service that is stopped, configured anew, and started again."""

    def __init__(self, service: Responder) -> None:
        self.service = service

    def with_zones(self, *zones: str, records: str = "") -> None:
        self.service.stop()
        self.service.configure(configured(*zones, records=records))
        self.service.start(zones[0])


@pytest.fixture
def restarted(tmp_path: Path) -> Iterator[Restarted]:
    service = Responder(tmp_path)
    try:
        yield Restarted(service)
    finally:
        service.stop()


def listed(service: Responder, what: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(service.cli(what, "list", "--output", "json").stdout)
    return found


def logged(service: Responder, event: str) -> list[dict[str, Any]]:
    lines = (service.directory / "responder.log").read_text().splitlines()
    return [entry for line in lines if line.startswith("{") and event in (entry := json.loads(line))["event"]]


RENAMED = {
    "to its parent": ("acme.example.com", "example.com", "some.example.com"),
    "to its child": ("example.com", "acme.example.com", "api.acme.example.com"),
    "to another": ("acme.example.com", "acme.example.net", "some.example.com"),
}


@pytest.mark.parametrize(("before", "after", "host"), RENAMED.values(), ids=RENAMED.keys())
def test_renamed(restarted: Restarted, before: str, after: str, host: str) -> None:
    """
    A token of a zone that was renamed is refused by every route, listed as not served and reported at the start.
    The zone's new name can be used, and with its old name everything is as before.
    """
    service = restarted.service
    restarted.with_zones(before)
    token = service.mint(host)
    assert 200 == service.present(token, VALUE).status
    assert [] == logged(service, NOT_IN_CONFIGURATION)

    restarted.with_zones(after)

    refused(service, token, before, after)
    (warning,) = logged(service, NOT_IN_CONFIGURATION)
    assert ("warning", before, 1, 1) == tuple(warning[key] for key in ("level", "zone", "hostnames", "tokens"))
    assert (["not served"], [False]) == (
        [each["state"] for each in listed(service, "token")],
        [each["served"] for each in listed(service, "value")],
    )
    assert {"values": [], "hostnames": [False]} == introspected(service, token)
    fresh = service.mint(f"new.{after}")
    assert 200 == service.present(fresh, OTHER).status
    assert {OTHER} == values(service.dns, fresh.challenge_name)
    moved = service.attempt("token", "mint", host)
    assert 1 == moved.returncode
    assert f"{host} already has the challenge name {token.challenge_name} in the zone {before}" in moved.stderr

    restarted.with_zones(before)

    assert {VALUE} == values(service.dns, token.challenge_name)
    assert 200 == service.present(token, OTHER).status
    assert {VALUE, OTHER} == values(service.dns, token.challenge_name)
    assert {"active", "not served"} == {each["state"] for each in listed(service, "token")}


def refused(service: Responder, token: Token, before: str, after: str) -> None:
    """By HTTP in both dialects, and by DNS update whichever zone that names."""
    reply = service.present(token, OTHER)
    assert (403, "urn:responder:problem:not-served") == (reply.status, reply.body["type"])
    assert f"{token.challenge_name} is in the zone {before}, which is not served here" in reply.body["detail"]
    assert 403 == service.cleanup(token, VALUE).status
    label = token.challenge_name.removesuffix(f".{before}")
    assert 401 == service.acme_dns_update(token, label, OTHER).status
    key = key_of(service, token).bind(service.directory)
    for zone in (before, after):
        run = nsupdate(
            key,
            f"server 127.0.0.1 {service.dns}",
            f"zone {zone}",
            f"update add {token.challenge_name}. 1 TXT {OTHER}",
            "send",
        )
        assert "NOTAUTH" in run.stdout or "NOTZONE" in run.stdout, run.stdout
    assert set() == values(service.dns, token.challenge_name)


def introspected(service: Responder, token: Token) -> dict[str, Any]:
    body = service.introspect(token).body
    return {"values": body["values"], "hostnames": [each["served"] for each in body["hostnames"]]}


def test_removed(restarted: Restarted) -> None:
    """A token with a hostname in each of two zones goes on with the one whose zone stays."""
    service = restarted.service
    restarted.with_zones("acme.example.com", "acme.example.net")
    here = service.mint("some.example.com")
    there = service.cli("token", "allow", here.id, "some.example.net", "--output", "json")
    gone = json.loads(there.stdout)["hostnames"][1]["challenge_name"]
    for name in (here.challenge_name, gone):
        assert 200 == service.present(here, VALUE, name=name).status

    restarted.with_zones("acme.example.com")

    assert 200 == service.present(here, OTHER).status
    assert {VALUE, OTHER} == values(service.dns, here.challenge_name)
    assert 403 == service.present(here, OTHER, name=gone).status
    (token,) = listed(service, "token")
    assert ("partly served", [True, False]) == (token["state"], [each["served"] for each in token["hostnames"]])


@contextmanager
def two_nodes(server: PostgresServer, directory: Path) -> Iterator[tuple[Node, Node]]:
    """Two nodes that are to share a database; neither is configured yet."""
    with server.database() as url, ExitStack() as stack:
        nodes = []
        for name in ("a", "b"):
            (directory / name).mkdir()
            nodes.append(node := Node(Responder(directory / name), name, url))
            stack.callback(node.service.stop)
        yield nodes[0], nodes[1]


@dataclass
class Node:
    """A service with a name, on a database that it shares."""

    service: Responder
    name: str
    url: str

    def start(self, zone: str, records: str = "") -> Responder:
        """Stop it if it runs, and start it with this zone."""
        self.service.stop()
        text = configured(zone, records=records).replace("sqlite+aiosqlite:///{database}", self.url)
        self.service.configure(f'{text}\n[node]\nname = "{self.name}"\n')
        self.service.start(zone)
        return self.service


def test_two_nodes_with_different_zones(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """Each of two nodes on one database takes what is for its own zone, and refuses what is for the other's."""
    with two_nodes(postgres_server, tmp_path) as (first, second):
        child, parent = first.start("acme.example.com"), second.start("example.com")
        token = child.mint("some.example.com")

        assert 200 == child.present(token, VALUE).status
        reply = parent.present(token, OTHER)

        assert (403, "urn:responder:problem:not-served") == (reply.status, reply.body["type"])
        assert {VALUE} == values(child.dns, token.challenge_name)
        assert set() == values(parent.dns, token.challenge_name)
        assert (["active"], ["not served"]) == tuple(
            [each["state"] for each in listed(node, "token")] for node in (child, parent)
        )
        second.start("example.com")
        (warning,) = logged(parent, NOT_IN_CONFIGURATION)
        assert ("acme.example.com", 1, 1) == tuple(warning[key] for key in ("zone", "hostnames", "tokens"))


# Static records

A, OTHER_A = "api 60 IN A 192.0.2.1", "api 60 IN A 192.0.2.99"


def address(service: Responder) -> str:
    """What the service has as address of the API."""
    (rrset,) = ask(service.dns, f"api.{ZONE}", "A").answer
    return str(rrset[0])


def test_static_records(restarted: Restarted) -> None:
    """Other static records are another serial after the restart; the same ones keep it, and so do commands."""
    service = restarted.service
    restarted.with_zones(ZONE, records=A)
    first = serial(service.dns, ZONE)
    restarted.with_zones(ZONE, records=A)
    assert ("192.0.2.1", first) == (address(service), serial(service.dns, ZONE))

    service.configure(configured(ZONE, records=OTHER_A))
    service.cli("token", "list")
    assert first == serial(service.dns, ZONE)
    restarted.with_zones(ZONE, records=OTHER_A)

    second = serial(service.dns, ZONE)
    assert "192.0.2.99" == address(service)
    assert first < second
    restarted.with_zones(ZONE, records=A)
    assert second < serial(service.dns, ZONE)


def test_static_records_of_two_nodes(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """
    The records are changed on one node after the other. What a node serves with a serial, it always served with it; in
    the end both serve the same, with a serial that no other content ever had.
    """
    with two_nodes(postgres_server, tmp_path) as nodes:
        a, b = (node.start(ZONE, records=A) for node in nodes)
        seen: dict[str, dict[int, set[str]]] = {"a": {}, "b": {}}

        def look() -> int:
            """The serial that both serve; notes what goes with it."""
            both = serial(a.dns, ZONE)
            wait_until(lambda: serial(b.dns, ZONE) == both, "both nodes serve the same serial")
            for name, node in (("a", a), ("b", b)):
                seen[name].setdefault(both, set()).add(address(node))
            return both

        first = look()
        nodes[0].start(ZONE, records=OTHER_A)
        second = look()
        nodes[1].start(ZONE, records=OTHER_A)
        wait_until(lambda: serial(a.dns, ZONE) != second, "the other node follows")
        third = look()

        assert first < second < third
        assert seen == {
            "a": {first: {"192.0.2.1"}, second: {"192.0.2.99"}, third: {"192.0.2.99"}},
            "b": {first: {"192.0.2.1"}, second: {"192.0.2.1"}, third: {"192.0.2.99"}},
        }
        nodes[0].start(ZONE, records=OTHER_A)
        assert third == look()
