"""Zones that were renamed, removed or given other records: what was acknowledged is served, and serials only grow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.postgres import PostgresServer

from . import configuration
from .dns_client import values
from .service import Responder, Token
from .updates import key_of, nsupdate

pytestmark = pytest.mark.e2e

VALUE, OTHER = "a" * 43, "b" * 43

NOT_IN_CONFIGURATION = "a zone of the database is not in the configuration"


def configured(*zones: str) -> str:
    """A configuration with these zones."""
    return configuration.render(*(configuration.zone(zone, {f"ns1.{zone}": ["127.0.0.1"]}) for zone in zones))


class Restarted:
    """A service that is stopped, configured anew, and started again."""

    def __init__(self, service: Responder) -> None:
        self.service = service

    def with_zones(self, *zones: str) -> None:
        self.service.stop()
        self.service.configure(configured(*zones))
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
    assert f"{host} already publishes at {token.challenge_name} in the zone {before}" in moved.stderr

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


def test_two_nodes_with_different_zones(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """Each of two nodes on one database takes what is for its own zone, and refuses what is for the other's."""
    with postgres_server.database() as url, ExitStack() as stack:
        nodes = []
        for zone in ("acme.example.com", "example.com"):
            directory = tmp_path / zone
            directory.mkdir()
            text = configured(zone).replace("sqlite+aiosqlite:///{database}", url)
            nodes.append(node := Responder(directory, configuration=text))
            stack.callback(node.stop)
            node.start(zone)
        child, parent = nodes
        token = child.mint("some.example.com")

        assert 200 == child.present(token, VALUE).status
        reply = parent.present(token, OTHER)

        assert (403, "urn:responder:problem:not-served") == (reply.status, reply.body["type"])
        assert {VALUE} == values(child.dns, token.challenge_name)
        assert set() == values(parent.dns, token.challenge_name)
        assert (["active"], ["not served"]) == tuple(
            [each["state"] for each in listed(node, "token")] for node in (child, parent)
        )
        parent.stop()
        parent.start("example.com")
        (warning,) = logged(parent, NOT_IN_CONFIGURATION)
        assert ("acme.example.com", 1, 1) == tuple(warning[key] for key in ("zone", "hostnames", "tokens"))
