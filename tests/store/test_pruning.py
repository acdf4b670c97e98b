"""The audit and the journal stay within bounds, on both databases, and no token's events at the cost of another's."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection

from responder.errors import StoreUnavailable
from responder.store import AUDIT_KEPT, AuditAction, AuditEvent, Store, audit, journal, pruning
from responder.store.pruning import surplus
from tests.support.postgres import database_url
from tests.support.processes import PATIENCE
from tests.support.stores import APEX, NOW, SECOND, SERVING, name, new_token, present, store

__all__ = ["database_url", "store"]

ONE, OTHER, THIRD = (UUID(int=number) for number in range(1, 4))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that is small, and looked at as soon as anything was written."""
    monkeypatch.setattr(pruning, "MAX_EVENTS", 100)
    monkeypatch.setattr(pruning, "MAX_PRUNED", 4)
    monkeypatch.setattr(pruning, "PRUNE_AFTER", 1)


async def test_tokens_of_commands_are_swept(store: Store) -> None:
    """A token that a command minted for itself is deleted a day after its end, without a trace in the zone."""
    hour, end = timedelta(hours=1), NOW + timedelta(hours=1)
    mine = replace(new_token("a.example.com"), description="responder issue", expires_at=end)
    left = replace(new_token("b.example.com"), description="responder check", expires_at=end)
    kept = replace(new_token("c.example.com"), description="team", expires_at=end)
    forever = replace(new_token("d.example.com"), description="responder issue")
    for new in (mine, left, kept, forever):
        await store.mint(new)
    for new in (mine, kept, forever):
        await store.revoke(new.id, at=NOW)

    async def ids(now: datetime) -> set[UUID]:
        await store.prune(now=now)
        return {*await store.token_ids()}

    assert {mine.id, left.id, kept.id, forever.id} == await ids(NOW + timedelta(days=1) - hour)
    assert {left.id, kept.id, forever.id} == await ids(NOW + timedelta(days=1, seconds=1))
    assert {left.id, kept.id, forever.id} == await ids(NOW + timedelta(days=1) + 2 * hour)
    assert (await store.token(left.id)).revoked_at is not None
    assert {kept.id, forever.id} == await ids(NOW + timedelta(days=3))


async def flood(store: Store, token: UUID | None, numbers: Sequence[int]) -> None:
    """Put that many events of *token* on record, with these numbers for values."""
    await store.record(
        [AuditEvent(at=NOW, action=AuditAction.PRESENT, token_id=token, value=str(number)) for number in numbers]
    )


async def held(store: Store) -> Counter[UUID | None]:
    """How many events there are of each token."""
    return Counter(event.token_id for event in await store.audit(NOW))


async def test_who_floods_the_audit_loses_events_of_its_own(store: Store) -> None:
    """Of too many events, those of the token with most of them go, its oldest first; the others keep all."""
    await flood(store, OTHER, range(10))
    await flood(store, None, range(5))
    for begin in range(0, 500, 50):
        await flood(store, ONE, range(begin, begin + 50))
        await store.prune(now=NOW)

    assert {ONE: 75, OTHER: 10, None: 5} == await held(store)
    mine = [event.value for event in await store.audit(NOW) if event.token_id == ONE]
    assert [str(number) for number in range(425, 500)] == mine


async def test_two_that_flood_share(store: Store) -> None:
    """Several with very many are left with as many as each other."""
    await flood(store, OTHER, range(200))
    await flood(store, ONE, range(300))
    await flood(store, THIRD, range(10))
    await store.prune(now=NOW)

    assert {ONE: 40, OTHER: 40, THIRD: 10} == await held(store)


