"""Nodes on one real PostgreSQL: who is live, what each serves, and when a change is confirmed by all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import asyncpg  # type: ignore[import-untyped]
import pytest
import structlog

from responder import metrics
from responder.nodes import Confirmation, Membership
from responder.nodes.confirmation import confirm
from responder.nodes.membership import SILENT, Myself
from responder.store import Hint, Store
from tests.support.postgres import PostgresServer, postgres_server
from tests.support.processes import eventually
from tests.support.stores import APEX

__all__ = ["postgres_server"]

LONG = 60.0
"""Seconds: more than anything here takes, however busy the machine is."""


@dataclass
class OneNode:
    """A node as far as this is about it: its store, its membership, and the hints that it heard."""

    store: Store
    membership: Membership
    heard: list[Hint]
    tasks: list[asyncio.Task[None]]

    async def stop(self) -> None:
        """As `kill -9` would: the lease stays until its end."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.store.close()


@asynccontextmanager
async def node(url: str, name: str, *, listen_url: str | None = None, lease: float = LONG) -> AsyncIterator[OneNode]:
    """A running node *name* on the database at *url*."""
    store = await Store.open(url)
    myself = Myself(
        name=name,
        instance=f"instance of {name}",
        address="127.0.0.1",
        version="0.1.0",
        schema_min="0005",
        schema_max="0005",
        statics={APEX: "5f"},
        lease=timedelta(seconds=lease),
    )
    membership, heard = Membership(store, myself), list[Hint]()
    await membership.renew()

    def hear(hint: Hint) -> None:
        heard.append(hint)
        membership.look()

    hints = store.hints(listen_url, name=name, instance=myself.instance, heard=hear)
    tasks = [asyncio.create_task(membership.run())]
    if hints is not None:
        membership.share = lambda: hints.send(Hint.APPLIED)
        tasks.append(asyncio.create_task(hints.run()))
    running = OneNode(store, membership, heard, tasks)
    try:
        if hints is not None:
            await eventually(lambda: heard, f"{name} listens")
        yield running
    finally:
        await running.stop()


@pytest.fixture
def url(postgres_server: PostgresServer) -> Iterator[str]:
    """A new database."""
    with postgres_server.database() as url:
        asyncio.run(Store.upgrade(url))
        yield url


@pytest.fixture
async def three(url: str) -> AsyncIterator[list[OneNode]]:
    """Three nodes that know of each other, and serve 7."""
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(node(url, name)) for name in "abc"]
        for each in nodes:
            each.membership.applied({APEX: 7})
        for each in nodes:
            await eventually(partial(knows, each, 2), "all know of each other")
        yield nodes


def knows(one: OneNode, number: int, *, serial: int = 7) -> bool:
    """Whether *one* knows of as many others that serve *serial*."""
    return number == sum(other.zones[APEX].serial >= serial for other in one.membership.others(APEX))


async def test_confirmed_by_all(three: list[OneNode]) -> None:
    """A change is confirmed as soon as every node has applied it, and by nobody before."""
    waiting = asyncio.create_task(confirm(three[0].membership, APEX, 8, deadline=LONG))
    three[1].membership.applied({APEX: 8})
    await eventually(lambda: three[0].membership.others(APEX)[0].zones[APEX].serial == 8, "b has told a")
    assert not waiting.done()
    three[2].membership.applied({APEX: 9})
    assert Confirmation(confirmed=("a", "b", "c"), unconfirmed=()) == await waiting


async def test_unconfirmed(three: list[OneNode]) -> None:
    """A node that does not apply a change in time is named, and so are those that did."""
    three[1].membership.applied({APEX: 8})
    await eventually(lambda: three[0].membership.others(APEX)[0].zones[APEX].serial == 8, "b has told a")
    found = await confirm(three[0].membership, APEX, 8, deadline=0.01)
    assert Confirmation(confirmed=("a", "b"), unconfirmed=("c",)) == found


async def test_hints_are_heard_without_a_renewal(three: list[OneNode]) -> None:
    """What one applies is read by the others at once, long before they look by themselves."""
    for each in three:
        each.membership.interval = LONG
        each.membership.look()
    three[1].membership.applied({APEX: 8})
    for each in (three[0], three[2]):
        await eventually(partial(knows, each, 1, serial=8), "they have read of it")
        assert Hint.APPLIED in each.heard


