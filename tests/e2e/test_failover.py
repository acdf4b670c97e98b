"""
Nodes of one real PostgreSQL cluster, under load, while something of it fails.

What was acknowledged is kept, nothing else is served, and every query is answered by some nameserver: a history of all
calls and queries is checked for that after each test.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from . import load
from .dns_client import serial, values
from .load import Load
from .nodes import START, mint, running_nodes, wait_until_granted
from .pgbouncer import pooler
from .programs import Process, wait_until
from .replication import Cluster, new_cluster
from .service import ZONE, Responder, Token

pytestmark = [pytest.mark.e2e, pytest.mark.serial]

HOSTS = [f"host{number}.example.com" for number in range(load.CLIENTS)]

_CANCEL = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
"""Ends each wait for replication, as an administrator may do. Its client gets success, and a warning."""

STOPPED = 5.0
"""Seconds that a node is stopped for: about as long as its lease, so it comes back when it may be stale."""


@dataclass(slots=True)
class World:
    """Nodes by name, on a cluster, with tokens for all clients."""

    cluster: Cluster
    nodes: dict[str, Responder]
    tokens: list[Token]
    directory: Path
    database: str

    def live(self) -> list[str]:
        """The nodes that have a live lease."""
        server = self.cluster.primary
        now = "extract(epoch FROM clock_timestamp())"
        return server.execute(f"SELECT name FROM nodes WHERE lease_until > {now} ORDER BY name", self.database).split()

    def wait_until_live(self) -> None:
        """Return when all nodes have their lease."""
        wait_until(lambda: self.live() == list(self.nodes), "all nodes are live")

    @contextmanager
    def load(self, *, lost: bool = False) -> Iterator[Load]:
        """Clients at work; at the end all nodes are back, agree, and the history is checked."""
        with load.load(self.nodes, self.tokens) as working:
            yield working
            for name in self.nodes:
                working.wait_for(3, at=name)
        self.wait_until_live()
        history = working.history
        load.settle(history, self.nodes, self.tokens)
        history.write(self.directory / "history.jsonl")
        load.expect_kept(history, lost=self.lost_values() if lost else None)

    def lost_values(self) -> frozenset[str]:
        """The values that the nodes have named as lost by the database."""
        return frozenset(value for node in self.nodes.values() for value in lost_values(node))


def lost_values(node: Responder) -> list[str]:
    """The values that a node has named as lost by the database."""
    lines = [json.loads(line) for line in node.log().splitlines() if line.startswith("{")]
    return [each.split()[1] for line in lines if "has lost values" in line["event"] for each in line["values"]]


@contextmanager
def _world(cluster: Cluster, directory: Path, database: str, names: str = "ab") -> Iterator[World]:
    cluster.primary.execute(f"CREATE DATABASE {database}")
    with running_nodes(directory, cluster.url(database), names) as nodes:
        tokens = mint(nodes["a"], HOSTS)
        wait_until_granted(nodes, tokens)
        yield World(cluster, nodes, tokens, directory, database)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with new_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def shared(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Two nodes for all tests that leave the cluster as it was."""
    with _world(cluster, tmp_path_factory.mktemp("nodes"), "shared") as world:
        yield world


@pytest.fixture
def world(shared: World) -> Iterator[World]:
    """Two nodes, both of which are well, and a cluster with a standby."""
    shared.wait_until_live()
    yield shared
    if not shared.cluster.has_standby():
        shared.cluster.replace_standby()


def test_the_database_is_killed_and_restarts(world: World) -> None:
    with world.load() as working:
        world.cluster.primary.kill()
        world.cluster.primary.start()
        working.wait_for(30)
        world.cluster.wait_for_standby()


def test_all_connections_are_cut(world: World) -> None:
    with world.load() as working:
        for _ in range(3):
            world.cluster.primary.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'responder%'"
            )
            working.wait_for(20)


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGTERM], ids=["hangs", "is-terminated"])
def test_the_connection_for_hints(world: World, number: signal.Signals) -> None:
    backends = world.cluster.primary.execute(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'responder hints'"
    ).split()
    with world.load() as working:
        for pid in map(int, backends):
            os.kill(pid, number)
        try:
            working.wait_for(30)
        finally:
            for pid in map(int, backends):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)


def test_the_standby_stops_under_synchronous_replication(world: World) -> None:
    """A commit whose replication is not confirmed is not acknowledged, whoever ends the wait for it."""
    cluster = world.cluster
    cluster.replicate(synchronously=True)
    receiver = cluster.standby.process("walreceiver")
    try:
        with world.load() as working:
            os.kill(receiver.pid, signal.SIGSTOP)
            wait_until(
                lambda: cluster.primary.execute(_CANCEL) and any(map(_is_unconfirmed, world.nodes.values())),
                "a node learns that a commit whose wait was ended is not confirmed",
            )
            os.kill(receiver.pid, signal.SIGCONT)
            working.wait_for(20)
    finally:
        with suppress(ProcessLookupError):
            os.kill(receiver.pid, signal.SIGCONT)
        cluster.replicate(synchronously=False)


