"""What the store survives: killed processes, rivals, and databases that cannot be used."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from responder.errors import Invalid, StoreUnavailable
from responder.store import SchemaState, Store, sqlite
from tests.support.disks import Disk, disk
from tests.support.keypairs import key_pair
from tests.support.places import ROOT
from tests.support.ports import free_port
from tests.support.postgres import PostgresServer, database_url, new_server
from tests.support.stores import APEX, DAY, NOW, START, new_token, store

__all__ = ["database_url", "disk", "store"]

NOBODY = 65534

_CHILD = """
import asyncio, sys
from datetime import UTC, datetime, timedelta
from responder.store import Present, Store
from tests.support.stores import APEX, NOW, SERVING, name, new_token

async def main(url, who, count):
    store = await Store.open(url)
    await store.register_zones({APEX: None}, now=NOW)
    labels = [f"{who}{number}" for number in range(100)]
    token = await store.mint(new_token(*labels))
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(count):
        label = labels[number % 100]
        operation = Present(token_id=token.id, challenge_name=name(label), value=f"{who}-{number}",
                            expires_at=NOW + timedelta(days=1), client="192.0.2.1")
        (outcome,) = (await store.apply([operation], serving=SERVING, now=NOW)).outcomes
        print(operation.value, outcome.serial, flush=True)
    await store.close()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def child(url: str, who: str, count: int) -> subprocess.Popen[str]:
    """
    A process that is ready, and presents *count* values once it reads a line. It prints each one, with its serial, when
    it is acknowledged.
    """
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD, url, who, str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pipesize=4096,  # some hundred lines: nobody gets far ahead of who reads them
        text=True,
        cwd=ROOT,
    )


def begin(*processes: subprocess.Popen[str]) -> None:
    """Let these present their values at the same time, once all of them are ready."""
    for process in processes:
        assert process.stdout is not None
        assert "ready\n" == process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()


async def test_what_was_acknowledged_survives_a_kill(database_url: str) -> None:
    """A process is killed in the middle of its work: all that it had acknowledged is in the database."""
    with child(database_url, "a", 1600) as process:
        begin(process)
        assert process.stdout is not None
        acknowledged = [process.stdout.readline().split()[0] for _ in range(100)]
        process.send_signal(signal.SIGKILL)
        acknowledged += [line.split()[0] for line in process.stdout if line.endswith("\n")]
    assert -signal.SIGKILL == process.returncode
    store = await Store.open(database_url)
    kept = {value.value for value in await store.values()}
    assert set(acknowledged) - kept == set()
    # At most one was committed without having been acknowledged yet.
    assert len(kept) - len(acknowledged) in (0, 1)
    await store.close()


async def test_two_processes_write_at_once(database_url: str) -> None:
    """Both start on a database that does not exist yet; no value and no serial is lost or given twice."""
    with child(database_url, "a", 60) as first, child(database_url, "b", 60) as second:
        begin(first, second)
        lines = [line.split() for process in (first, second) for line in process.communicate()[0].splitlines()]
    assert [first.returncode, second.returncode] == [0, 0]
    store = await Store.open(database_url)
    assert {value.value for value in await store.values()} == {value for value, _ in lines}
    # Two mints and 120 presents, each with a serial of its own.
    assert len({serial for _, serial in lines}) == 120
    assert await store.serials() == {APEX: START + 122}
    await store.close()


# What cannot be opened


async def test_a_new_file_is_private(tmp_path: Path) -> None:
    """Nobody but the owner may read the database, or look into a directory made for it."""
    path = tmp_path / "made" / "responder.db"
    store = await Store.open(f"sqlite+aiosqlite:///{path}")
    await store.register_zones({APEX: None}, now=NOW)
    modes = {file.name: oct(stat.S_IMODE(file.stat().st_mode)) for file in path.parent.glob("*")}
    assert modes == {"responder.db": "0o600", "responder.db-wal": "0o600", "responder.db-shm": "0o600"}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    await store.close()


