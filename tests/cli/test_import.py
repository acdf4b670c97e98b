"""`responder import acme-dns`: what comes over from which database, what does not, and what is said about it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from responder.cli import takeover
from responder.errors import NameTaken
from responder.names import Name
from responder.store import Account, NewToken, Store, acmedns
from responder.tokens.token import Grant
from tests.support.acmednsdb import SALT, AcmeDns, acme_dns
from tests.support.commands import HOST, Run, bare, configuration, environment, fails, program, run
from tests.support.postgres import PostgresServer, database_url
from tests.support.service import connect, control, rows, until
from tests.support.stores import APEX, DAY, NOW, SERVING, shown, store

__all__ = ["acme_dns", "bare", "configuration", "database_url", "environment", "run", "store"]

OLD, NEW, NEWEST, ODD = "o" * 43, "n" * 43, "N" * 43, "not a digest"
IMPORT = ("import", "acme-dns")
ACCOUNTS = 20_000
"""More than are taken over before anybody notices that it goes on."""


@pytest.fixture
def sqlite(tmp_path: Path) -> AcmeDns:
    """An SQLite database of an acme-dns server."""
    return AcmeDns(str(tmp_path / "acme-dns.db"))


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two accounts are read at a time."""
    monkeypatch.setattr(acmedns, "CHUNK", 2)
    monkeypatch.setattr(takeover, "PAUSE", 0.0)


def challenge_name(subdomain: str) -> str:
    return f"{subdomain}.acme.example.com"


# What comes over


def test_accounts_come_over(run: Run, tmp_path: Path, acme_dns: AcmeDns) -> None:
    """User name, password, name, networks and the two newest values, from databases of both kinds."""
    hashed = f"{SALT}{'h' * 31}"
    user, subdomain = acme_dns.register(
        (OLD, 1_700_000_000),
        (NEWEST, 1_700_000_002),
        (NEW, 1_700_000_001),
        allow_from='["192.0.2.1/24", "[2001:db8::1]/64", "198.51.100.7"]',
        password=hashed,
    )
    before = datetime.now(UTC).replace(microsecond=0)

    done = run(*IMPORT, acme_dns.url)

    assert ("imported 1 account with 2 values; imported before: 0; not imported: 0\n", "") == (done.out, done.err)
    (token,) = run("token", "list", "--output", "json").json
    assert user == token["id"]
    name = challenge_name(subdomain)
    assert [{"hostname": name, "challenge_name": name, "cname": None, "served": True}] == token["hostnames"]
    assert ["192.0.2.0/24", "2001:db8::/64", "198.51.100.7/32"] == token["allow_from"]
    assert ("imported from acme-dns", "2023-11-14T22:13:22+00:00") == (token["description"], token["last_used_at"])
    values = run("value", "list", "--output", "json").json
    assert [(NEW, name, user), (NEWEST, name, user)] == [
        (value["value"], value["challenge_name"], value["token_id"]) for value in values
    ]
    assert {True} == {datetime.fromisoformat(value["expires_at"]) - before >= DAY for value in values}
    with connect(tmp_path) as database:
        secrets = database.execute("SELECT generation, digest, bcrypt FROM secrets").fetchall()
    assert [(1, None, hashed.encode())] == secrets
    assert f"{name}: for any hostname with a CNAME to it" in run("token", "show", user).out


def test_account_that_was_never_used(run: Run, sqlite: AcmeDns) -> None:
    """It has no values, but its name exists, and it shows that it was not used."""
    sqlite.register()

    run(*IMPORT, sqlite.url)

    (token,) = run("token", "list", "--output", "json").json
    assert (None, []) == (token["last_used_at"], token["allow_from"])
    assert [] == run("value", "list", "--output", "json").json
    assert {"import"} == {event["action"] for event in run("audit", "--output", "json").json}


def test_moment_that_is_to_come(run: Run, sqlite: AcmeDns) -> None:
    """A clock that was wrong over there does no harm here, nor does what is no number, or no value."""
    sqlite.register((OLD, 2**62), (ODD, 5))
    sqlite.execute("UPDATE txt SET LastUpdate = 'soon' WHERE Value = $1", ODD)

    run(*IMPORT, sqlite.url)

    (token,) = run("token", "list", "--output", "json").json
    assert datetime.now(UTC) - datetime.fromisoformat(token["last_used_at"]) < timedelta(minutes=5)
    assert [OLD] == [value["value"] for value in run("value", "list", "--output", "json").json]


