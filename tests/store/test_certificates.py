"""Our own certificates in the store: one pair for all nodes, one node at a time that renews it. On both databases."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from responder.names import Name
from responder.store import OwnCertificate, Store
from responder.tokens.token import Grant
from tests.support.keypairs import key_pair
from tests.support.postgres import database_url
from tests.support.stores import APEX, DAY, NOW, SECOND, grant, new_token, store

__all__ = ["database_url", "store"]

HOST = Name.parse("api.acme.example.com")
OTHER = Name.parse("other.acme.example.com")
MINUTE = timedelta(minutes=1)
ONE, TWO = uuid4(), uuid4()


async def test_nothing_is_known_at_first(store: Store) -> None:
    """Of a host that never had a certificate, nothing is known."""
    assert OwnCertificate() == await store.certificates.find(HOST)


async def test_a_certificate_is_kept(store: Store) -> None:
    """The pair that was obtained is there for everybody, in the place of the one before, and for its host alone."""
    first, second = key_pair(str(HOST)), key_pair(str(HOST))
    for pair in (first, second):
        assert await store.certificates.begin(HOST, holder=ONE, lease=MINUTE, now=NOW)
        await store.certificates.keep(HOST, "https://ca.example/dir", pair)

    kept = await store.certificates.find(HOST)

    assert second == kept.pair
    assert ("https://ca.example/dir", NOW, 0, None) == (kept.directory, kept.attempted_at, kept.failures, kept.retry_at)
    assert OwnCertificate() == await store.certificates.find(OTHER)


async def test_one_at_a_time(store: Store, database_url: str) -> None:
    """Of any number of nodes that would begin, one does; the others may when it has ended."""
    other = await Store.open(database_url)
    try:
        begun = await asyncio.gather(
            *(each.certificates.begin(HOST, holder=uuid4(), lease=MINUTE, now=NOW) for each in (store, other) * 5)
        )
        assert 1 == sum(begun)
        assert not await other.certificates.begin(HOST, holder=TWO, lease=MINUTE, now=NOW + DAY)
        assert await other.certificates.begin(OTHER, holder=TWO, lease=MINUTE, now=NOW)

        await other.certificates.give_up(HOST)
        assert await store.certificates.begin(HOST, holder=TWO, lease=MINUTE, now=NOW)
    finally:
        await other.close()


async def test_lease(store: Store) -> None:
    """A lease that nobody prolongs ends, and only its holder can prolong it; the clocks of nodes do not matter."""

    async def begin(holder: UUID, *, now: datetime = NOW) -> bool:
        return await store.certificates.begin(HOST, holder=holder, lease=2 * SECOND, now=now)

    assert await begin(ONE)
    await store.certificates.go_on(HOST, holder=TWO, lease=DAY)
    while not await begin(TWO, now=NOW - DAY):  # noqa: ASYNC110  # nobody says when a lease ends
        await asyncio.sleep(0.05)

    await store.certificates.go_on(HOST, holder=ONE, lease=-DAY)
    assert not await begin(ONE, now=NOW + DAY)
    await store.certificates.go_on(HOST, holder=TWO, lease=-DAY)
    assert await begin(ONE)


async def test_failures(store: Store) -> None:
    """A failure leaves the pair in use alone, and says when to try again; success forgets it."""
    pair = key_pair(str(HOST))
    await store.certificates.begin(HOST, holder=ONE, lease=MINUTE, now=NOW)
    await store.certificates.keep(HOST, "https://ca.example/dir", pair)
    later = NOW + timedelta(days=60)
    await store.certificates.begin(HOST, holder=ONE, lease=MINUTE, now=later)

    await store.certificates.note_failure(HOST, failures=3, retry_at=later + MINUTE)

    known = await store.certificates.find(HOST)
    assert (pair, later, 3, later + MINUTE) == (known.pair, known.attempted_at, known.failures, known.retry_at)
    assert await store.certificates.begin(HOST, holder=ONE, lease=MINUTE, now=later)
    await store.certificates.keep(HOST, "https://ca.example/dir", pair)
    assert (0, None) == ((await store.certificates.find(HOST)).failures, (await store.certificates.find(HOST)).retry_at)


async def test_the_key_of_an_account_is_made_once(store: Store, database_url: str) -> None:
    """Nodes that come with keys of their own agree on one for each CA."""
    other = await Store.open(database_url)
    try:
        keys = await asyncio.gather(
            *(
                each.certificates.account_key("https://ca.example/dir", f"key {number}".encode())
                for number, each in enumerate((store, other) * 3)
            )
        )
    finally:
        await other.close()
    assert 1 == len(set(keys))
    assert b"mine" == await store.certificates.account_key("https://other.example/dir", b"mine")


async def test_names_that_hosts_own(store: Store) -> None:
    """What a host owns is the challenge name that somebody is granted for it, as long as somebody is."""
    alias = Grant(hostname=Name.parse("b.example.com"), challenge_name=Name.parse(f"alias.{APEX}"), apex=APEX)
    token = await store.mint(new_token("a"))
    other = new_token()
    object.__setattr__(other, "grants", (alias,))
    await store.mint(other)
    hosts = [Name.parse(f"{label}.example.com") for label in ("a", "b", "c")]

    assert {hosts[0]: grant("a"), hosts[1]: alias} == await store.owned(hosts)

    await store.revoke(token.id, at=NOW)
    assert {hosts[1]: alias} == await store.owned(hosts)
    assert {} == await store.owned([])
