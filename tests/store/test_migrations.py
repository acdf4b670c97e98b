"""The steps in `migrations/`, and what opening a database does with them."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from responder.errors import StoreOutdated, StoreUnavailable
from responder.names import Name
from responder.store import SchemaState, Store, migration, opening, sqlite
from responder.store.schema import REVISION, metadata
from responder.tokens.secret import Digest
from tests.support.postgres import database_url
from tests.support.processes import PATIENCE
from tests.support.stores import downgrade, shown

__all__ = ["database_url"]


async def test_the_steps_lead_to_the_schema_of_the_program(database_url: str) -> None:
    """Nothing is left for Alembic to generate once a database is migrated, types included."""
    store = await Store.open(database_url)
    context_options = {"compare_type": True, "compare_server_default": True}

    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection, opts=context_options), metadata))

    assert await store._database.read(differences) == []
    assert REVISION == ScriptDirectory(str(migration._scripts())).get_current_head()
    await store._database.read(lambda connection: command.check(migration._config(connection)))
    await store.close()


async def test_constraints_have_the_names_that_later_steps_will_use(database_url: str) -> None:
    """Names are given by the migrations, the same ones that the naming convention gives."""

    def names(connection: Connection) -> dict[str, set[str | None]]:
        inspector = inspect(connection)
        return {
            table: {
                inspector.get_pk_constraint(table)["name"],
                *(constraint["name"] for constraint in inspector.get_foreign_keys(table)),
                *(constraint["name"] for constraint in inspector.get_unique_constraints(table)),
            }
            for table in metadata.tables
        }

    store = await Store.open(database_url)
    expected = {name: {constraint.name for constraint in table.constraints} for name, table in metadata.tables.items()}
    assert expected == await store._database.read(names)
    await store.close()


async def test_many_may_open_a_new_database_at_once(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them get it, and it is migrated once, however long that takes on a busy machine."""
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT", PATIENCE)
    stores = await asyncio.gather(*(Store.open(database_url) for _ in range(6)))
    for store in stores:
        await store.ping()
        await store.close()


async def test_check_creates_nothing(tmp_path: Path) -> None:
    """Asking about a database that is not there leaves no trace."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'new' / 'responder.db'}"
    assert await Store.check(url) is SchemaState.ABSENT
    assert os.listdir(tmp_path) == []  # noqa: PTH208


async def test_check_and_upgrade_report_what_they_found(database_url: str) -> None:
    """An empty database is absent until it is upgraded, and then current; a second upgrade finds it so."""
    assert await Store.check(database_url) is SchemaState.ABSENT
    assert await Store.upgrade(database_url) is SchemaState.ABSENT
    assert await Store.check(database_url) is SchemaState.CURRENT
    assert await Store.upgrade(database_url) is SchemaState.CURRENT


async def test_a_database_behind_is_upgraded_only_on_request(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without `auto_upgrade` the command to run is named; with it, or `upgrade`, the next step is taken."""
    await Store.upgrade(database_url)
    _add_step(tmp_path / "migrations", monkeypatch)
    assert await Store.check(database_url) is SchemaState.BEHIND
    with pytest.raises(StoreOutdated, match="run: responder db upgrade"):
        await Store.open(database_url)
    store = await Store.open(database_url, auto_upgrade=True)
    tables = await store._database.read(lambda connection: inspect(connection).get_table_names())
    assert "afterthought" in tables
    await store.close()
    assert await Store.upgrade(database_url) is SchemaState.CURRENT