async def test_a_node_whose_lease_ended_is_not_waited_for(url: str) -> None:
    """A node that was killed is waited for until its lease ends, and no longer; one that left, not at all."""
    async with node(url, "a") as first, node(url, "b", lease=0.5) as second, node(url, "c") as third:
        for each in (first, second, third):
            each.membership.applied({APEX: 7})
        await eventually(lambda: len(first.membership.others(APEX)) == 2, "a knows of both")
        await second.stop()
        for task in third.tasks:
            task.cancel()
        await third.membership.leave()
        first.membership.applied({APEX: 8})
        assert Confirmation(confirmed=("a",), unconfirmed=()) == await confirm(first.membership, APEX, 8, deadline=LONG)


async def test_a_node_that_may_not_have_noticed_yet(url: str) -> None:
    """
    A node whose lease has ended without its leaving may answer from what it has, until it can have noticed that this
    one is ahead: it is waited for until then.
    """
    async with node(url, "a") as first, node(url, "b", lease=0.5) as second:
        for each in (first, second):
            each.membership.applied({APEX: 7})
        await eventually(
            lambda: [7] == [other.zones[APEX].serial for other in first.membership.others(APEX)],
            "a knows what b serves",
        )
        await second.stop()
        await eventually(lambda: not first.membership.nodes[1].is_live, "its lease has ended")
        now = first.membership.clock()
        first.membership.clock = lambda: now
        first.membership.applied({APEX: 8})
        waiting = asyncio.create_task(confirm(first.membership, APEX, 8, deadline=LONG))
        first.membership.clock = lambda: now + SILENT - 0.1
        assert ["b"] == [other.name for other in first.membership.others(APEX)]
        assert not waiting.done()
        first.membership.clock = lambda: now + SILENT + 0.1
        assert Confirmation(confirmed=("a",)) == await waiting
        first.membership.applied({APEX: 9})
        assert Confirmation(confirmed=("a",)) == await confirm(first.membership, APEX, 9, deadline=LONG)


@pytest.mark.parametrize(
    ("ahead", "condition"), [(0.0, "ok"), (-5.0, "more than a second"), (300.0, "more than a minute")]
)
async def test_clocks_that_differ(url: str, monkeypatch: pytest.MonkeyPatch, *, ahead: float, condition: str) -> None:
    """What differs between the clock of a node and the database's is reported, and measured."""
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + ahead)
    async with node(url, "a") as first:
        first.membership._compare_clocks(took=0.0)  # so that a busy machine does not count as a clock
        assert condition in first.membership.clock_condition
        samples = {sample.name: sample.value for family in metrics.REGISTRY.collect() for sample in family.samples}
        assert abs(samples["responder_clock_ahead_seconds"] - ahead) < LONG


async def test_the_lease_is_known_to_be_lost(url: str) -> None:
    """A node that cannot renew its lease knows it before the others go on without it."""
    async with node(url, "a", lease=3) as first:
        assert first.membership.is_current
        first.tasks[0].cancel()
        now = first.membership.clock()
        first.membership.clock = lambda: now + 2
        assert not first.membership.is_current
        assert (await first.store.nodes())[0].is_live


async def test_the_listening_connection_is_cut(three: list[OneNode], url: str) -> None:
    """A node whose connections for hints are cut makes new ones, and looks once more after that."""
    first = three[0]
    first.heard.clear()

    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'responder hints' AND datname = current_database()"
    )
    await connection.close()
    await eventually(lambda: Hint.COMMITTED in first.heard, "it listens again")
    three[1].membership.applied({APEX: 8})
    await eventually(lambda: Hint.APPLIED in first.heard, "hints are heard again")


async def test_another_database_to_listen_on(url: str, postgres_server: PostgresServer) -> None:
    """A listening URL of another database is reported, and the nodes go on by looking."""
    elsewhere = postgres_server.create_database()
    async with node(url, "b") as second:
        hints = second.store.hints(elsewhere, name="b", instance="instance of b", heard=lambda _: None)
        assert hints is not None
        with structlog.testing.capture_logs() as events:
            listening = asyncio.create_task(hints.run())
            await eventually(lambda: events, "it is reported")
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
        assert {
            "database.listen_url is the URL of another database than database.url: write the same database there"
        } == {event["reason"] for event in events}


async def test_no_hints(url: str) -> None:
    """Without a listening connection the nodes confirm all the same, by looking at each renewal."""
    async with node(url, "a", listen_url="") as first, node(url, "b", listen_url="") as second:
        for each in (first, second):
            each.membership.interval = 0.05
            each.membership.applied({APEX: 7})
        await eventually(lambda: first.membership.others(APEX), "a knows of b")
        second.membership.applied({APEX: 8})
        found = await confirm(first.membership, APEX, 8, deadline=LONG)
        assert Confirmation(confirmed=("a", "b"), unconfirmed=()) == found