def test_twice(run: Run, tmp_path: Path, sqlite: AcmeDns) -> None:
    """The second time only what is new comes over; what has changed here meanwhile stays as it is."""
    user, _ = sqlite.register((OLD, 1))
    run(*IMPORT, sqlite.url)
    run("value", "clear", run("value", "list", "--output", "json").json[0]["challenge_name"])
    run("token", "revoke", user)
    before = rows(tmp_path)

    done = run(*IMPORT, sqlite.url)

    assert "imported 0 accounts with 0 values; imported before: 1; not imported: 0\n" == done.out
    assert before == rows(tmp_path)
    sqlite.register()
    assert "imported 1 account with 0 values; imported before: 1" in run(*IMPORT, sqlite.url).out


def test_dry_run(run: Run, tmp_path: Path, sqlite: AcmeDns) -> None:
    """Each account is listed with what it would have; nothing is changed, here or over there."""
    first, second = sorted(
        [sqlite.register((OLD, 1), (NEW, 2), allow_from='["192.0.2.0/24"]'), sqlite.register(subdomain="second")]
    )
    sqlite.register(subdomain="ns1")
    before, source = rows(tmp_path), Path(sqlite.url).read_bytes()

    done = run(*IMPORT, sqlite.url, "--dry-run", status=1)

    lines = {user: f"{user}  {challenge_name(subdomain)}  from " for user, subdomain in (first, second)}
    lines = {
        user: line + ("anywhere" if "  second." in line else f"192.0.2.0/24  {OLD}  {NEW}")
        for user, line in lines.items()
    }
    assert [
        *lines.values(),
        "would import 2 accounts with 2 values; imported before: 0; not imported: 1",
    ] == done.out.splitlines()
    assert "ns1.acme.example.com has records from the configuration" in done.err
    as_json = run(*IMPORT, sqlite.url, "--dry-run", "--output", "json", status=1).json
    assert [first[0], second[0]] == [account["id"] for account in as_json["accounts"]]
    assert (True, 2, 2, 0, 1) == tuple(as_json[key] for key in ("dry_run", "taken_over", "values", "known", "refused"))
    assert 1 == len(as_json["remarks"])
    assert before == rows(tmp_path)
    assert source == Path(sqlite.url).read_bytes()
    run(*IMPORT, sqlite.url, status=1)
    assert (
        "would import 0 accounts with 0 values; imported before: 2"
        in run(*IMPORT, sqlite.url, "--dry-run", status=1).out
    )


@pytest.mark.usefixtures("small_parts")
def test_many(run: Run, acme_dns: AcmeDns) -> None:
    """However many there are, each comes over once."""
    users = {acme_dns.register((f"{number:043}", number))[0] for number in range(1, 8)}

    done = run(*IMPORT, acme_dns.url, "--output", "json")

    assert {"dry_run": False, "taken_over": 7, "values": 7, "known": 0, "refused": 0, "remarks": []} == done.json
    assert users == {token["id"] for token in run("token", "list", "--output", "json").json}


