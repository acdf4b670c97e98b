"""Nodes and their leases in the store, on both databases."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from responder.errors import NodeNameTaken, NotFound
from responder.store import NodeReport, ServedZone, Store
from tests.support.postgres import database_url
from tests.support.stores import APEX, store

__all__ = ["database_url", "store"]

MINUTE = timedelta(minutes=1)
ENDED = timedelta(seconds=-1)


def report(name: str = "a", *, instance: str = "first", serial: int = 7) -> NodeReport:
    """What the node *name* writes about itself."""
    return NodeReport(
        name=name,
        instance=instance,
        address="192.0.2.1",
        version="0.1.0",
        schema_min="0005",
        schema_max="0005",
        clock=time.time(),
        zones={APEX: ServedZone(serial=serial, static="5f")},
    )


@pytest.fixture
async def other(store: Store, database_url: str) -> AsyncIterator[Store]:
    """The same database as another node has it open."""
    other = await Store.open(database_url)
    yield other
    await other.close()


async def test_every_node_sees_the_others(store: Store, other: Store) -> None:
    """A renewal writes what the node serves, and returns what all others serve, by name."""
    await other.renew_lease(report("b", serial=9), lease=MINUTE)

    first, second = await store.renew_lease(report("a", serial=8), lease=MINUTE)

    assert ("a", 8, "b", 9) == (first.name, first.zones[APEX].serial, second.name, second.zones[APEX].serial)
    assert first.is_live
    assert 50 < second.lease_left <= 60
    assert abs(first.clock_ahead) < 30, "one machine has one clock"
    assert [first.name, second.name] == [node.name for node in await other.nodes()]


async def test_a_lease_ends(store: Store) -> None:
    """A node whose lease has ended is known, and not live."""
    (node,) = await store.renew_lease(report(), lease=ENDED)
    assert not node.is_live

    (node,) = await store.renew_lease(report(serial=8), lease=MINUTE)
    assert node.is_live
    await store.end_lease("a", "another instance")
    assert (await store.nodes())[0].is_live
    await store.end_lease("a", "first")
    assert not (await store.nodes())[0].is_live


async def test_one_name_is_one_service(store: Store, other: Store) -> None:
    """Of two services with one name, the first keeps it until its lease has ended; then its start is forgotten."""
    await store.renew_lease(report(), lease=MINUTE)
    with pytest.raises(NodeNameTaken, match=r'another running service has the node name "a".*node\.name'):
        await other.renew_lease(report(instance="second"), lease=MINUTE)
    assert "first" == (await store.nodes())[0].instance

    await store.renew_lease(report(), lease=ENDED)
    (node,) = await other.renew_lease(report(instance="second"), lease=MINUTE)
    assert "second" == node.instance
    with pytest.raises(NodeNameTaken):
        await store.renew_lease(report(), lease=MINUTE)

    (node,) = await store.renew_lease(report(), lease=MINUTE, take_over=True)
    assert "first" == node.instance


async def test_the_start_is_kept(store: Store) -> None:
    """A renewal leaves the start of the service as it was."""
    await store.renew_lease(report(), lease=MINUTE)
    (before,) = await store.nodes()
    (after,) = await store.renew_lease(report(), lease=MINUTE)
    assert after.started >= before.started
    assert after.seen <= after.started


async def test_many_at_once(store: Store, other: Store) -> None:
    """Any number of nodes renew at the same time."""
    reports = [replace(report(), name=f"n{number}") for number in range(10)]
    await asyncio.gather(*(each.renew_lease(one, lease=MINUTE) for one in reports for each in (store, other)))
    assert {one.name for one in reports} == {node.name for node in await store.nodes()}


async def test_forgetting(store: Store) -> None:
    """A node that runs is not forgotten, one whose lease has ended is, and what is not there cannot be."""
    await store.renew_lease(report(), lease=MINUTE)
    with pytest.raises(NodeNameTaken, match=r'"a" is running: stop it first'):
        await store.forget_node("a")
    await store.renew_lease(report(), lease=ENDED)
    await store.forget_node("a")
    assert [] == await store.nodes()
    with pytest.raises(NotFound, match=r'there is no node "a"'):
        await store.forget_node("a")
