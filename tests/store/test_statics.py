"""Static records and serials: what a node serves never changes under a serial. On both databases."""

from __future__ import annotations

from dataclasses import replace

import pytest

from responder.errors import NotFound
from responder.names import Name
from responder.store import Present, Store
from responder.tokens.token import Grant
from tests.support.postgres import database_url
from tests.support.stores import (
    APEX,
    DAY,
    NOW,
    OTHER_APEX,
    SERVING,
    START,
    grant,
    name,
    new_token,
    present,
    shown,
    store,
)

__all__ = ["database_url", "store"]

OLD, NEW = {APEX: "old", OTHER_APEX: "same"}, {APEX: "new", OTHER_APEX: "same"}


async def begin(store: Store, digests: dict[Name, str]) -> dict[Name, int]:
    """The zones that get a new serial, and which."""
    return {change.apex: change.serial for change in await store.begin_statics(digests, now=NOW)}


async def test_other_records_are_another_serial(store: Store) -> None:
    """A zone gets a new serial with records that it has not been served with, once, and others keep theirs."""
    assert {APEX: START + 1, OTHER_APEX: START + 1} == await begin(store, OLD)
    assert {} == await begin(store, OLD)

    assert {APEX: START + 2} == await begin(store, NEW)

    assert {} == await begin(store, NEW)
    assert {APEX: START + 3} == await begin(store, OLD)
    assert {APEX: START + 3, OTHER_APEX: START + 1} == await store.serials()


async def test_other_nodes_notice(store: Store) -> None:
    """The change is in the journal, as one of the apex, together with what else happened."""
    await begin(store, OLD)
    token = await store.mint(new_token("a"))
    before = (await store.serials())[APEX]
    await begin(store, NEW)
    await store.apply([present(token, "a", "x")], serving=SERVING, now=NOW)

    change = await store.changes_since(APEX, before)

    assert change is not None
    assert ({APEX: None, name("a"): ("x",)}, before + 2) == (change.names, change.serial)


async def test_values_at_the_apex_stay(store: Store) -> None:
    """The change of an apex that is a challenge name has its values, whatever the change is for."""
    at_apex = Grant(hostname=Name.parse("some.example.org"), challenge_name=APEX, apex=APEX)
    token = await store.mint(replace(new_token(), grants=(at_apex,)))
    value = Present(token_id=token.id, challenge_name=APEX, value="x", expires_at=NOW + DAY, client="192.0.2.1")
    await store.apply([value], serving=SERVING, now=NOW)

    changes = await store.begin_statics({APEX: "new"}, now=NOW)
    resumed = await store.resume({APEX: START + 100}, now=NOW)

    assert [{APEX: ("x",)}] == [change.names for change in changes]
    assert START + 101 == resumed[APEX]
    change = await store.changes_since(APEX, START)
    assert change is not None
    assert {APEX: ("x",)} == change.names
    assert {APEX: ("x",)} == await shown(store)


async def test_node_that_went_on_with_other_records(store: Store) -> None:
    """
    A node that took over the serial of another one's records has served its own with it: when it begins with the
    others' as well, it needs a serial that nobody has seen yet.
    """
    await begin(store, OLD)
    await begin(store, NEW)

    await store.compare_statics(OLD)

    assert {APEX: START + 3} == await begin(store, NEW)
    await store.compare_statics(NEW)
    assert {} == await begin(store, NEW)


async def test_nodes_that_stay_different(store: Store) -> None:
    """Two nodes with configurations of their own raise the serial at each start, and it never goes back."""
    seen = [START]
    for mine, others in ((OLD, NEW), (NEW, OLD)) * 2:
        seen += (await begin(store, mine)).values()
        await store.compare_statics(others)

    assert sorted(set(seen)) == [START, START + 1, START + 2, START + 3, START + 4]


async def test_zone_that_is_not_registered(store: Store) -> None:
    """A zone without a serial is no zone of ours."""
    with pytest.raises(NotFound, match=r"there is no zone acme\.example\.org"):
        await begin(store, {APEX: "x", grant("a", Name.parse("acme.example.org")).apex: "x"})
    assert {APEX: START, OTHER_APEX: START} == await store.serials()


async def test_zone_that_begins_with_its_records(store: Store) -> None:
    """A zone that was made with the same records needs no other serial when it is served for the first time."""
    new = Name.parse("acme.example.org")
    await store.register_zones({new: "x"}, now=NOW)

    assert {} == await begin(store, {new: "x"})
    assert {new: START + 1} == await begin(store, {new: "y"})
