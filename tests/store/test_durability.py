"""What was acknowledged stays, even on a database that is set not to wait for its disk; and damage is found."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import text

from responder.errors import StoreUnavailable
from responder.store import SchemaState, Store
from tests.support.postgres import database_url, new_server
from tests.support.stores import APEX, NOW, SERVING, new_token, present

__all__ = ["database_url"]


async def test_a_role_that_does_not_wait_for_the_disk() -> None:
    """With `synchronous_commit = off` for the role, what was acknowledged is still there after a kill."""
    with new_server("wal_writer_delay=10s") as server:
        server.execute("ALTER ROLE postgres SET synchronous_commit = off")
        store = await Store.open(url := server.create_database())
        await store.register_zones({APEX: None}, now=NOW)
        token = await store.mint(new_token("some"))
        for number in range(8):
            await store.apply([present(token, "some", f"value-{number}")], serving=SERVING, now=NOW)

        server.stop()  # as a kill: what is not on disk is lost
        await store.close()
        server.start()

        store = await Store.open(url)
        assert {f"value-{number}" for number in range(8)} == {value.value for value in await store.values()}
        await store.close()


async def test_a_role_with_another_isolation() -> None:
    """Writers take turns as they always do, whatever isolation the role asks for."""
    with new_server() as server:
        server.execute("ALTER ROLE postgres SET default_transaction_isolation = 'serializable'")
        url = server.create_database()
        stores = [await Store.open(url) for _ in range(2)]
        await stores[0].register_zones({APEX: None}, now=NOW)
        await asyncio.gather(
            *(store.mint(new_token(f"h{number}x{index}")) for index, store in enumerate(stores) for number in range(20))
        )

        assert 40 == len(await stores[0].tokens())
        for store in stores:
            await store.close()


async def test_a_server_that_does_not_wait_for_the_disk(database_url: str) -> None:
    """`fsync = off` of a whole server is a warning; it can only be changed there."""
    store = await Store.open(database_url)
    if database_url.startswith("sqlite"):
        assert [] == await store.warnings()
    else:  # the tests' server is set so
        (warning,) = await store.warnings()
        assert "PostgreSQL runs with fsync = off" in warning
    await store.close()


async def test_a_server_that_waits() -> None:
    """Nothing is to be warned of."""
    with new_server("fsync=on") as server:
        state, warnings = await Store.examine(url := server.create_database())
        assert (SchemaState.ABSENT, []) == (state, warnings)
        await Store.upgrade(url)
        assert (SchemaState.CURRENT, []) == await Store.examine(url)


async def test_damage_in_postgresql() -> None:
    """A page that its disk lost is found by reading everything, in a table that nothing else reads."""
    with new_server() as server:
        url = server.create_database()
        store = await Store.open(url)
        await store.register_zones({APEX: None}, now=NOW)
        await store.mint(new_token("some"))
        await store.close()
        server.execute("CHECKPOINT")
        file = server.data / server.execute("SELECT pg_relation_filepath('audit')", server.name(url))
        server.stop()
        with file.open("r+b") as pages:
            pages.write(b"\xff" * 24)  # the header of its first page
        server.start()

        assert SchemaState.CURRENT is await Store.check(url)
        with pytest.raises(StoreUnavailable, match="it is damaged: restore it from a backup"):
            await Store.examine(url)


async def test_damage_in_sqlite(tmp_path: Path) -> None:
    """A page that its disk lost is found by reading everything, wherever it is."""
    path = tmp_path / "responder.db"
    url = f"sqlite+aiosqlite:///{path}"
    store = await Store.open(url)
    await store.register_zones({APEX: None}, now=NOW)
    await store.mint(new_token(*(f"h{number}" for number in range(200))))
    await store.close()
    assert (SchemaState.CURRENT, []) == await Store.examine(url)
    content = path.read_bytes()
    for page in range(1, len(content) // 4096):
        damaged = bytearray(content)
        damaged[page * 4096 : page * 4096 + 512] = b"\xff" * 512
        path.write_bytes(damaged)

        with pytest.raises(StoreUnavailable, match="it is damaged: restore it from a backup"):
            await Store.examine(url)


async def test_a_table_that_is_gone(database_url: str) -> None:
    """A schema that claims to be current, and is not, is found, too."""
    store = await Store.open(database_url)
    await store._database.write(lambda connection: connection.execute(text("DROP TABLE challenge_values")))
    await store.close()
    with pytest.raises(StoreUnavailable, match="the table challenge_values is missing in the database: restore"):
        await Store.examine(database_url)


async def test_a_file_that_is_open_to_others(tmp_path: Path) -> None:
    """Whoever can read the database reads private keys: it is a warning that names each file and the command."""
    path = tmp_path / "responder.db"
    store = await Store.open(f"sqlite+aiosqlite:///{path}")
    await store.register_zones({APEX: None}, now=NOW)
    assert [] == await store.warnings()
    path.chmod(0o644)
    (tmp_path / "responder.db-wal").chmod(0o604)
    (warning,) = await store.warnings()
    assert f"chmod o-rwx {path} {path}-wal" in warning
    path.chmod(0o640)
    (tmp_path / "responder.db-wal").chmod(0o640)
    assert [] == await store.warnings()
    await store.close()