@pytest.mark.usefixtures("small_parts")
def test_interrupted(run: Run, sqlite: AcmeDns, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was on disk when it was interrupted stays; the next run goes on with the rest."""
    users = {sqlite.register()[0] for _ in range(5)}
    whole = Store.take_over
    calls = 0

    async def interrupted(self: Store, batch: Any, **how: Any) -> set[UUID]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return await whole(self, batch, **how)

    monkeypatch.setattr(Store, "take_over", interrupted)
    assert "responder: interrupted" in run(*IMPORT, sqlite.url, status=1).err
    assert 2 == len(run("token", "list", "--output", "json").json)

    assert "imported 3 accounts with 0 values; imported before: 2" in run(*IMPORT, sqlite.url).out
    assert users == {token["id"] for token in run("token", "list", "--output", "json").json}


def test_interrupted_by_the_keyboard(configuration: Path, sqlite: AcmeDns, tmp_path: Path) -> None:
    """Ctrl-C ends it with one line, whatever it is at; the database is whole."""
    with sqlite3.connect(sqlite.url) as database:
        accounts = [(str(uuid4()), f"{SALT}{number:031}".encode(), f"n{number}") for number in range(ACCOUNTS)]
        database.executemany("INSERT INTO records VALUES (?, ?, ?, '[]')", accounts)
    database.close()
    process = program("--config", str(configuration), *IMPORT, sqlite.url, stderr=subprocess.PIPE)
    assert process.stderr is not None
    while not count(tmp_path):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()

    assert (1, "responder: interrupted") == (process.returncode, err.decode().strip())
    assert 0 < count(tmp_path) < ACCOUNTS
    with connect(tmp_path) as database:
        assert [("ok",)] == database.execute("PRAGMA integrity_check").fetchall()


def count(directory: Path) -> int:
    with connect(directory) as database:
        number: int = database.execute("SELECT count(*) FROM tokens").fetchone()[0]
    return number


# What does not


@pytest.mark.parametrize(
    ("account", "reason"),
    [
        ({"username": "admin"}, "its user name is not a UUID"),
        ({"username": "\x1b[31m"}, "its user name is not a UUID"),
        ({"subdomain": "a.b"}, "its subdomain is not a single label"),
        ({"subdomain": "_acme-challenge"}, "its subdomain is not a single label"),
        ({"subdomain": "x" * 64}, "its subdomain is not a single label"),
        ({"subdomain": ""}, "its subdomain is not a single label"),
        ({"subdomain": "api"}, "api.acme.example.com has records from the configuration"),
        ({"password": "plain"}, "its password is not a bcrypt hash with a cost"),
        ({"password": SALT.replace("10", "31") + "x" * 31}, "its password is not a bcrypt hash with a cost"),
        ({"password": SALT.replace(".", "x") + "x" * 31}, "its password is not a bcrypt hash with a cost"),
        ({"allow_from": None}, "its AllowFrom is not a JSON list"),
        ({"allow_from": ""}, "its AllowFrom is not a JSON list"),
        ({"allow_from": '"192.0.2.0/24"'}, "its AllowFrom is not a JSON list"),
        ({"allow_from": '["office", 5]'}, "no network in its AllowFrom can be read"),
        ({"allow_from": '["fe80::%eth0/64"]'}, "no network in its AllowFrom can be read"),
    ],
)
def test_accounts_that_cannot_be_had(run: Run, sqlite: AcmeDns, account: dict[str, Any], reason: str) -> None:
    """Each is named with the reason, and hinders no other; the exit status tells, too."""
    user, _ = sqlite.register(**account)
    sqlite.register()

    done = run(*IMPORT, sqlite.url, status=1)

    assert "imported 1 account with 0 values; imported before: 0; not imported: 1\n" == done.out
    (line,) = done.err.splitlines()
    name = user if user.isprintable() else "'\\x1b[31m'"
    assert line.startswith(f"responder: not imported: {name}: {reason}")


def test_networks_that_cannot_be_read(run: Run, sqlite: AcmeDns) -> None:
    """They are left out, as acme-dns does, and named; the others hold."""
    user, _ = sqlite.register(allow_from='["192.0.2.0/24", "office"]')

    done = run(*IMPORT, sqlite.url)

    assert f"responder: imported in part: {user}: networks that cannot be read were left out: 'office'\n" == done.err
    assert ["192.0.2.0/24"] == run("token", "show", user, "--output", "json").json["allow_from"]


def test_octets(run: Run, sqlite: AcmeDns, small_parts: None) -> None:
    """Columns into which somebody has written octets mean the text that these are, if they are any."""
    users = [sqlite.register((NEW, 1_700_000_000))[0] for _ in range(3)]
    for table, columns in {"records": ["Username", "Subdomain", "AllowFrom"], "txt": ["Subdomain", "Value"]}.items():
        for column in columns:
            sqlite.execute(f"UPDATE {table} SET {column} = CAST({column} AS BLOB)")  # our own names
    for column in ("Username", "Subdomain", "AllowFrom"):
        user, _ = sqlite.register()
        sqlite.execute(f"UPDATE records SET {column} = x'00ff' WHERE Username = $1", user)

    done = run(*IMPORT, sqlite.url, status=1)

    assert "imported 3 accounts with 3 values; imported before: 0; not imported: 3\n" == done.out
    assert "responder: not imported: '\\x00\\\\xff': its user name is not a UUID" in done.err
    assert {*users} == {token["id"] for token in run("token", "list", "--output", "json").json}


@pytest.mark.parametrize("column", ["Username", "Subdomain", "AllowFrom", "Password"])
def test_text_that_is_not_utf8(run: Run, sqlite: AcmeDns, small_parts: None, column: str) -> None:
    """It costs the account that it is in, and no other, wherever it comes among them."""
    users = [sqlite.register((NEW, 1_700_000_000), username=f"{digit}" * 32)[0] for digit in "0123abcdef"]
    user, _ = sqlite.register(username="5" * 32)
    sqlite.execute(f"UPDATE records SET {column} = CAST(x'3577ff' AS TEXT) WHERE Username = $1", user)  # our own names

    done = run(*IMPORT, sqlite.url, status=1)

    assert done.out == "imported 10 accounts with 10 values; imported before: 0; not imported: 1\n"
    name = "5w\\xff" if column == "Username" else user
    assert done.err.startswith(f"responder: not imported: {name}: ")
    assert {str(UUID(each)) for each in users} == {each["id"] for each in run("token", "list", "--output", "json").json}


def test_value_that_is_not_utf8(run: Run, sqlite: AcmeDns) -> None:
    """It is none that a CA looks for: the others come over."""
    user, _ = sqlite.register((NEW, 1_700_000_000), (OLD, 1_600_000_000))
    sqlite.execute("UPDATE txt SET Value = CAST(x'ff' AS TEXT) WHERE Value = $1", OLD)

    assert run(*IMPORT, sqlite.url).out == "imported 1 account with 1 value; imported before: 0; not imported: 0\n"
    assert [NEW] == [each["value"] for each in run("value", "list", "--output", "json").json]
    assert user


def test_names_that_differ_in_letter_case(run: Run, sqlite: AcmeDns, small_parts: None) -> None:
    """DNS knows one name only, which is the first account's: the other is named, also if it is tried or run again."""
    first, other = f"{UUID('1' * 32)}", f"{UUID('9' * 32)}"
    sqlite.register(username=other, subdomain="same")
    sqlite.register(username=first, subdomain="SAME")
    for _ in range(3):
        sqlite.register()

    for option in (["--dry-run"], [], []):
        done = run(*IMPORT, sqlite.url, *option, status=1)
        assert done.err == (
            f"responder: not imported: {other}: account {first} has the same name same.acme.example.com, because DNS "
            "ignores letter case: mint a new token for its hostname\n"
        )
    assert other not in {token["id"] for token in run("token", "list", "--output", "json").json}


def test_options_of_sqlite(run: Run, sqlite: AcmeDns) -> None:
    """None is taken, and none is passed over in silence."""
    fault = 'DATABASE-URL has a "?" after the path, but SQLite takes no options here: remove it and what follows'
    assert fails(run, *IMPORT, f"sqlite:///{sqlite.url}?mode=ro") == fault


def test_name_that_somebody_has(run: Run, sqlite: AcmeDns) -> None:
    """Of many accounts, the one whose name belongs to another token here stays out, and no other."""
    run("token", "mint", HOST, "--alias", "mine.acme.example.com")
    users = [sqlite.register()[0] for _ in range(6)]
    user, _ = sqlite.register(subdomain="mine")

    for option in (["--dry-run"], []):
        done = run(*IMPORT, sqlite.url, *option, status=1)
        assert "6 accounts with 0 values; imported before: 0; not imported: 1" in done.out
        fault = f"{user}: mine.acme.example.com belongs to another token: see token list"
        assert f"responder: not imported: {fault}\n" == done.err
    assert {*users} < {token["id"] for token in run("token", "list", "--output", "json").json}


@pytest.mark.parametrize("text", ["null", "[]"])
def test_no_networks(text: str) -> None:
    """JSON's null is what Go makes of a list that was never made."""
    assert ((), []) == takeover.parse_networks(text)


# Databases that are none


def sql(directory: Path, *statements: str) -> str:
    """The path of an SQLite database made by *statements*."""
    path = directory / "other.db"
    database = sqlite3.connect(path)
    for statement in statements:
        database.execute(statement)
    database.commit()
    database.close()
    return str(path)


def test_databases_of_others(run: Run, sqlite: AcmeDns, tmp_path: Path) -> None:
    """A wrong database is named as such, in one line."""
    text = tmp_path / "text"
    text.write_text("this is not a database, but long enough to be taken for one" * 9)
    table = "CREATE TABLE acmedns (Name TEXT, Value TEXT)"
    ours = f"sqlite:///{tmp_path}/responder.db"
    for url, fault in (
        (str(tmp_path / "none"), f"there is no readable file {tmp_path}/none: name the SQLite database"),
        (str(tmp_path), f"there is no readable file {tmp_path}"),
        (str(text), "it is not an SQLite database: check DATABASE-URL"),
        (ours, "not a database of acme-dns, because the table acmedns is missing or different"),
        (sql(tmp_path, table, "CREATE TABLE records (Username TEXT)"), "the table records is missing or different"),
        ("mysql://me:hunter2@host/x", "DATABASE-URL is not for a database that acme-dns supports"),
        ("host=localhost user=me password=hunter2", "DATABASE-URL is not for a database that acme-dns supports"),
        ("sqlite://", "DATABASE-URL is not for a database that acme-dns supports"),
        ("postgres://me:hunter2@host:port/x", "DATABASE-URL is not for a database that acme-dns supports"),
        ("postgres://me:hunter2@127.0.0.1:1/x", "nothing answers there: check that PostgreSQL runs, and DATABASE-URL"),
        ("postgres://me@127.0.0.1:1/x?bogus=x", "DATABASE-URL has an option that asyncpg does not know: bogus"),
    ):
        line = fails(run, *IMPORT, url)
        assert fault in line
        assert "hunter2" not in line
    assert not (tmp_path / "none").exists()
    assert [] == run("token", "list", "--output", "json").json


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("DELETE FROM acmedns", "from before acme-dns 1.0"),
        ("UPDATE acmedns SET Value = '0'", "from before acme-dns 1.0"),
        ("UPDATE acmedns SET Value = '2'", "newer than the supported versions"),
    ],
)
def test_versions_of_the_tables(run: Run, acme_dns: AcmeDns, statement: str, fault: str) -> None:
    """Tables of another version are left alone: what is in them may mean something else."""
    acme_dns.register()
    acme_dns.execute(statement)

    assert fault in fails(run, *IMPORT, acme_dns.url)