async def test_what_is_no_database_file(tmp_path: Path) -> None:
    """Each fault has one clear line that names the file and what to do."""
    prose, directory, inside = tmp_path / "prose.txt", tmp_path / "directory", tmp_path / "prose.txt" / "x.db"
    prose.write_text("This is not a database, however long it may be. " * 100)
    directory.mkdir()
    advice = "check database.url, and that this user may write there"
    expected = {
        prose: f"cannot use the database {prose}: it is not an SQLite database: check database.url",
        directory: f"cannot open the database {directory}: is a directory: {advice}",
        inside: f"cannot open the database {inside}: not a directory: {advice}",
    }
    for path, line in expected.items():
        with pytest.raises(StoreUnavailable) as caught:
            await Store.open(f"sqlite+aiosqlite:///{path}")
        assert str(caught.value) == line
    with pytest.raises(StoreUnavailable, match="not an SQLite database"):
        await Store.check(f"sqlite+aiosqlite:///{prose}")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is denied to root")
async def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    """The mend is named."""
    tmp_path.chmod(0o500)  # noqa: ASYNC240
    with pytest.raises(StoreUnavailable, match=r"permission denied: check database\.url"):
        await Store.open(f"sqlite+aiosqlite:///{tmp_path / 'responder.db'}")


def _delete(path: Path) -> None:
    path.unlink()


def _move(path: Path) -> None:
    path.rename(path.with_name("elsewhere.db"))


def _replace(path: Path) -> None:
    shutil.copyfile(path, path.with_name("copy.db"))
    path.with_name("copy.db").rename(path)


def _truncate(path: Path) -> None:
    path.write_bytes(b"")


def _delete_log(path: Path) -> None:
    path.with_name(f"{path.name}-wal").unlink()


def _delete_index(path: Path) -> None:
    path.with_name(f"{path.name}-shm").unlink()


@pytest.mark.parametrize("lose", [_delete, _move, _replace, _truncate, _delete_log, _delete_index])
async def test_a_file_that_is_lost_while_in_use(tmp_path: Path, lose: Callable[[Path], None]) -> None:
    """
    It is named, and neither read nor written, because the next process would find something else; and no look at it
    from another process destroys what is left.
    """
    path = tmp_path / "responder.db"
    url = f"sqlite+aiosqlite:///{path}"
    store = await Store.open(url)
    await store.register_zones({APEX: None}, now=NOW)
    await store.ping()

    lose(path)
    left = sorted(tmp_path.iterdir())  # noqa: ASYNC240

    for attempt in (store.ping, store.serials, lambda: store.mint(new_token("some")), store.tokens):
        with pytest.raises(StoreUnavailable, match="was deleted, moved or replaced while in use: put it back, or res"):
            await attempt()
    if not path.exists() or not path.stat().st_size:
        assert SchemaState.ABSENT is await Store.check(url)
        assert left == sorted(tmp_path.iterdir())  # noqa: ASYNC240
    await store.close()


async def test_a_file_that_is_put_back(tmp_path: Path) -> None:
    """Work goes on, with all that was there."""
    path = tmp_path / "responder.db"
    store = await Store.open(f"sqlite+aiosqlite:///{path}")
    await store.register_zones({APEX: None}, now=NOW)
    _move(path)
    with pytest.raises(StoreUnavailable):
        await store.ping()
    path.with_name("elsewhere.db").rename(path)

    assert {APEX: START} == await store.serials()
    await store.close()


