"""Private keys in the database: encrypted wherever there is a key file, and of use with that key file alone."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from responder.errors import Invalid
from responder.names import Name
from responder.store import OwnCertificate, Sealer, Store
from responder.tls.keypair import key_pem, new_key
from tests.support.keypairs import key_pair
from tests.support.postgres import database_url
from tests.support.stores import NOW

__all__ = ["database_url"]

HOST, OTHER = Name.parse("api.acme.example.com"), Name.parse("other.acme.example.com")
DIRECTORY = "https://ca.example/dir"
ONE, TWO = Sealer(b"1" * 32), Sealer(b"2" * 32)
ACCOUNT, ANOTHER = key_pem(new_key()), key_pem(new_key())


async def opened(url: str, sealer: Sealer | None) -> Store:
    return await Store.open(url, sealer=sealer)


async def keep(store: Store, host: Name = HOST) -> OwnCertificate:
    """A certificate in the store."""
    pair = key_pair(str(host), begins=NOW)
    await store.certificates.begin(host, holder=uuid4(), lease=timedelta(minutes=1), now=NOW)
    await store.certificates.keep(host, DIRECTORY, pair)
    return OwnCertificate(pair=pair, directory=DIRECTORY, attempted_at=NOW)


async def keys(store: Store) -> list[str]:
    """The private keys as anyone sees them who reads the database."""
    query = text("SELECT key FROM certificates UNION SELECT key FROM acme_accounts")
    return list(await store._database.read(lambda connection: connection.scalars(query).all()))


async def run(store: Store, statement: str) -> None:
    await store._database.write(lambda connection: connection.execute(text(statement)))


async def test_with_the_key_file(database_url: str) -> None:
    """Nothing that is in the database is a private key; every node that has the same key file gets them back."""
    store = await opened(database_url, ONE)
    kept = await keep(store)
    assert ACCOUNT == await store.certificates.account_key(DIRECTORY, ACCOUNT)
    assert not any("PRIVATE KEY" in key for key in await keys(store))
    await store.close()

    other = await opened(database_url, Sealer(b"1" * 32))
    assert kept == await other.certificates.find(HOST)
    assert ACCOUNT == await other.certificates.account_key(DIRECTORY, ANOTHER)
    await other.close()


async def test_without_the_key_file(database_url: str) -> None:
    """A node that has none does not replace what it cannot use, be it by mistake."""
    store = await opened(database_url, ONE)
    kept = await keep(store)
    await store.certificates.account_key(DIRECTORY, ACCOUNT)
    await store.close()

    other = await opened(database_url, None)
    assert not other.certificates.are_sealed
    found = await other.certificates.find(HOST)
    assert kept.pair is not None
    assert (None, kept.pair.not_before) == (found.pair, found.locked)
    with pytest.raises(Invalid, match="name the key file that they were encrypted with"):
        await other.certificates.account_key(DIRECTORY, ANOTHER)
    assert 0 == await other.certificates.seal()
    await other.close()


async def test_with_another_key_file(database_url: str) -> None:
    """A certificate is seen to be there, and from when it is; an account is replaced by one of its own."""
    store = await opened(database_url, ONE)
    kept = await keep(store)
    await store.certificates.account_key(DIRECTORY, ACCOUNT)
    await store.close()

    other = await opened(database_url, TWO)
    found = await other.certificates.find(HOST)
    assert kept.pair is not None
    assert (None, kept.pair.not_before) == (found.pair, found.locked)
    assert ANOTHER == await other.certificates.account_key(DIRECTORY, ANOTHER)
    assert ANOTHER == await other.certificates.account_key(DIRECTORY, ACCOUNT)
    again = await keep(other)
    assert again == await other.certificates.find(HOST)
    assert not any("PRIVATE KEY" in key for key in await keys(other))
    await other.close()


async def test_keys_from_before_there_was_a_key_file(database_url: str) -> None:
    """They are used as they are, and encrypted on request, once; the key of an account as soon as it is needed."""
    store = await opened(database_url, None)
    kept, other = await keep(store), await keep(store, OTHER)
    await store.certificates.account_key(DIRECTORY, ACCOUNT)
    await store.certificates.account_key("https://other.example/dir", ANOTHER)
    assert all("PRIVATE KEY" in key for key in await keys(store))
    await store.close()

    store = await opened(database_url, ONE)
    assert kept == await store.certificates.find(HOST)
    assert ACCOUNT == await store.certificates.account_key(DIRECTORY, ANOTHER)
    assert 3 == sum("PRIVATE KEY" in key for key in await keys(store))
    assert 3 == await store.certificates.seal()
    assert 0 == await store.certificates.seal()
    assert not any("PRIVATE KEY" in key for key in await keys(store))
    assert (kept, other) == (await store.certificates.find(HOST), await store.certificates.find(OTHER))
    assert ANOTHER == await store.certificates.account_key("https://other.example/dir", ACCOUNT)
    await store.close()


async def test_nothing_stays_behind(tmp_path: Path) -> None:
    """Once the keys are encrypted, the file of the database has none of them in its free pages, either."""
    path = tmp_path / "responder.db"
    store = await opened(f"sqlite+aiosqlite:///{path}", None)
    for number in range(20):
        await keep(store, Name.parse(f"h{number}.acme.example.com"))
    await store.close()
    assert b"PRIVATE KEY" in path.read_bytes()

    store = await opened(f"sqlite+aiosqlite:///{path}", ONE)
    assert 20 == await store.certificates.seal()
    await store.close()

    assert b"PRIVATE KEY" not in path.read_bytes()
    assert [path] == [*tmp_path.iterdir()]  # noqa: ASYNC240


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE certificates SET key = (SELECT key FROM acme_accounts)",
        f"UPDATE certificates SET key = (SELECT key FROM certificates WHERE hostname = '{OTHER}')",
        "UPDATE certificates SET key = substr(key, 1, length(key) - 8)",
        "UPDATE certificates SET key = substr(key, 1, 24) || '%'",
        "UPDATE certificates SET key = substr(key, 1, 24)",
    ],
)
async def test_damage(database_url: str, damage: str) -> None:
    """What is damaged, or was put into another row, is no certificate: another one can be had."""
    store = await opened(database_url, ONE)
    await keep(store)
    await keep(store, OTHER)
    await store.certificates.account_key(DIRECTORY, ACCOUNT)

    await run(store, damage)

    found = await store.certificates.find(HOST)
    assert (None, None) == (found.pair, found.locked)
    await store.close()


async def test_damaged_account(database_url: str) -> None:
    """It is reported, since an account may be bound to more than its key."""
    store = await opened(database_url, ONE)
    await store.certificates.account_key(DIRECTORY, ACCOUNT)
    await run(store, "UPDATE acme_accounts SET key = substr(key, 1, length(key) - 8)")
    with pytest.raises(Invalid, match="a private key in the database is damaged: restore the database from a backup"):
        await store.certificates.account_key(DIRECTORY, ANOTHER)
    await store.close()


async def test_a_locked_certificate_that_is_damaged(database_url: str) -> None:
    """Nothing is worth waiting for then."""
    store = await opened(database_url, ONE)
    await keep(store)
    await run(store, "UPDATE certificates SET chain = 'x'")
    await store.close()
    other = await opened(database_url, TWO)
    found = await other.certificates.find(HOST)
    assert (None, None) == (found.pair, found.locked)
    await other.close()


def test_sealed_twice() -> None:
    """Nobody can see that two texts are the same."""
    sealed: list[Any] = [ONE.seal("x", "y") for _ in range(2)]
    assert 2 == len({*sealed})
    assert ["x", "x"] == [ONE.open(each, "y") for each in sealed]