async def test_a_failed_step_leaves_nothing_behind(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration is one transaction: what it had done before it failed is undone."""
    await Store.upgrade(database_url)
    _add_step(tmp_path / "migrations", monkeypatch, then='op.execute("SELECT nonsense FROM nowhere")')
    with pytest.raises(StoreUnavailable):
        await Store.upgrade(database_url)
    assert await Store.check(database_url) is SchemaState.BEHIND
    database = opening.connect(database_url)
    tables = await database.read(lambda connection: inspect(connection).get_table_names())
    assert "afterthought" not in tables
    await database.close()


async def test_a_database_of_a_later_version_is_left_alone(database_url: str) -> None:
    """A revision that this program does not know means that the program is the older one."""
    await Store.upgrade(database_url)
    database = opening.connect(database_url)
    await database.write(lambda connection: connection.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    await database.close()
    assert await Store.check(database_url) is SchemaState.AHEAD
    with pytest.raises(StoreOutdated, match="this program is older than the database"):
        await Store.open(database_url, auto_upgrade=True)
    with pytest.raises(StoreOutdated, match="this program is older than the database"):
        await Store.upgrade(database_url)


async def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    """Tables without a version of ours are somebody else's."""
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE records (name TEXT)")
    connection.close()
    url = f"sqlite+aiosqlite:///{path}"
    assert await Store.check(url) is SchemaState.FOREIGN
    with pytest.raises(StoreUnavailable, match="tables of another program"):
        await Store.open(url)


async def test_a_rebuilt_table_keeps_what_refers_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite alters a table by replacing it; rows elsewhere that would be deleted in cascade stay."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'responder.db'}"
    await Store.upgrade(url)
    database = opening.connect(url)
    await database.write(_fill)
    _add_step(
        tmp_path / "migrations",
        monkeypatch,
        then='with op.batch_alter_table("hostnames", recreate="always") as table:\n'
        '        table.add_column(sa.Column("note", sa.Text))',
    )
    await Store.upgrade(url)
    assert await database.read(lambda connection: connection.scalar(text("SELECT count(*) FROM grants"))) == 1
    await database.close()


async def test_tokens_keep_their_secrets_across_all_steps(database_url: str) -> None:
    """A token that was minted before secrets had a table of their own is found by the same secret, forth and back."""
    database = opening.connect(database_url)
    await database.create()
    await database.migrate(lambda connection: command.upgrade(migration._config(connection), "0002"))
    await database.write(_fill_old)
    await database.migrate(lambda connection: command.upgrade(migration._config(connection), "head"))
    store = Store(database)
    token = await store.find_token(Digest(b"d" * 32))
    assert token is not None
    assert [str(grant.hostname) for grant in token.grants] == ["a.example.com"]
    await store.rotate(token.id, Digest(b"e" * 32), at=token.created_at, grace=timedelta(0))
    await database.migrate(lambda connection: command.downgrade(migration._config(connection), "0002"))
    digests = await database.read(lambda connection: list(connection.scalars(text("SELECT digest FROM tokens"))))
    assert [bytes(one) for one in digests] == [b"e" * 32]
    assert await database.read(lambda connection: connection.scalar(text("SELECT count(*) FROM grants"))) == 1
    await store.close()


async def test_values_follow_their_names_across_all_steps(database_url: str) -> None:
    """A value that was presented before names could be shared is served, forth and back."""
    database = opening.connect(database_url)
    await database.create()
    await database.migrate(lambda connection: command.upgrade(migration._config(connection), "0002"))
    await database.write(_fill_old)
    values = "INSERT INTO challenge_values VALUES (1, 1, 'x', '01234567-89ab-cdef-0123-456789abcdef', 1, 2)"
    await database.write(lambda connection: connection.execute(text(values)))
    await database.migrate(lambda connection: command.upgrade(migration._config(connection), "head"))
    store = Store(database)
    name = Name.parse("_acme-challenge.a.acme.example.com")
    (live,) = await store.values()
    assert (name, (Name.parse("a.example.com"),), "x") == (live.challenge_name, live.hostnames, live.value)
    assert {name: ("x",)} == await shown(store)
    await database.write(_share)
    assert {name: ("x",)} == await shown(store)
    await database.migrate(lambda connection: command.downgrade(migration._config(connection), "0009"))

    def kept(connection: Connection) -> list[tuple[object, ...]]:
        joined = "SELECT hostname, value FROM challenge_values JOIN hostnames ON hostnames.id = hostname_id"
        return [tuple(row) for row in connection.execute(text(joined))]

    assert [("a.example.com", "x")] == await database.read(kept)
    assert 1 == await database.read(lambda connection: connection.scalar(text("SELECT count(*) FROM grants")))
    await database.migrate(lambda connection: command.upgrade(migration._config(connection), "head"))
    assert {name: ("x",)} == await shown(store)
    await store.close()


def _share(connection: Connection) -> None:
    """Let a second hostname of the token have the same challenge name."""
    for statement in (
        "INSERT INTO hostnames VALUES (2, 'b.example.com', 1, '_acme-challenge.a.acme.example.com')",
        "INSERT INTO grants SELECT token_id, 2 FROM grants",
    ):
        connection.execute(text(statement))


def _fill_old(connection: Connection) -> None:
    token = "01234567-89ab-cdef-0123-456789abcdef"
    connection.execute(text("INSERT INTO zones (id, apex, serial) VALUES (1, 'acme.example.com', 1)"))
    connection.execute(
        text("INSERT INTO hostnames VALUES (1, 'a.example.com', 1, '_acme-challenge.a.acme.example.com')")
    )
    connection.execute(
        text("INSERT INTO tokens (id, digest, created_at, allow_from) VALUES (:id, :digest, 1, '[]')"),
        {"id": token, "digest": b"d" * 32},
    )
    connection.execute(text("INSERT INTO grants VALUES (:id, 1)"), {"id": token})


def _fill(connection: Connection) -> None:
    for statement in (
        "INSERT INTO zones (id, apex, serial) VALUES (1, 'acme.example.com', 1)",
        "INSERT INTO hostnames VALUES (1, 'a.example.com', 1, '_acme-challenge.a.acme.example.com')",
        "INSERT INTO tokens (id, created_at, allow_from) VALUES ('t', 1, '[]')",
        "INSERT INTO grants VALUES ('t', 1)",
    ):
        connection.execute(text(statement))


def _add_step(directory: Path, monkeypatch: pytest.MonkeyPatch, then: str = "pass") -> None:
    """Let the program know one more migration than there is, which ends with the statement *then*."""
    head = ScriptDirectory(str(migration._scripts())).get_current_head()
    (directory / "versions").mkdir(parents=True)
    for file in [*migration._scripts().glob("*.*"), *migration._scripts().glob("versions/*.py")]:
        (directory / file.relative_to(migration._scripts())).write_text(file.read_text())
    (directory / "versions" / "9998_afterthought.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n\n"
        f'revision = "9998"\ndown_revision = "{head}"\n\n'
        "def upgrade():\n"
        '    op.create_table("afterthought", sa.Column("id", sa.Integer, primary_key=True))\n'
        f"    {then}\n"
    )
    monkeypatch.setattr(migration, "_scripts", lambda: directory)


async def test_a_database_that_is_older_than_its_record_of_origin(database_url: str) -> None:
    """The step gives it an id of its own, and no time of its creation: it does not count as new."""
    ids = set()
    for _ in range(2):
        await Store.upgrade(database_url)
        await downgrade(database_url, "0006")
        await Store.upgrade(database_url)
        store = await Store.open(database_url)
        origin = await store.origin()
        await store.close()
        ids.add(origin.id)
        assert origin.created_at is None
        assert "ok" == origin.condition(datetime.now(UTC))
    assert 2 == len(ids)


def test_revision() -> None:
    """What nodes tell each other about their schema is the last step that there is."""
    assert REVISION == ScriptDirectory(str(migration._scripts())).get_current_head()