async def test_another_database_in_the_same_place(postgres_server: PostgresServer) -> None:
    """A database that is dropped and made anew under a running service is not taken for the one that was there."""
    url = postgres_server.create_database()
    name = postgres_server.name(url)
    store = await Store.open(url)
    await store.register_zones({APEX: None}, now=NOW)
    assert {APEX: START} == await store.serials()

    postgres_server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    postgres_server.execute(f"CREATE DATABASE {name}")
    with pytest.raises(StoreUnavailable, match="a table is missing: restore the database, or create the tables"):
        await store.serials()
    other = await Store.open(url)
    await other.register_zones({APEX: None}, now=NOW)
    with pytest.raises(
        StoreUnavailable, match="another database has taken the place of the one in use: put that one back"
    ):
        await store.serials()

    assert {APEX: START} == await other.serials()
    await store.close()
    await other.close()


async def test_what_a_database_is_known_by(database_url: str) -> None:
    """A database keeps when it was created, and counts as new for a day."""
    before = datetime.now(UTC).replace(microsecond=0)
    store = await Store.open(database_url)
    origin = await store.origin()
    await store.close()
    again = await Store.open(database_url)

    assert origin == await again.origin()
    assert origin.created_at is not None
    assert before <= origin.created_at <= datetime.now(UTC)
    assert origin.condition(origin.created_at).startswith("new: it was created at 20")
    assert "ok" == origin.condition(origin.created_at + DAY)
    assert "ok" == replace(origin, created_at=None).condition(origin.created_at)
    await again._database.write(lambda connection: connection.execute(text("DELETE FROM origin")))
    with pytest.raises(StoreUnavailable, match="the row of the table origin is missing: restore the database"):
        await again.origin()
    await again.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
async def test_files_belong_to_the_owner_of_their_directory(tmp_path: Path) -> None:
    """The service can use a database that root makes in its directory, and directories that were made for it."""
    os.chown(tmp_path, NOBODY, NOBODY)
    path = tmp_path / "made" / "for" / "responder.db"
    store = await Store.open(f"sqlite+aiosqlite:///{path}")
    await store.register_zones({APEX: None}, now=NOW)

    made = [tmp_path / "made", path.parent, *path.parent.iterdir()]
    assert 5 == len(made)
    assert {(NOBODY, NOBODY)} == {(file.stat().st_uid, file.stat().st_gid) for file in made}
    await store.close()


async def test_a_locked_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another writer that does not let go is named as the cause; once it has, work goes on."""
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT", 0.01)
    store = await Store.open(f"sqlite+aiosqlite:///{tmp_path / 'responder.db'}")
    other = sqlite3.connect(tmp_path / "responder.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="another process keeps it locked"):
        await store.register_zones({APEX: None}, now=NOW)
    await store.ping()
    other.execute("ROLLBACK")
    other.close()
    await store.register_zones({APEX: None}, now=NOW)
    assert await store.serials() == {APEX: START}
    await store.close()


async def test_a_file_that_somebody_else_is_making(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is about to write the first page is waited for, where SQLite would fail at once; but not for ever."""
    url, path = f"sqlite+aiosqlite:///{tmp_path / 'responder.db'}", tmp_path / "responder.db"
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        with monkeypatch.context() as patch:
            patch.setattr(sqlite, "BUSY_TIMEOUT", 0.02)
            with pytest.raises(StoreUnavailable, match="another process keeps it locked"):
                await Store.open(url)

        monkeypatch.setattr(sqlite, "sleep", lambda _: other.execute("COMMIT"))
        store = await Store.open(url)

        assert not other.in_transaction
        await store.close()


async def repeated(attempt: Callable[[], Coroutine[Any, Any, object]]) -> None:
    for _ in range(100):
        await attempt()


async def test_a_disk_that_fills_up(disk: Disk) -> None:
    """Nothing can be changed, also not as a proof that it can; everything can be read; and room ends that at once."""
    store = await Store.open(f"sqlite+aiosqlite:///{disk.directory / 'responder.db'}")
    await store.register_zones({APEX: None}, now=NOW)
    await store.prove_writable()
    disk.fill()

    for attempt in (store.prove_writable, lambda: store.mint(new_token("some"))):
        with pytest.raises(StoreUnavailable, match="the disk is full: make room on it"):
            await repeated(attempt)  # there may be some room left in the file
    await store.ping()
    assert {APEX: START} == await store.serials()

    disk.empty()
    await store.prove_writable()
    await store.mint(new_token("some"))
    await store.close()


