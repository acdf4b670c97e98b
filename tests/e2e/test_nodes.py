"""Several nodes on one real PostgreSQL: what one of them acknowledges, all of them serve."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dns.edns
import dns.message
import dns.query
import dns.rcode
import pytest

from tests.support.ports import free_port
from tests.support.postgres import PostgresServer, postgres_server
from tests.support.processes import PATIENCE

from . import configuration
from .dns_client import texts, values
from .programs import wait_until
from .service import ZONE, Responder, Token

__all__ = ["postgres_server"]

pytestmark = pytest.mark.e2e

HOST = "some.example.com"


LEASE = 15
"""Seconds: longer than by default, since a busy machine may be late with renewals."""

ADDRESSES = {"a": "127.0.81.1", "b": "127.0.81.2", "c": "127.0.81.3"}
"""Where the nameserver of each node is in the zone."""


def _responder(directory: Path, url: str, name: str, *, port: int, require: str = "live") -> Responder:
    directory.mkdir()
    more = f'[node]\nname = "{name}"\nlease = {LEASE}\n[propagation]\nrequire = "{require}"'
    zone = configuration.zone(ZONE, {f"{each}.{ZONE}": [address] for each, address in ADDRESSES.items()})
    listen = [f"{ADDRESSES[name]}:{port}"]
    return Responder(directory, configuration=configuration.render(zone, listen=listen, database=url, more=more))


@contextmanager
def _stopped(*responders: Responder) -> Iterator[None]:
    """The processes of these services get no time on the processor, as on a machine that hangs."""
    processes = [process for each in responders for process in each.children()]
    for process in processes:
        os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.kill(process.pid, signal.SIGCONT)


@pytest.fixture
def start(postgres_server: PostgresServer, tmp_path: Path) -> Iterator[Callable[..., Responder]]:
    """Starts a node on a database that all of them share."""
    port = free_port()
    with postgres_server.database() as url, ExitStack() as stack:

        def start(name: str, **options: str) -> Responder:
            responder = _responder(tmp_path / name, url, name, port=port, **options)
            stack.callback(responder.stop)
            responder.start()
            return responder

        yield start


def _live(responder: Responder) -> list[str]:
    return [
        node["name"] for node in json.loads(responder.cli("node", "list", "--output", "json").stdout) if node["live"]
    ]


@pytest.fixture
def three(start: Callable[..., Responder]) -> list[Responder]:
    """Three nodes that know of each other."""
    nodes = [start(name) for name in "abc"]
    wait_until(lambda: _live(nodes[0]) == ["a", "b", "c"], "all three are live")
    return nodes


def _served(responder: Responder, token: Token, *, tcp: bool) -> set[str]:
    if not tcp:
        return values(responder.dns, token.challenge_name)
    query = dns.message.make_query(token.challenge_name, "TXT")
    return texts(dns.query.tcp(query, "127.0.0.1", port=responder.dns, timeout=PATIENCE))


def test_acknowledged_is_served_by_all(three: list[Responder]) -> None:
    """A value that any node acknowledges is served by every node at once, over UDP and TCP; its removal, too."""
    token = three[0].mint(HOST)
    wait_until(lambda: all(each.introspect(token).status == 200 for each in three), "all know the token")
    for number in range(30):
        at, value = three[number % 3], f"value-{number}"
        reply = at.present(token, value)
        assert (200, ["a", "b", "c"], []) == (reply.status, reply.body["confirmed"], reply.body["unconfirmed"])
        assert all(value in _served(each, token, tcp=tcp) for each in three for tcp in (False, True))
        assert 200 == at.cleanup(token, value).status
        assert all(value not in _served(each, token, tcp=tcp) for each in three for tcp in (False, True))


def test_a_node_that_hangs(three: list[Responder]) -> None:
    """
    While a node hangs, a change is stored but not confirmed, which its caller learns with the name of that node. When
    the lease of that node has ended, the others go on without it; when it comes back, it is waited for again.
    """
    token = three[0].mint(HOST)
    with _stopped(three[2]):
        reply = three[0].present(token, "first")
        assert (503, "urn:responder:problem:unconfirmed", ["c"]) == (
            reply.status,
            reply.body["type"],
            reply.body["unconfirmed"],
        )
        assert all("first" in _served(each, token, tcp=False) for each in three[:2])
        confirmed = wait_until(
            lambda: reply.body["confirmed"] if (reply := three[1].present(token, "second")).status == 200 else None,
            "the others go on",
        )
        assert ["a", "b"] == confirmed
    wait_until(lambda: _live(three[0]) == ["a", "b", "c"], "it is back")
    assert ["a", "b", "c"] == three[0].present(token, "third").body["confirmed"]
    assert {"first", "second", "third"} == _served(three[2], token, tcp=False)


def test_any_node_is_enough(start: Callable[..., Responder]) -> None:
    """With `propagation.require = "any"`, the caller gets 200 and the names of the nodes that do not serve it yet."""
    first, second = start("a", require="any"), start("b", require="any")
    wait_until(lambda: _live(first) == ["a", "b"], "both are live")
    token = first.mint(HOST)
    with _stopped(second):
        reply = first.present(token, "value")
        assert (200, ["a"], ["b"]) == (reply.status, reply.body["confirmed"], reply.body["unconfirmed"])


def test_a_node_that_stops(start: Callable[..., Responder]) -> None:
    """A node that is stopped in order is not waited for, and can be forgotten."""
    first, second = start("a"), start("b")
    wait_until(lambda: _live(first) == ["a", "b"], "both are live")
    token = first.mint(HOST)
    assert "is running: stop it first" in first.attempt("node", "forget", "b").stderr
    second.stop()
    assert ["a"] == first.present(token, "value").body["confirmed"]
    first.cli("node", "forget", "b")
    assert ["a"] == [node["name"] for node in json.loads(first.cli("node", "list", "--output", "json").stdout)]


def _answer(responder: Responder, name: str, rdtype: str) -> tuple[str, list[int]]:
    """The rcode of an answer, and its extended errors."""
    query = dns.message.make_query(name, rdtype, use_edns=0)
    reply = dns.query.udp(query, "127.0.0.1", port=responder.dns, timeout=PATIENCE)
    errors = [int(option.code) for option in reply.options if isinstance(option, dns.edns.EDEOption)]
    return dns.rcode.to_text(reply.rcode()), errors


def test_a_node_that_may_be_stale(three: list[Responder]) -> None:
    """
    When the control process of a node hangs, its nameserver answers SERVFAIL with "Not Ready" for challenge values as
    soon as its lease ends, and all else as before. When it has caught up, it answers again, from the current values.
    """
    token = three[0].mint(HOST)
    assert 200 == three[0].present(token, "first").status
    control = three[2].child("control")
    os.kill(control.pid, signal.SIGSTOP)
    wait_until(lambda: three[0].present(token, "second").status == 200, "the others go on")
    assert ("SERVFAIL", [14]) == _answer(three[2], token.challenge_name, "TXT")
    assert [("NOERROR", [])] * 2 == [_answer(three[2], ZONE, rdtype) for rdtype in ("SOA", "NS")]
    assert {"first", "second"} == _served(three[1], token, tcp=False)
    os.kill(control.pid, signal.SIGCONT)
    wait_until(lambda: _answer(three[2], token.challenge_name, "TXT") == ("NOERROR", []), "it answers again")
    assert {"first", "second"} == _served(three[2], token, tcp=False)


def test_without_the_database_dns_goes_on(start: Callable[..., Responder], postgres_server: PostgresServer) -> None:
    """While no node has the database, none is ahead of another, and all answer for their values."""
    nodes = [start(name) for name in "abc"]
    wait_until(lambda: _live(nodes[0]) == ["a", "b", "c"], "all three are live")
    token = nodes[0].mint(HOST)
    assert 200 == nodes[0].present(token, "value").status
    postgres_server.stop()
    try:
        for each in nodes:
            wait_until(lambda each=each: _lost_its_lease(each), "its lease has ended")  # type: ignore[misc]
        for each in nodes * 5:
            wait_until(lambda each=each: _served(each, token, tcp=False) == {"value"}, "it answers")  # type: ignore[misc]
    finally:
        postgres_server.start()
    wait_until(lambda: nodes[1].present(token, "other").status == 200, "changes can be made again")


def _lost_its_lease(responder: Responder) -> bool:
    return "the lease of this node has ended" in (responder.directory / "responder.log").read_text()


def test_a_node_that_was_killed_starts_again(start: Callable[..., Responder]) -> None:
    """A node that is killed as a whole leaves its lease behind, and starts again all the same."""
    node = start("a")
    children = node.children()
    node.supervisor.kill()
    wait_until(lambda: not any(child.alive for child in children), "its children are gone, too")
    node.start()
    assert ["a"] == _live(node)


def test_two_nodes_with_one_name(start: Callable[..., Responder]) -> None:
    """The second running service with a name does not start, and the log has the reason and the fix."""
    first = start("a")
    (first.directory / "second").mkdir()
    second = Responder(
        first.directory / "second", configuration=first.configuration.replace('"127.0.81.1:', '"127.0.81.2:')
    )
    done = second.attempt("serve")
    assert 1 == done.returncode
    assert 'another running service has the node name \\"a\\" in this database' in done.stderr
    assert "node.name" in done.stderr