def test_locked_database(run: Run, sqlite: AcmeDns, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that somebody keeps is one line, not a hang."""
    monkeypatch.setattr("responder.store.sqlite.BUSY_TIMEOUT", 0.01)
    locked = sqlite3.connect(sqlite.url, isolation_level=None)
    locked.execute("BEGIN EXCLUSIVE")
    try:
        assert "another process keeps it locked" in fails(run, *IMPORT, sqlite.url)
    finally:
        locked.close()


def test_read_only_file(run: Run, sqlite: AcmeDns, tmp_path: Path) -> None:
    """The file is opened for reading, and no other is made beside it."""
    sqlite.register((OLD, 1))
    path = Path(sqlite.url)
    path.chmod(0o400)
    before = sha256(path.read_bytes()).digest(), path.stat().st_mtime_ns

    for url in (sqlite.url, f"sqlite:///{path}", f"sqlite3:///{path}", f"sqlite+aiosqlite:///{path}"):
        run(*IMPORT, url)

    assert before == (sha256(path.read_bytes()).digest(), path.stat().st_mtime_ns)
    assert [path] == list(tmp_path.glob("acme-dns*"))


def test_options_of_libpq(run: Run, postgres_server: PostgresServer) -> None:
    """A URL that lib/pq takes is taken, its sslmode included."""
    source = AcmeDns(postgres_server.create_database().replace("postgresql+asyncpg", "postgres"))
    source.register()

    assert "imported 1 account" in run(*IMPORT, f"{source.url}&sslmode=disable").out


# Zones


def test_zones(run: Run, sqlite: AcmeDns, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several zones, the one that has acme-dns's names has to be said."""
    sqlite.register(subdomain="x")
    zones = [
        {"name": name, "hostmaster": "h@example.com", "nameservers": {f"ns1.{name}": ["192.0.2.1"]}}
        for name in ("acme.example.com", "auth.example.org")
    ]
    monkeypatch.setenv("RESPONDER_ZONES", str(zones).replace("'", '"'))

    assert "there are several zones (acme.example.com, auth.example.org)" in fails(run, *IMPORT, sqlite.url)
    assert "--zone example.org is not served here" in fails(run, *IMPORT, sqlite.url, "--zone", "example.org")
    run(*IMPORT, sqlite.url, "--zone", "AUTH.example.org.")
    (token,) = run("token", "list", "--output", "json").json
    assert "x.auth.example.org" == token["hostnames"][0]["challenge_name"]


# Terminals


def test_progress_on_a_terminal(configuration: Path, sqlite: AcmeDns) -> None:
    """On a terminal there is a bar while it works, and only the outcome once it has."""
    sqlite.register()
    ours, theirs = os.openpty()
    try:
        process = program(
            "--config",
            str(configuration),
            *IMPORT,
            sqlite.url,
            stdout=subprocess.PIPE,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm"},
        )
        os.close(theirs)
        drawn = drawn_on(ours)
        out, _ = process.communicate()
    finally:
        os.close(ours)

    assert b"imported 1 account with 0 values; imported before: 0; not imported: 0\n" == out
    assert "accounts" in drawn
    assert "1/1" in drawn


def drawn_on(terminal: int) -> str:
    """All that is drawn on a terminal until nobody has it open any more."""
    drawn = b""
    with contextlib.suppress(OSError):  # EIO is what says so
        while more := os.read(terminal, 65536):
            drawn += more
    return drawn.decode()


# The store


def account(label: str, *values: str, **more: Any) -> Account:
    """An account whose name in the first zone is *label*."""
    name = Name.from_labels([label.encode(), *APEX.labels])
    new = NewToken(
        digest=None,
        bcrypt=SALT.encode() + b"x" * 31,
        grants=(Grant(hostname=name, challenge_name=name, apex=APEX),),
        created_at=NOW,
        **more,
    )
    return Account(token=new, values=values, last_used_at=NOW - DAY)


def ids(accounts: Iterable[Account]) -> set[UUID]:
    return {account.token.id for account in accounts}


async def test_store_takes_over(store: Store) -> None:
    """Each account becomes a token with its values, served from then on; the others are left as they are."""
    first, second, third = account("a", OLD, NEW), account("b"), account("c")
    assert ids([first]) == await store.take_over([first], serving=SERVING, at=NOW, until=NOW + DAY)
    serial = (await store.serials())[APEX]

    assert ids([second, third]) == await store.take_over(
        [third, first, second], serving=SERVING, at=NOW, until=NOW + DAY
    )

    assert {"a": (NEW, OLD), "b": (), "c": ()} == {
        str(name).partition(".")[0]: v for name, v in (await shown(store)).items()
    }
    assert first.token.bcrypt == await store.find_bcrypt(first.token.id)
    assert NOW - DAY == (await store.token(second.token.id)).last_used_at
    assert serial < (await store.serials())[APEX]
    assert set() == await store.take_over([third, first, second], serving=SERVING, at=NOW, until=NOW + DAY)


async def test_store_takes_over_all_or_none(store: Store) -> None:
    """A name that another token has is the fault of one, and then none is taken over."""
    await store.take_over([account("a")], serving=SERVING, at=NOW, until=NOW + DAY)
    name = Name.parse("a.acme.example.com")
    hostname = Name.parse("other.example.com")
    clash = NewToken(digest=None, grants=(Grant(hostname=hostname, challenge_name=name, apex=APEX),), created_at=NOW)
    before = await shown(store), await store.serials()

    with pytest.raises(NameTaken):
        await store.take_over([account("b"), Account(token=clash)], serving=SERVING, at=NOW, until=NOW + DAY)

    assert before == (await shown(store), await store.serials())
    assert 1 == len(await store.tokens())


async def test_store_shares_no_account(store: Store) -> None:
    """The name of one account becomes no other's as well, whether they come together or one after the other."""
    with pytest.raises(NameTaken):
        await store.take_over([account("a"), account("A")], serving=SERVING, at=NOW, until=NOW + DAY)
    await store.take_over([account("a")], serving=SERVING, at=NOW, until=NOW + DAY)
    with pytest.raises(NameTaken):
        await store.take_over([account("A"), account("b")], serving=SERVING, at=NOW, until=NOW + DAY)

    assert 1 == len(await store.tokens())


async def test_store_tries(store: Store) -> None:
    """A dry run says what would be done, or refused, and leaves nothing behind."""
    before = await shown(store), await store.serials()

    assert 1 == len(await store.take_over([account("a", OLD)], serving=SERVING, at=NOW, until=NOW + DAY, dry_run=True))

    assert before == (await shown(store), await store.serials())
    assert ([], []) == (await store.tokens(), await store.audit(NOW - DAY))


def test_service_follows(tmp_path: Path, sqlite: AcmeDns, run: Run) -> None:
    """A running service shows imported names and values soon after."""
    _, subdomain = sqlite.register((OLD, 1), (NEW, 2))
    _, empty = sqlite.register()
    name, unused = Name.parse(challenge_name(subdomain)), Name.parse(challenge_name(empty))

    async def follow() -> tuple[set[str] | None, set[str] | None]:
        async with control(tmp_path, f"sqlite+aiosqlite:///{tmp_path}/responder.db") as running:
            assert running.shown(name) is None
            await asyncio.to_thread(run, *IMPORT, sqlite.url)
            await until(lambda: running.shown(name))
            return running.shown(name), running.shown(unused)

    assert ({OLD, NEW}, set()) == asyncio.run(follow())