async def test_a_log_that_fills_the_disk(disk: Disk) -> None:
    """What is in the write-ahead log is moved to the database when there is no room for more: then there is again."""
    url = f"sqlite+aiosqlite:///{disk.directory / 'responder.db'}"
    store = await Store.open(url)
    await store.prove_writable()
    await store.close()  # now the database itself has all the pages that it needs
    store = await Store.open(url)
    disk.fill(leave=400_000)
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await repeated(store.prove_writable)
        await store.prove_writable()
    await store.close()


async def test_a_start_on_a_full_disk(disk: Disk) -> None:
    """Where not even the index of the log has room, the reason is named, and nothing is blamed on the disk itself."""
    url = f"sqlite+aiosqlite:///{disk.directory / 'responder.db'}"
    await (await Store.open(url)).close()
    disk.fill()
    with pytest.raises(StoreUnavailable, match="the disk is full: make room on it"):
        await Store.open(url)


async def test_a_full_disk(tmp_path: Path) -> None:
    """What does not fit is refused as a whole, and reading goes on."""
    store = await Store.open(f"sqlite+aiosqlite:///{tmp_path / 'responder.db'}")
    await store.register_zones({APEX: None}, now=NOW)
    await store._database.write(lambda connection: connection.execute(text("PRAGMA max_page_count = 1")))
    with pytest.raises(StoreUnavailable, match="the disk is full: make room on it"):
        await store.mint(new_token(*(f"h{number}" for number in range(500))))
    assert await store.tokens() == []
    await store.close()


async def test_a_fault_of_our_own_shows_no_sql(store: Store) -> None:
    """Even what should never happen is one line without statement and values."""
    with pytest.raises(StoreUnavailable, match="report this as a fault of the program") as caught:
        await store._database.write(lambda connection: connection.execute(text("SELECT secret FROM zones")))
    assert "SELECT" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("postgresql+asyncpg://me:hunter2@127.0.0.1:1/responder", "nothing answers there"),
        ("postgresql+asyncpg://me:hunter2@/responder?host=/nowhere", "nothing answers there"),
        ("postgresql+asyncpg://me:hunter2@host/responder?sslmode=require", "does not know: sslmode"),
        ("postgresql+asyncpg://me:hunter2@host/responder?loop=x", "does not know: loop"),
        ("postgresql+asyncpg://me:hunter2@host/responder?statement_cache_size=no", "a number: statement_cache_size"),
        ("postgresql+asyncpg://me:hunter2@127.0.0.1:1/responder?ssl=maybe", "cannot use an option in database.url"),
        ("postgresql+asyncpg://me:hunter2@host:65536/responder", "has an invalid port"),
        ("postgresql+asyncpg://me:hunter2@/responder?host=a:1&host=b:65536", "has an invalid port"),
        (
            "postgresql+asyncpg://me:hunter2@/responder?host=a:1&host=b:2",
            "database.url names several servers, but only one takes writes: add target_session_attrs=primary",
        ),
        ("postgresql+asyncpg://me:hunter2@/responder?host=a&port=hunter2", "has an invalid port"),
        ("postgresql+asyncpg://me:hunter2@a..b/responder", "has an invalid host"),
        (f"postgresql+asyncpg://me:hunter2@{'a' * 64}.example.com/responder", "has an invalid host"),
        (
            "postgresql+asyncpg://me:hunter2@host:hunter2/responder",
            "database.url is not the URL of a supported database",
        ),
        ("mysql://me:hunter2@host/name", "database.url is not the URL of a supported database"),
        ("me:hunter2@host", "database.url is not the URL of a supported database"),
        ("sqlite+aiosqlite://", "database.url names no file"),
        ("sqlite+aiosqlite:///:memory:", "database.url names no file"),
    ],
)
async def test_urls_that_lead_nowhere(url: str, line: str) -> None:
    """The text says what is wrong and never shows a password."""
    for method in (Store.open, Store.check, Store.upgrade):
        with pytest.raises((StoreUnavailable, Invalid), match=line) as caught:
            await method(url)
        assert "hunter2" not in str(caught.value)