async def test_transactions_are_short(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some events go in each, for presents wait meanwhile; more, if there are more than there may be at all."""
    sizes: list[int] = []
    forget = audit.forget

    def observed(connection: Connection, ids: Sequence[int]) -> None:
        sizes.append(len(ids))
        forget(connection, ids)

    monkeypatch.setattr(audit, "forget", observed)
    await flood(store, ONE, range(136))
    await store.prune(now=NOW)

    assert [40, 4, 2] == sizes


async def test_several_nodes(store: Store, database_url: str) -> None:
    """When two nodes find that there are too many, they do not delete twice as many."""
    other = await Store.open(database_url)
    await flood(store, ONE, range(97))
    await flood(store, OTHER, range(3))
    await asyncio.gather(store.prune(now=NOW), other.prune(now=NOW))
    await other.close()

    kept = await held(store)
    assert 3 == kept[OTHER]
    assert 87 - 4 <= kept[ONE] <= 87


async def test_for_ever(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault does not end it: a database that is away is reported by others, all else once in a while."""
    monkeypatch.setattr(pruning, "LOOK_INTERVAL", 0.001)
    faults = iter([StoreUnavailable("away"), ValueError("a fault"), ValueError("a fault")])
    newest = audit.newest

    def failing(connection: Connection) -> int:
        if (fault := next(faults, None)) is not None:
            raise fault
        return newest(connection)

    monkeypatch.setattr(audit, "newest", failing)
    await flood(store, ONE, range(150))
    with structlog.testing.capture_logs() as logged:
        keeping = asyncio.create_task(store.keep_pruned(lambda: NOW))
        async with asyncio.timeout(PATIENCE):
            while len(await store.audit(NOW)) > 90:  # noqa: ASYNC110  # it is in a database
                await asyncio.sleep(0)
        keeping.cancel()
        await asyncio.wait([keeping])

    assert [("pruning failed", "error")] == [(line["event"], line["log_level"]) for line in logged]


async def test_more_tokens_than_a_pass_takes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that have most lose theirs first, and then the others."""
    monkeypatch.setattr(pruning, "MAX_HOLDERS", 2)
    for number in range(10):
        await flood(store, UUID(int=number + 1), range(15))
    await store.prune(now=NOW)

    kept = await held(store)
    assert 90 <= kept.total() <= 95
    assert {9, 10} >= set(kept.values())


async def test_few_events_stay(store: Store) -> None:
    """As long as there is room, nothing goes."""
    await flood(store, ONE, range(95))
    await store.prune(now=NOW)
    assert 95 == len(await store.audit(NOW))


async def test_nothing_is_looked_at_without_need(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look is due when there are new events, or some time has passed; an idle service has one small read."""
    monkeypatch.setattr(pruning, "PRUNE_AFTER", 10)
    await store.prune(now=NOW)
    await flood(store, ONE, range(9))
    monkeypatch.setattr(pruning, "MAX_EVENTS", 8)
    await store.prune(now=NOW)
    assert 9 == len(await store.audit(NOW))

    await store.prune(now=NOW + pruning.PRUNE_EVERY)

    assert 7 == len(await store.audit(NOW))


async def test_the_audit_is_kept_for_ninety_days(store: Store) -> None:
    """What happened longer ago goes."""
    await store.record([AuditEvent(at=NOW, action=AuditAction.CLEAR, value=str(number)) for number in range(6)])
    later = NOW + AUDIT_KEPT + SECOND
    await store.mint(new_token("new", at=later))

    await store.prune(now=later)

    assert [later] == [event.at for event in await store.audit(NOW)]


async def test_the_journal_is_pruned(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest rows stay, and a serial is kept whole."""
    monkeypatch.setattr(journal, "MAX_JOURNAL", 3)
    token = await store.mint(new_token("a", "b"))
    for value in "uvwxyz":
        await store.apply([present(token, label, value) for label in "ab"], serving=SERVING, now=NOW)
    latest = (await store.serials())[APEX]
    assert await store.changes_since(APEX, latest - 5) is not None

    await store.prune(now=NOW)

    assert await store.changes_since(APEX, latest - 2) is None
    change = await store.changes_since(APEX, latest - 1)
    assert change is not None
    assert set(change.names) == {name("a"), name("b")}


@given(st.dictionaries(st.text(max_size=3), st.integers(1, 50), min_size=1, max_size=20), st.integers(0, 300))
def test_a_surplus_leaves_equal_shares(shares: dict[str, int], room: int) -> None:
    """All that is left fits, no more goes than has to, and who loses anything is left with as much as the richest."""
    if sum(shares.values()) <= room:
        return
    left = {holder: share - surplus(shares, room).get(holder, 0) for holder, share in shares.items()}
    most = max(left.values())

    assert room - len(shares) < sum(left.values()) <= room
    assert all(left[holder] in (shares[holder], most) for holder in shares)
    assert all(left[holder] == most for holder in surplus(shares, room))
