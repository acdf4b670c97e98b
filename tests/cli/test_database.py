"""What commands do to a database: most look at it only, few make one, and none that the service cannot use."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from responder.files.keyfile import read_key
from responder.store import SchemaState, Store
from tests.support.commands import HOST, Run, bare, configuration, environment, fails, run
from tests.support.postgres import PostgresServer
from tests.support.service import connect, rows
from tests.support.stores import downgrade

__all__ = ["bare", "configuration", "environment", "run"]

NOBODY = 65534

LOOKS = [
    ("token", "list"),
    ("value", "list"),
    ("audit",),
    ("zone", "show"),
    ("db", "check"),
    ("config", "check"),
    ("import", "acme-dns", "sqlite3:nowhere.db", "--dry-run"),
]
"""Commands that change nothing."""


def forget(directory: Path) -> None:
    """The state of a machine before the service first ran."""
    for file in directory.glob("responder.db*"):
        file.unlink()


@pytest.mark.parametrize("command", LOOKS)
def test_commands_that_look_make_nothing(run: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    """Without a database, a command that only looks leaves none behind, whatever it reports."""
    forget(tmp_path)
    before = sorted(tmp_path.iterdir())

    run(*command, status=0 if command[1:2] == ("check",) else 1)

    assert before == sorted(tmp_path.iterdir())


@pytest.mark.parametrize("command", LOOKS)
def test_commands_that_look_change_nothing(run: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    """In a database whose zones are not there yet, they do not appear because of such a command."""
    before = rows(tmp_path)

    run(*command, status=1 if command[0] == "import" else 0)

    assert before == rows(tmp_path)


def test_zone_that_no_service_has_started_with(run: Run) -> None:
    """A zone of the configuration that has no serial yet is shown with a warning."""
    warning = "responder: warning: acme.example.com: no service has started with this zone yet\n"
    assert warning == run("zone", "show").err
    run("token", "mint", HOST)
    assert "" == run("zone", "show").err


@pytest.mark.parametrize("command", [("token", "list"), ("token", "mint", HOST)])
def test_an_old_schema_is_changed_by_the_service_alone(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """`database.auto_upgrade` is for `serve`: no other command changes a schema that an older service works with."""
    monkeypatch.setenv("RESPONDER_DATABASE__AUTO_UPGRADE", "true")
    url = f"sqlite+aiosqlite:///{tmp_path}/responder.db"
    asyncio.run(downgrade(url, "0006"))

    assert "the database is older than this program; run: responder db upgrade" == fails(run, *command)

    assert SchemaState.BEHIND is asyncio.run(Store.check(url))


@pytest.mark.parametrize("command", [("token", "mint", HOST), ("db", "upgrade")])
def test_commands_that_make_a_database(run: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    """They report it, for whoever did not expect it."""
    forget(tmp_path)
    made = f"responder: made a new database: sqlite+aiosqlite:///{tmp_path}/responder.db\n"

    assert run(*command).err.startswith(made)

    assert made not in run(*command).err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("command", [("token", "mint", HOST, "--format", "tsig"), ("db", "upgrade")])
def test_what_root_makes_is_the_services(run: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    """Files that a command of root's makes belong to the owner of their directory, so the service can use them."""
    forget(tmp_path)
    os.chown(tmp_path, NOBODY, NOBODY)

    run(*command)

    made = {path.name: path.stat().st_uid for path in tmp_path.iterdir() if path.name != "responder.toml"}
    assert "responder.db" in made
    assert {NOBODY} == {*made.values()}


def test_upgrade_encrypts_private_keys(run: Run, tmp_path: Path) -> None:
    """`db upgrade` encrypts those that are in the database as they are, if there is a key file, and reports it once."""
    with connect(tmp_path) as database:
        database.execute("INSERT INTO acme_accounts (directory, key) VALUES ('https://ca.example/dir', 'PRIVATE KEY')")
    assert "encrypted" not in run("db", "upgrade").out
    read_key(tmp_path / "tsig.key")

    assert "encrypted private keys in the database: 1\n" in run("db", "upgrade").out

    assert "encrypted" not in run("db", "upgrade").out
    with connect(tmp_path) as database:
        assert ("sealed:",) == database.execute("SELECT substr(key, 1, 7) FROM acme_accounts").fetchone()


def test_upgrade_next_to_older_nodes(
    run: Run, tmp_path: Path, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With PostgreSQL, nodes that cannot decrypt may run while the schema is upgraded: keys wait for a second run."""
    url = postgres_server.create_database()
    monkeypatch.setenv("RESPONDER_DATABASE__URL", url)
    monkeypatch.setenv("RESPONDER_DNS__UPDATE__KEY_FILE", str(tmp_path / "tsig.key"))
    read_key(tmp_path / "tsig.key")
    run("db", "upgrade")
    insert = "INSERT INTO acme_accounts (directory, key) VALUES ('https://ca.example/dir', 'PRIVATE KEY')"
    postgres_server.execute(insert, postgres_server.name(url))
    asyncio.run(downgrade(url, "0006"))

    assert "when every node has this version, run this command again" in run("db", "upgrade").out
    query = "SELECT left(key, 7) FROM acme_accounts"
    assert "PRIVATE" == postgres_server.execute(query, postgres_server.name(url))
    assert "encrypted private keys in the database: 1\n" in run("db", "upgrade").out
    assert "sealed:" == postgres_server.execute(query, postgres_server.name(url))