async def test_a_database_that_postgresql_does_not_have(postgres_server: PostgresServer) -> None:
    """The command that makes one is named."""
    url = postgres_server.create_database().replace("/test", "/missing")
    with pytest.raises(StoreUnavailable, match=r"there is no such database: create it \(createdb\)"):
        await Store.open(url)


async def test_options_of_the_driver(postgres_server: PostgresServer) -> None:
    """Those that are numbers are taken, as for a pooler that knows no prepared statements."""
    url = f"{postgres_server.create_database()}&statement_cache_size=0&prepared_statement_cache_size=0"
    await (await Store.open(url)).close()


async def test_a_server_without_tls() -> None:
    """It does answer, so that nobody has to look for it."""
    over = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)  # SSLRequest (PostgreSQL documentation, section "SSL Session Encryption")
        writer.write(b"N")
        await reader.read()
        writer.close()
        await writer.wait_closed()
        over.set()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(
            StoreUnavailable, match=r"does not accept TLS: set ssl = on there, or remove ssl=\.\.\. from"
        ):
            await Store.open(f"postgresql+asyncpg://me@127.0.0.1:{port}/responder?ssl=require")
        await over.wait()


@pytest.mark.parametrize("userinfo", ["me:SE@CR@ET", "me:SECR@ET", "me/me:SECRET", "me@me:SE@CRET"])
async def test_a_password_with_special_characters(userinfo: str) -> None:
    """What the URL does not mark as the password is not shown either: only what follows the last @ is the host."""
    with pytest.raises(StoreUnavailable) as caught:
        await Store.open(f"postgresql+asyncpg://{userinfo}@127.0.0.1:1/responder")

    assert not re.search("SE|CR|ET", str(caught.value))


@pytest.fixture
def server_with_old_certificate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The URL of a database on a server whose certificate is from a known issuer, and has expired."""
    pair = key_pair("localhost", begins=datetime.now(UTC) - timedelta(days=365))
    (tmp_path / "root.crt").write_bytes(pair.chain)
    monkeypatch.setenv("PGSSLROOTCERT", str(tmp_path / "root.crt"))
    port = free_port()
    with new_server() as server:
        server.stop()
        for name, content in (("server.crt", pair.chain), ("server.key", pair.key)):
            path = server.data / name
            path.touch(0o600)
            path.write_bytes(content)
            if os.geteuid() == 0:
                shutil.chown(path, "postgres", "postgres")
        server.start("ssl=on", "listen_addresses=127.0.0.1", f"port={port}")
        yield f"postgresql+asyncpg://postgres@localhost:{port}/postgres?ssl=verify-full"


async def test_an_old_certificate(server_with_old_certificate: str) -> None:
    """The reason is the certificate, or the clock here, and not that nothing answers."""
    with pytest.raises(StoreUnavailable, match="its certificate has expired, or the clock of this machine is ahead: "):
        await Store.open(server_with_old_certificate)


async def test_a_connection_that_the_server_closed(postgres_server: PostgresServer) -> None:
    """A server that restarts, or an administrator, costs nobody a request."""
    store = await Store.open(postgres_server.create_database())
    await store.register_zones({APEX: None}, now=NOW)
    other = await Store.open(postgres_server.create_database())
    await other._database.read(
        lambda connection: connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                "AND backend_type = 'client backend'"
            )
        )
    )
    assert await store.serials() == {APEX: START}
    await store.close()
    await other.close()