def test_a_node_is_killed(world: World) -> None:
    node = world.nodes["b"]
    with world.load() as working:
        children = node.children()
        node.supervisor.kill()
        wait_until(lambda: not any(child.alive for child in children), "its children are gone, too")
        wait_until(lambda: world.live() == ["a"], "the others go on")
        working.wait_for(20)
        node.begin_serving()
        wait_until(node.ready, "it is back", seconds=START)


def _is_unconfirmed(node: Responder) -> bool:
    return "has not confirmed a commit" in node.log()


def _stop_for_a_while(processes: list[Process], working: Load) -> None:
    for each in processes:
        os.kill(each.pid, signal.SIGSTOP)
    begun = time.monotonic()
    try:
        wait_until(lambda: time.monotonic() - begun > STOPPED, "the processes are stopped long enough")
    finally:
        for each in processes:
            with suppress(ProcessLookupError):  # the supervisor ends what hangs for much longer
                os.kill(each.pid, signal.SIGCONT)
    working.wait_for(20)


def test_a_node_hangs_and_goes_on(world: World) -> None:
    with world.load() as working:
        _stop_for_a_while([*world.nodes["b"].children()], working)


def test_a_control_process_hangs_and_goes_on(world: World) -> None:
    with world.load() as working:
        _stop_for_a_while([world.nodes["b"].child("control")], working)


def test_a_control_process_is_killed(world: World) -> None:
    node = world.nodes["b"]
    with world.load() as working:
        before = node.child("control")
        before.kill()
        node.replacement(before, "control")
        working.wait_for(20)


def test_a_nameserver_is_killed(world: World) -> None:
    node = world.nodes["a"]
    with world.load() as working:
        before = node.child("nameserver")
        before.kill()
        node.replacement(before, "nameserver")
        working.wait_for(20)


@pytest.mark.parametrize("hangs", [False, True], ids=["dead", "hanging"])
def test_the_standby_takes_over(world: World, *, hangs: bool) -> None:
    """The primary is gone, or hangs, and the standby is promoted. Replication is synchronous, so nothing is lost."""
    cluster = world.cluster
    cluster.replicate(synchronously=True)
    with world.load() as working:
        if hangs:
            cluster.primary.signal(signal.SIGSTOP)
        else:
            cluster.primary.kill()
        cluster.take_over()
        working.wait_for(30)


def test_the_standby_that_takes_over_is_behind(world: World) -> None:
    """With asynchronous replication, changes may be lost: lost values are named, and serials go on."""
    cluster, nodes = world.cluster, world.nodes.values()
    with world.load(lost=True) as working:
        cluster.detach_standby()
        working.wait_for(20)
        before = max(serial(node.dns, ZONE) for node in nodes)
        cluster.primary.kill()
        cluster.take_over()
        working.wait_for(20)
        assert min(serial(node.dns, ZONE) for node in nodes) > before
    assert world.lost_values()


def test_a_pooler_in_transaction_mode(cluster: Cluster, tmp_path: Path) -> None:
    """Nodes work with PgBouncer in front, and listen past it; with its connections cut, they go on."""
    cluster.primary.execute("CREATE DATABASE pooled")
    with pooler(cluster.primary.port) as (url, _):
        url = f"{url}/pooled?statement_cache_size=0&prepared_statement_cache_size=0"
        listen = f'listen_url = "{cluster.url("pooled")}"'
        with running_nodes(tmp_path, url, "ab", database=listen) as nodes:
            tokens = mint(nodes["a"], HOSTS)
            wait_until_granted(nodes, tokens)
            world = World(cluster, nodes, tokens, tmp_path, "pooled")
            with world.load() as working:
                working.wait_for(20)
                cluster.primary.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'pooled'"
                )
                working.wait_for(20)
            assert all("SQLSTATE" not in node.log() for node in nodes.values())


def test_an_older_copy_is_restored(world: World) -> None:
    """A copy restored under running nodes is what they serve, with a higher serial, and what is gone is named."""
    cluster, nodes, token = world.cluster, world.nodes, world.tokens[0]
    kept = values(nodes["a"].dns, token.challenge_name)
    copy = cluster.primary.dump(world.database)
    for value in ("first", "second"):
        assert 200 == nodes["b"].present(token, value).status
    before = max(serial(node.dns, ZONE) for node in nodes.values())
    cluster.primary.restore(copy, world.database)
    for node in nodes.values():
        wait_until(lambda node=node: values(node.dns, token.challenge_name) == kept, "it serves the copy")  # type: ignore[misc]
        assert serial(node.dns, ZONE) > before
    wait_until(lambda: {"first", "second"} <= {*world.lost_values()}, "they are named")
    reply = wait_until(
        lambda: reply if (reply := nodes["a"].present(token, "third")).status == 200 else None, "changes can be made"
    )
    assert ["a", "b"] == reply.body["confirmed"]
    assert [kept | {"third"}] * 2 == [values(node.dns, token.challenge_name) for node in nodes.values()]
