"""The command line as its users meet it: what is printed where, and the exit status."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import which
from typing import Any
from uuid import uuid4

import click
import dns.zone
import pytest
import structlog

from responder.cli import commands as cli
from responder.cli import parameters
from tests.support.commands import (
    CHALLENGE,
    HOST,
    VALUE,
    Run,
    bare,
    configuration,
    environment,
    fails,
    present,
    program,
    run,
)
from tests.support.service import APEX, connect

__all__ = ["bare", "configuration", "environment", "run"]

CNAME = f"_acme-challenge.some.example.com. 300 IN CNAME {CHALLENGE}."

NAMES = [
    "_acme-challenge.some.example.com",
    "some.example.com",
    "*.some.example.com",
    CHALLENGE,
    CHALLENGE.upper() + ".",
]


# The program as a whole


def test_help_imports_next_to_nothing() -> None:
    """Help answers at once: neither database nor settings are imported for it, and every command is in it."""
    code = (
        "import sys\nsys.argv = ['responder', '--help']\nfrom responder.cli import main\n"
        "try: main()\nfinally: print(sorted({'sqlalchemy', 'pydantic', 'dnslib', 'aiohttp'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "[]" == done.stdout.splitlines()[-1]
    for name, (_, summary) in cli.COMMANDS.items():
        wrapped = r"\s+".join(map(re.escape, summary.split()))
        assert re.search(rf"^  {name} +{wrapped}$", done.stdout, re.MULTILINE)


def test_summaries_are_the_commands_own() -> None:
    """What the overview says of a command is what the command says of itself."""
    context = click.Context(cli.cli)

    assert list(cli.COMMANDS) == cli.cli.list_commands(context)
    for name, (_, summary) in cli.COMMANDS.items():
        command = cli.cli.get_command(context, name)
        assert command is not None
        assert (name, summary) == (command.name, command.get_short_help_str(200))


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["token"],
        ["token", "mint"],
        ["token", "nonsense"],
        ["token", "list", "--output", "xml"],
        ["--x"],
    ],
)
def test_wrong_usage(run: Run, bare: Run, arguments: list[str]) -> None:
    """Wrong usage is exit status 2, with a word on how it is meant."""
    done = bare(*arguments, status=2)

    assert "" == done.out
    assert "Usage: responder" in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["token", "mint", "x..y"],
        ["token", "mint", HOST, "--alias", "x..y"],
        ["token", "allow", "abcdef", "x..y"],
        ["token", "deny", "abcdef", "x..y"],
        ["value", "clear", "x..y"],
        ["audit", "--host", "x..y"],
        ["check", "x..y"],
        ["check", "--ca", "x..y"],
        ["manifest", "x..y"],
        ["issue", "x..y", "--server", "https://ca.example.net/directory"],
        ["import", "acme-dns", "nowhere.db", "--zone", "x..y"],
    ],
)
def test_a_name_that_is_none(run: Run, arguments: list[str]) -> None:
    """It is refused like any other that cannot be had, in one line: the same status in every command."""
    assert re.search(r"'x..y' (has an empty label|is not a hostname)", fails(run, *arguments))


@pytest.mark.parametrize(
    ("arguments", "meant"), [(["tokn", "list"], "token"), (["token", "lst"], "list"), (["valeu"], "value")]
)
def test_mistyped_command(bare: Run, arguments: list[str], meant: str) -> None:
    """The command that was probably meant is proposed, also if its module is not imported."""
    assert f"Did you mean '{meant}'?" in bare(*arguments, status=2).err


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every file")
@pytest.mark.parametrize("arguments", [["--config", "FILE", "config", "check"], ["thumbprint", "FILE"]])
def test_files_that_cannot_be_read(bare: Run, tmp_path: Path, arguments: list[str]) -> None:
    """A file that is missing and a file that is unreadable have the same status, and both are named."""
    unreadable, missing = tmp_path / "unreadable", tmp_path / "missing"
    unreadable.touch(0)
    for file in (unreadable, missing):
        assert f"{file}: cannot be read: " in fails(
            bare, *(str(file) if each == "FILE" else each for each in arguments)
        )


def test_faults_name_the_file(run: Run, configuration: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault names the file that it is in; a fault of a variable names the variable. JSON has both."""
    configuration.write_text(configuration.read_text() + "[dsn]\n")
    monkeypatch.setenv("RESPONDER_DNS__LISTEM", "[]")
    of_file, of_variable = "dsn: there is no such setting: did you mean dns?", "RESPONDER_DNS__LISTEM: there is no such"

    for command in (["config", "check"], ["token", "list"]):
        lines = run(*command, status=1).err.splitlines()
        assert f"responder: {configuration}: {of_file}" == lines[0]
        assert lines[1].startswith(f"responder: {of_variable}")

    printed = run("config", "check", "--output", "json", status=1).json
    assert (False, str(configuration), of_file) == (printed["valid"], printed["file"], printed["faults"][0])
    assert printed["faults"][1].startswith(of_variable)


def test_version_and_help(bare: Run) -> None:
    """Asking is not failing."""
    assert re.search(r"\d", bare("--version").out)
    assert "HOST..." in bare("token", "mint", "--help").out


def commands(group: click.Group, *names: str) -> Iterator[tuple[str, ...]]:
    """Every command and group, by the words that it is called by."""
    yield names
    with click.Context(group) as context:
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            if isinstance(command, click.Group):
                yield from commands(command, *names, name)
            else:
                yield (*names, name)


def test_help_everywhere(bare: Run) -> None:
    """Every command answers -h as it does --help."""
    found = [*commands(cli.cli)]
    assert {(), ("serve",), ("token", "mint"), ("value", "clear")} < {*found}
    for names in found:
        assert bare(*names, "--help").out == bare(*names, "-h").out


def test_module_is_the_program(configuration: Path) -> None:
    """`python -m responder` is the same program."""
    process = program("--config", str(configuration), "token", "show", str(uuid4()), stderr=subprocess.PIPE)
    _, err = process.communicate()

    assert (1, b"responder: there is no token with that id: see responder token list\n") == (process.returncode, err)


def test_reader_that_leaves(run: Run, configuration: Path, tmp_path: Path) -> None:
    """`responder ... | head -1` ends quietly."""
    run("token", "mint", HOST)
    with connect(tmp_path) as database:
        copies = [(str(uuid4()), "x" * 100) for _ in range(3000)]
        database.executemany(
            "INSERT INTO tokens (id, description, created_at, allow_from) VALUES (?, ?, 0, '[]')", copies
        )
        database.execute(
            "INSERT INTO secrets (token_id, generation, created_at) SELECT id, 1, 0 FROM tokens "
            "WHERE id NOT IN (SELECT token_id FROM secrets)"
        )
    process = program("--config", str(configuration), "token", "list", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()

    assert b"" == process.stderr.read()
    process.stderr.close()
    process.wait()


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (OSError(errno.ENOSPC, "No space left on device"), "failed: No space left on device"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/some/file"),
            "failed: /some/file: Permission denied",
        ),
    ],
)
def test_what_comes_from_outside(run: Run, monkeypatch: pytest.MonkeyPatch, fault: BaseException, line: str) -> None:
    """What the user or the system does to a command is one line, too."""

    def fail(*_: object) -> None:
        raise fault

    monkeypatch.setattr("responder.cli.context.Context.with_store", fail)

    assert f"responder: {line}" == run("token", "list", status=1).err.strip()


def test_option_in_the_wrong_place(run: Run) -> None:
    """The file of the configuration, named after the command, is answered with where it belongs."""
    fault = run("token", "list", "--config", "some.toml", status=2).err

    assert "No such option '--config'. It goes before the command, as in: responder --config FILE serve" in fault


def test_full_disk(configuration: Path) -> None:
    """Output that cannot be written is one line, not a traceback."""
    with Path("/dev/full").open("wb") as full:
        process = program("--config", str(configuration), "config", "check", stdout=full, stderr=subprocess.PIPE)
        _, err = process.communicate()

    assert (1, b"responder: failed: No space left on device\n") == (process.returncode, err)


def test_interrupted(tmp_path: Path, configuration: Path) -> None:
    """Ctrl-C ends a command that waits, with one line."""
    locked = sqlite3.connect(tmp_path / "responder.db", isolation_level=None)
    locked.execute("BEGIN EXCLUSIVE")
    try:
        process = program("--config", str(configuration), "token", "mint", HOST, stderr=subprocess.PIPE)
        while len(list(Path(f"/proc/{process.pid}/task").iterdir())) < 2:  # it works on its database on a thread
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    finally:
        locked.close()

    assert (1, "responder: interrupted") == (process.returncode, err.decode().strip())


@pytest.mark.parametrize(("encoding", "expected"), [("latin-1", b"Z\xfcrich \\u6f22"), ("ascii", "Zürich 漢".encode())])
def test_terminal_without_the_characters(run: Run, configuration: Path, encoding: str, expected: bytes) -> None:
    """A terminal that lacks a character still shows the rest."""
    run("token", "mint", HOST, "--description", "Zürich 漢")

    process = program(
        "--config",
        str(configuration),
        "token",
        "list",
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    out, _ = process.communicate()

    assert 0 == process.returncode
    assert expected in out


def test_times_are_utc(run: Run, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests) -> None:
    """Instants are printed in UTC, whatever the time zone of the machine."""
    minted = run("token", "mint", HOST, "--expires-in", "90d", "--output", "json").json
    expiry = datetime.fromisoformat(minted["expires_at"])

    for zone in ("Pacific/Auckland", "America/Los_Angeles", "UTC"):
        with subtests.test(zone):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            in_utc = "%Y-%m-%d %H:%M:%SZ"
            assert expiry.strftime(f"expires      {in_utc}") in run("token", "show", minted["id"]).out
            assert expiry.strftime(in_utc) in run("token", "list", "--wide").out
    monkeypatch.undo()
    time.tzset()


# Configuration and database


def test_no_configuration(bare: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a configuration the one line says where it is looked for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("responder.config.sources.PLACES", (Path("responder.toml"),))

    assert "there is no responder.toml" in fails(bare, "token", "list")
    assert fails(bare, "--config", "nowhere.toml", "token", "list").startswith("nowhere.toml: cannot be read")


def test_broken_configuration(bare: Run, tmp_path: Path) -> None:
    """What is not TOML is one line; of settings, every fault is one."""
    path = tmp_path / "broken.toml"
    path.write_text("[[zones]\n")
    assert "is not TOML" in fails(bare, "--config", str(path), "config", "check")

    path.write_text('[dns]\nlisten = ["localhost"]\n[nonsense]\n')
    done = bare("--config", str(path), "config", "check", status=1)

    assert "" == done.out
    assert ["zones", "dns", "nonsense"] == re.findall(rf"^responder: {path}: (\w+)", done.err, re.MULTILINE)


def test_configuration_is_shown_without_secrets(
    bare: Run, configuration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`config check` prints what is in force; the password of the database is masked."""
    monkeypatch.setenv("RESPONDER_DATABASE__URL", "postgresql+asyncpg://me:hunter2@db.example.com/responder")
    monkeypatch.setenv("RESPONDER_CONFIG", str(configuration))

    done = bare("config", "check")
    data = bare("config", "check", "--output", "json").json

    assert 'database.url = "postgresql+asyncpg://me:***@db.example.com/responder"' in done.out.splitlines()
    assert "configuration is valid" == done.err.splitlines()[-1]
    assert "hunter2" not in done.out + done.err + json.dumps(data)
    assert ["127.0.0.1:10053"] == data["settings"]["dns"]["listen"]
    assert len(data["warnings"]) == done.err.count("responder: warning: ")


def test_files_that_the_configuration_names(
    bare: Run, configuration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`config check` looks at them, too: what would stop the next start is found before it, and nothing is made."""
    (tmp_path / "none.pem").write_text("none")
    (tmp_path / "open.key").write_text("none")
    (tmp_path / "open.key").chmod(0o644)
    none, nowhere = str(tmp_path / "none.pem"), str(tmp_path / "nowhere")
    before = sorted(tmp_path.iterdir())

    def faults(**variables: str) -> list[str]:
        with monkeypatch.context() as patch:
            patch.setenv("RESPONDER_CONFIG", str(configuration))
            for name, value in variables.items():
                patch.setenv(f"RESPONDER_{name}", value)
            done = bare("config", "check", status=1)
        assert "" == done.out
        lines, prefix = done.err.splitlines(), f"responder: {configuration}: "
        assert all(line.startswith(prefix) for line in lines)
        return [line.removeprefix(prefix) for line in lines]

    files = {"API__TLS": "files", "API__CERTIFICATE_FILE": nowhere, "API__PRIVATE_KEY_FILE": none}
    acme = {"API__TLS": "acme", "API__HOSTNAME": "ns1.acme.example.com"}
    binding = {"API__ACME__EAB_KID": "x", "API__ACME__EAB_HMAC_KEY_FILE": nowhere}
    assert [
        f"api.certificate_file: {nowhere}: cannot be read: no such file or directory",
        f"the key file {tmp_path}/open.key is open to other users: chmod 600 {tmp_path}/open.key",
    ] == faults(**files, DNS__UPDATE__KEY_FILE=str(tmp_path / "open.key"))
    assert [
        f"api.acme.eab_hmac_key_file: the HMAC key in {nowhere}: cannot be read: no such file or directory",
        f"api.acme.ca_file: the CA file {none} holds no certificate in PEM",
    ] == faults(**acme, **binding, API__ACME__CA_FILE=none)
    os.mkfifo(tmp_path / "pipe")
    pipe = str(tmp_path / "pipe")
    assert [
        f"api.acme.eab_hmac_key_file: the HMAC key in {pipe}: cannot be read: it is not a file",
        f"api.acme.ca_file: the CA file {pipe}: cannot be read: it is not a file",
    ] == faults(**acme, **binding | {"API__ACME__EAB_HMAC_KEY_FILE": pipe}, API__ACME__CA_FILE=pipe)
    (tmp_path / "pipe").unlink()
    assert before == sorted(tmp_path.iterdir())


def test_database_that_is_none(run: Run, tmp_path: Path) -> None:
    """A text file is no database."""
    for file in tmp_path.glob("responder.db*"):
        file.unlink()
    (tmp_path / "responder.db").write_text(
        "this is not a database, but a text that is long enough to be taken for one" * 9
    )

    fault = "it is not an SQLite database: check database.url"
    for arguments in (("token", "list"), ("db", "check"), ("db", "upgrade")):
        assert fault in run(*arguments, status=1).err.splitlines()[-1]
    with structlog.testing.capture_logs() as logged:
        run("serve", status=1)
    assert fault in logged[-1]["reason"]


def test_database_that_cannot_be_made(run: Run, bare: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory where nothing can be written is one line that names the setting."""
    monkeypatch.setenv("RESPONDER_DATABASE__URL", "sqlite+aiosqlite:////proc/nowhere/responder.db")

    assert "check database.url" in fails(run, "token", "list")


def test_schema(run: Run, tmp_path: Path) -> None:
    """`db check` tells an empty database, a current one and another program's apart; `db upgrade` makes it current."""
    (tmp_path / "responder.db").unlink()
    assert "the database is empty: its tables will be created on first use\n" == run("db", "check").out
    assert not (tmp_path / "responder.db").exists()
    assert "the database schema is up to date\n" == run("db", "upgrade").out
    assert "the database is up to date\n" == run("db", "check").out
    assert {"schema": "current", "meaning": "up to date"} == run("db", "check", "--output", "json").json

    with connect(tmp_path) as database:
        database.execute("UPDATE alembic_version SET version_num = 'later'")
    done = run("db", "check", status=1)
    mend = "install the version that last used it, or a newer one"
    assert ("", f"responder: the database is newer than this program: {mend}\n") == (done.out, done.err)
    assert "ahead" == run("db", "check", "--output", "json", status=1).json["schema"]
    assert "this program is older than the database" in fails(run, "db", "upgrade")
    assert "this program is older than the database" in fails(run, "token", "list")


def test_damaged_database(run: Run, tmp_path: Path) -> None:
    """`db check` reads everything, and reports a damaged page wherever it is, as every command that meets it does."""
    with connect(tmp_path) as database:
        (page,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'zones'").fetchone()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with (tmp_path / "responder.db").open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 512)

    for arguments in (("db", "check"), ("zone", "show")):
        assert "it is damaged: restore it from a backup" in fails(run, *arguments)


def test_database_open_to_others(run: Run, tmp_path: Path) -> None:
    """`db check` warns of a file that others can read, with the command that fixes it."""
    (tmp_path / "responder.db").chmod(0o644)
    assert f"responder: warning: all users of this machine can access the database: run chmod o-rwx {tmp_path}" in (
        run("db", "check").err
    )


# Tokens


def test_mint_as_json(run: Run) -> None:
    """The JSON of a minted token has exactly the documented keys, by either option."""
    for option in ("--output", "--format"):
        minted = run("token", "mint", HOST, "api.acme.example.com", option, "json").json

        assert re.fullmatch(r"rsp_[A-Za-z0-9_-]{43}", minted.pop("token"))
        assert re.fullmatch(r"[0-9a-f-]{36}", minted.pop("id"))
        assert {
            "description": None,
            "hostnames": [
                {
                    "hostname": "api.acme.example.com",
                    "challenge_name": "_acme-challenge.api.acme.example.com",
                    "cname": None,
                    "served": True,
                },
                {
                    "hostname": HOST,
                    "challenge_name": CHALLENGE,
                    "cname": f"_acme-challenge.some.example.com. 300 IN CNAME {CHALLENGE}.",
                    "served": True,
                },
            ],
            "expires_at": None,
            "allow_from": [],
            "account_thumbprint": None,
        } == minted


def test_mint_as_text(run: Run) -> None:
    """The text of a minted token has the token, the CNAMEs, and the CAA that binds issuance."""
    out = run("token", "mint", HOST, "api.acme.example.com", "--description", "team [red] a").out

    assert re.search(r"^token +rsp_\S{43}$", out, re.MULTILINE)
    assert re.search(r"^expires +never$", out, re.MULTILINE)
    assert f"\nsome.example.com: its zone needs this record:\n{CNAME}\n" in out
    assert "api.acme.example.com: no CNAME needed, _acme-challenge.api.acme.example.com is in our zone\n" in out
    binding = '300 IN CAA 0 issue "letsencrypt.org; validationmethods=dns-01; accounturi=<URL of your ACME account>"'
    outside, ours = out[out.index("To limit issuance") :].split("\n\n")
    assert f"some.example.com. {binding}" == outside.splitlines()[1]
    assert ours.startswith("Our own zone allows no CA to issue, unless its records in the configuration allow one. ")
    assert f"api.acme.example.com. {binding}" == ours.splitlines()[1]


def test_secret_is_shown_once(run: Run, tmp_path: Path) -> None:
    """No other command shows a token, and the database does not have it."""
    minted = run("token", "mint", HOST, "--output", "json").json

    for arguments in (["list"], ["list", "--output", "json"], ["show", minted["id"]]):
        assert minted["token"][4:] not in run("token", *arguments).out
    for file in tmp_path.glob("responder.db*"):
        assert minted["token"][4:].encode() not in file.read_bytes()


def test_limits_of_a_token(run: Run) -> None:
    """Expiry and networks are kept and shown."""
    before = datetime.now(UTC)
    minted = run(
        *("token", "mint", HOST, "--expires-in", "90d", "--description", "team a", "--output", "json"),
        *("--allow-from", "192.0.2.0/24", "--allow-from", "2001:db8::/32"),
    ).json

    assert ["192.0.2.0/24", "2001:db8::/32"] == minted["allow_from"]
    expiry = datetime.fromisoformat(minted["expires_at"])
    assert before + timedelta(days=90) <= expiry <= datetime.now(UTC) + timedelta(days=90, seconds=1)
    shown = run("token", "show", minted["id"]).out
    assert "allowed from 192.0.2.0/24, 2001:db8::/32\n" in shown
    assert "description  team a\n" in shown
    assert f"\nsome.example.com: its zone needs this record:\n{CNAME}\n" in shown
    assert f"id           {minted['id']}\n" in shown


def test_states_of_tokens(run: Run, tmp_path: Path) -> None:
    """Tokens are listed oldest first, with their states; one that never did anything shows so."""
    ids = [run("token", "mint", f"{name}.example.com", "--output", "json").json["id"] for name in "cba"]
    many = run("token", "mint", *(f"h{n}.example.com" for n in range(5)), "--output", "json").json["id"]
    revoked = f"revoked the token with the id {ids[0]}; its values are removed from DNS within a second\n"
    assert revoked == run("token", "revoke", ids[0]).out
    with connect(tmp_path) as database:
        for age, id_ in enumerate((*ids, many)):
            database.execute("UPDATE tokens SET created_at = ? WHERE id = ?", (1_900_000_000 + age, id_))
        database.execute("UPDATE tokens SET expires_at = 7 WHERE id = ?", (ids[1],))

    listed = run("token", "list", "--wide").out.splitlines()
    narrow = run("token", "list").out.splitlines()
    as_json = run("token", "list", "--output", "json").json

    heading = r"ID +HOSTNAMES +STATE +GENERATION +PINNED +CREATED +LAST USED +EXPIRES +DESCRIPTION"
    assert re.fullmatch(heading, listed[0])
    assert [*ids, many] == [line.split()[0] for line in listed[1:]] == [token["id"] for token in as_json]
    assert ["revoked", "expired", "active", "active"] == [token["state"] for token in as_json]
    assert all(len(line) <= 100 for line in narrow)
    assert [each[:8] for each in (*ids, many)] == [line.split()[0] for line in narrow[1:]]
    assert re.search(r"expired +2030-03-17  never +1970-01-01$", narrow[2])
    assert "h0.example.com, h1.example.com, h2.example.com and 2 more" in listed[4]
    assert f"{ids[1]}  b.example.com" in listed[2]
    assert re.search(r"expired +1 +no +2030-03-17 17:46:41Z  never", listed[2])
    assert listed[2].endswith("1970-01-01 00:00:07Z")
    assert as_json[0]["revoked_at"] is not None
    assert as_json[0] == run("token", "show", ids[0], "--output", "json").json
    run("token", "revoke", ids[0])


def test_some_of_the_tokens(run: Run) -> None:
    """Tokens can be listed by hostname, and by the time within which they expire, unless they have ended."""
    empty = run("token", "list")
    assert ("", "responder: there are no tokens: see responder token mint\n") == (empty.out, empty.err)
    soon, later, revoked = (
        run("token", "mint", f"{name}.example.com", "--expires-in", time, "--output", "json").json["id"]
        for name, time in (("a", "10d"), ("b", "90d"), ("a", "1d"))
    )
    run("token", "mint", HOST)
    run("token", "revoke", revoked)

    def ids(*options: str) -> list[str]:
        return [token["id"] for token in run("token", "list", *options, "--output", "json").json]

    assert {soon, revoked} == {*ids("--host", "a.example.com")}
    assert [soon] == ids("--expiring", "30d")
    assert {soon, later} == {*ids("--expiring", "91d")}
    assert [later] == ids("--expiring", "91d", "--host", "b.example.com")
    assert "responder: there are no such tokens\n" == run("token", "list", "--expiring", "1h").err


def test_another_token_for_the_hostname(run: Run) -> None:
    """Minting and allowing report that another active token covers the hostname, and only active ones count."""
    one, two = (run("token", "mint", host, "--output", "json").json["id"] for host in (HOST, "b.example.com"))

    minted = run("token", "mint", HOST, "--output", "json")
    allowed = run("token", "allow", two, HOST)

    assert f"responder: note: another active token covers {HOST}, too: {one}\n" == minted.err
    assert allowed.err.startswith(f"responder: note: other active tokens cover {HOST}, too: ")
    for token in (one, minted.json["id"], two):
        run("token", "revoke", token)
    assert "" == run("token", "mint", HOST).err


def test_unknown_tokens(run: Run) -> None:
    """An id that no token has is refused, and so is text that cannot be an id: status 1 in every command."""
    for command in (["show"], ["revoke"], ["rotate"], ["allow"], ["deny"]):
        hosts = [HOST] if command[0] in ("allow", "deny") else []
        for unknown in (str(uuid4()), "abcdef"):
            fault = fails(run, "token", *command, unknown, *hosts)
            assert "there is no token with that id: see responder token list" == fault
        for wrong in ("x", "abcde", "abcdef%", "_-----"):
            assert fails(run, "token", *command, wrong, *hosts) == (
                f"{wrong!r} is not the id of a token, or at least its first 6 characters: see responder token list"
            )


def test_hosts_that_no_token_is_for(run: Run) -> None:
    """Every faulty hostname is reported, and then nothing is minted."""
    done = run("token", "mint", HOST, "com", "192.0.2.1", "x.onion", "a b", "co.uk", "com", "x..example.com", status=1)

    assert "" == done.out
    hosts = re.findall(r"^responder: '(.*?)'", done.err, re.MULTILINE)
    assert ["com", "192.0.2.1", "x.onion", "a b", "co.uk", "x..example.com"] == hosts
    assert [] == run("token", "list", "--output", "json").json


@pytest.mark.parametrize(
    "option",
    [
        ("--expires-in", "0d"),
        ("--expires-in", "soon"),
        ("--expires-in", "9999999d"),
        ("--expires-in", "999999999w"),
        ("--expires-in", "-1d"),
        ("--allow-from", "192.0.2.1/24"),
        ("--allow-from", "everywhere"),
        ("--description", "two\nlines"),
        ("--description", "\x1b[31m"),
        ("--description", "\udcff"),
        ("--description", "responder issue"),
        ("--description", "responder check"),
    ],
)
def test_options_that_make_no_sense(run: Run, option: tuple[str, str]) -> None:
    """An option that makes no sense is wrong usage, and nothing is minted."""
    assert f"Invalid value for '{option[0]}'" in run("token", "mint", HOST, *option, status=2).err
    assert [] == run("token", "list", "--output", "json").json


def test_alias(run: Run) -> None:
    """--alias names another challenge name in the zone; it helps where the usual one would be too long."""
    minted = run("token", "mint", HOST, "--alias", "X.acme.example.com.", "--output", "json").json
    assert "x.acme.example.com" == minted["hostnames"][0]["challenge_name"]
    label = "a" * 63
    long = f"{label}.{label}.{label}.{'a' * 20}.example.org"

    fault = fails(run, "token", "mint", long)

    assert fault.startswith(f"the challenge name of {long} is too long: choose one with --alias")
    minted = run("token", "mint", long, "--alias", "y.acme.example.com", "--output", "json").json
    assert "y.acme.example.com" == minted["hostnames"][0]["challenge_name"]


def test_alias_of_several_hostnames(run: Run) -> None:
    """
    Hostnames of one token may share a name, as acme.sh needs it: one account of acme-dns, several CNAMEs, and values
    that can be cleared by each of the hostnames.
    """
    hosts = (HOST, "other.example.org")
    alias = ("--alias", "x.acme.example.com")

    minted = run("token", "mint", *hosts, *alias, "--format", "acme-dns")

    account = json.loads(minted.out)  # one line
    assert "x.acme.example.com" == account["fulldomain"]
    for host in hosts:
        assert f"\n_acme-challenge.{host}. 300 IN CNAME x.acme.example.com.\n" in minted.err
    third = run("token", "allow", account["username"], "third.example.com", *alias, "--output", "json").json
    assert 3 == len(third["hostnames"])
    assert "already belongs to other.example.org" in fails(run, "token", "mint", HOST, *alias)
    assert "already belongs to" in fails(run, "token", "mint", "fourth.example.com", *alias)


def test_alias_at_the_apex(run: Run) -> None:
    """The records that every apex has are no obstacle for values there."""
    minted = run("token", "mint", HOST, "--alias", "acme.example.com", "--output", "json").json
    granted = minted["hostnames"][0]
    assert f"_acme-challenge.{HOST}. 300 IN CNAME acme.example.com." == granted["cname"]


def test_aliases_that_cannot_be(run: Run) -> None:
    """An alias outside the zones, with records of its own, or in somebody's hands is refused, each with its mend."""
    run("token", "mint", HOST, "--alias", "x.acme.example.com")

    def refusal(alias: str, *hosts: str) -> str:
        return fails(run, "token", "mint", *hosts, "--alias", alias)

    other = "other.example.com"
    assert "--alias x.example.org is in no zone served here (acme.example.com)" == refusal("x.example.org", other)
    bare = "--alias x1 is in no zone served here (acme.example.com): write the whole name, such as x1.acme.example.com"
    assert bare == refusal("x1", other)
    assert "has records from the configuration" in refusal("api.acme.example.com", other)
    assert "has an empty label" in refusal("x..acme.example.com", other)
    inside = refusal("y.acme.example.com", "www.acme.example.com")
    assert (
        "--alias y.acme.example.com: _acme-challenge.www.acme.example.com is in our zone, so it needs no CNAME"
        in inside
    )
    taken = refusal("x.acme.example.com", other)
    assert taken.startswith("x.acme.example.com already belongs to some.example.com: choose another name with --alias")
    assert "use --alias x.acme.example.com" in fails(run, "token", "mint", HOST)


# Zones


def zone_text_is_good(text: str, apex: str, directory: Path) -> None:
    """As read by dnspython, and by nsd or BIND if they are here."""
    assert len(dns.zone.from_text(text, origin=apex, relativize=False).nodes) > 1
    path = directory / "zone"
    path.write_text(text)
    checkers: Sequence[Sequence[str]] = (["nsd-checkzone"], ["named-checkzone", "-i", "none"])
    for checker, *options in checkers:
        if which(checker):
            done = subprocess.run([checker, *options, apex, path], capture_output=True, text=True, check=False)
            assert 0 == done.returncode, done.stdout + done.stderr


def test_zone_show(run: Run, tmp_path: Path) -> None:
    """The zone is printed as zone text that nameservers take, with all its records and values."""
    minted = run("token", "mint", HOST, "--output", "json").json
    nasty = 'a "quoted" \\ and ; commented @ $VALUE ( value'
    for value in (VALUE, nasty, "x" * 255):
        present(tmp_path, minted["id"], value, lifetime=timedelta(hours=1))

    text = run("zone", "show").out

    zone_text_is_good(text, "acme.example.com", tmp_path)
    zone = dns.zone.from_text(text, origin="acme.example.com", relativize=False)
    values = {rdata.strings[0].decode() for rdata in zone.get_rdataset(f"{CHALLENGE}.", "TXT") or ()}
    assert {VALUE, nasty, "x" * 255} == values
    (as_json,) = run("zone", "show", "--output", "json").json
    soa = text.splitlines()[0].split()
    assert ("acme.example.com", int(soa[6])) == (as_json["zone"], as_json["serial"])
    assert text.splitlines() == as_json["records"]


def test_zone_delegation(run: Run, tmp_path: Path) -> None:
    """What the parent zone needs: NS records, and the addresses of the nameservers inside the zone."""
    text = run("zone", "delegation").out

    assert [
        "; add these records to the parent zone of acme.example.com, for example example.com",
        "acme.example.com. 3600 IN NS ns1.acme.example.com.",
        "acme.example.com. 3600 IN NS ns.elsewhere.example.net.",
        "ns1.acme.example.com. 3600 IN A 192.0.2.1",
        "ns1.acme.example.com. 3600 IN AAAA 2001:db8::1",
    ] == text.splitlines()
    parent = (
        "example.com. 60 IN SOA ns.example.com. a.example.com. 1 60 60 60 60\nexample.com. 60 IN NS ns.other.org.\n"
    )
    zone_text_is_good(parent + text, "example.com", tmp_path)
    assert [{"zone": "acme.example.com", "parent": "example.com", "records": text.splitlines()[1:]}] == run(
        "zone", "delegation", "--output", "json"
    ).json


# Values


@pytest.fixture
def minted(run: Run) -> str:
    """The id of a token for `some.example.com`."""
    id_: str = run("token", "mint", HOST, "--output", "json").json["id"]
    return id_


def test_value_list(run: Run, tmp_path: Path, minted: str) -> None:
    """Values are listed with their hostname and instants, as they are: what looks like markup is not."""
    for value in (VALUE, "[/red]", "[bold]"):
        present(tmp_path, minted, value, lifetime=timedelta(hours=1))

    listed = run("value", "list").out.splitlines()
    as_json = run("value", "list", "--output", "json").json

    assert re.fullmatch(r"HOSTNAME +VALUE +SERVED +AGE +EXPIRES IN +TOKEN ID", listed[0])
    assert [VALUE, "[/red]", "[bold]"] == [line.split()[1] for line in listed[1:]]
    assert {minted[:8]} == {line.split()[-1] for line in listed[1:]}
    assert {(HOST, "yes")} == {(line.split()[0], line.split()[2]) for line in listed[1:]}
    assert [VALUE, "[/red]", "[bold]"] == [value["value"] for value in as_json]
    assert (HOST, CHALLENGE, minted) == tuple(as_json[0][key] for key in ("hostname", "challenge_name", "token_id"))


def test_values_of_a_hostname_or_a_token(run: Run, tmp_path: Path, minted: str) -> None:
    """Values can be listed by hostname and by token. An empty list is reported on stderr, so that pipes stay empty."""
    other = run("token", "mint", HOST, "b.example.com", "--output", "json").json["id"]
    present(tmp_path, minted, "mine", lifetime=timedelta(hours=1))
    present(tmp_path, other, "other", lifetime=timedelta(hours=1))

    def values(*options: str) -> list[str]:
        return [value["value"] for value in run("value", "list", *options, "--output", "json").json]

    assert ["mine", "other"] == values() == values("--host", f"*.{HOST}")
    assert ["mine"] == values("--token", minted[:8])
    assert ["other"] == values("--token", other, "--host", HOST)
    empty = run("value", "list", "--host", "b.example.com")
    assert ("", "responder: there are no such values\n") == (empty.out, empty.err)
    assert "there is no token with that id" in fails(run, "value", "list", "--token", "abcdef")


@pytest.mark.parametrize("name", NAMES)
def test_value_clear(run: Run, tmp_path: Path, minted: str, name: str) -> None:
    """One value, also one that begins with a dash, or all are cleared, by any name that means the challenge name."""
    for value in (VALUE, "b", "c"):
        present(tmp_path, minted, value, lifetime=timedelta(hours=1))

    assert f"cleared {VALUE}\n" == run("value", "clear", name, VALUE).out
    assert ["b", "c"] == [value["value"] for value in run("value", "list", "--output", "json").json]
    assert {"cleared": ["b", "c"]} == run("value", "clear", name, "--output", "json").json
    assert [] == run("value", "list", "--output", "json").json


def test_value_clear_of_a_value_like_an_option(run: Run, tmp_path: Path, minted: str) -> None:
    """A value may begin as -h or --help does, being one of 43 characters that may be dashes."""
    for value in ("-hDHk3oGRvkief", "--helpHk3oGRvkief"):
        present(tmp_path, minted, value, lifetime=timedelta(hours=1))

        assert f"cleared {value}\n" == run("value", "clear", HOST, value).out


def test_value_clear_of_an_ambiguous_name(run: Run, tmp_path: Path) -> None:
    """A name that is one hostname's challenge name and another hostname clears neither; the other names do."""
    alias, queried = "x.acme.example.com", "_acme-challenge.x.acme.example.com"
    names = {alias: ("token", "mint", HOST, "--alias", alias), queried: ("token", "mint", alias)}
    for challenge_name, mint in names.items():
        minted = run(*mint, "--output", "json").json["id"]
        present(tmp_path, minted, VALUE, name=challenge_name, lifetime=timedelta(hours=1))

    for value in ((), (VALUE,)):
        fault = fails(run, "value", "clear", alias, *value)
        assert fault.startswith(f"{alias} means several challenge names, {alias} of {HOST} and {queried} of {alias}: ")

    def left() -> set[str]:
        return {value["challenge_name"] for value in run("value", "list", "--output", "json").json}

    assert {alias, queried} == left()
    run("value", "clear", HOST)
    assert {queried} == left()
    run("value", "clear", queried)
    assert set() == left()


def test_value_clear_of_nothing(run: Run, tmp_path: Path, minted: str) -> None:
    """What is not there cannot be cleared by hand."""
    nothing = f"there is no value for {HOST}: see responder value list"
    assert nothing == fails(run, "value", "clear", HOST)
    present(tmp_path, minted, "a", lifetime=timedelta(hours=1))
    assert nothing.replace(HOST, "other.example.com") == fails(run, "value", "clear", "other.example.com")
    assert f"{CHALLENGE} has no such value" == fails(run, "value", "clear", HOST, "b")
    assert "has an empty label" in fails(run, "value", "clear", "x..y")


# The service


def test_serve_hands_over(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """`serve` warns of what will not work on the Internet, and becomes the supervisor with the plan."""
    plans = []

    def become(plan: Any) -> None:
        plans.append(plan)

    monkeypatch.setattr("responder.process.plan.become", become)

    with structlog.testing.capture_logs() as logged:
        run("serve")

    assert ["warning"] * len(logged) == [event["log_level"] for event in logged]
    assert any(event["reason"].startswith("zones[0].nameservers: 192.0.2.1") for event in logged)
    (plan,) = plans
    assert ([("127.0.0.1", 10053)], [("127.0.0.1", 10080)]) == (plan.dns, plan.api)
    assert [("127.0.0.1", 10081)] == plan.admin
    assert 1 == plan.processes
    assert str(APEX) == plan.settings["zones"][0]["name"]
    assert plan.settings["dns"]["update"]["enabled"]


Starts = Callable[..., Any]


@pytest.fixture
def starts(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Starts:
    """Starts the service as a service manager that keeps its state; returns the plan that it would carry out."""
    plans: list[Any] = []
    monkeypatch.setattr("responder.process.plan.become", plans.append)
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))

    def start(**variables: str) -> Any:
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(f"RESPONDER_{name}", value)
            run("serve")
        return plans.pop()

    return start


def test_serve_goes_on(starts: Starts, run: Run) -> None:
    """A service that ran goes on with the configuration of its last start if it cannot use the new one."""
    assert [] == starts(DNS__NSID="first").faults
    with structlog.testing.capture_logs() as logged:
        plan = starts(DNS__NSID="second", DNS__LISTEM="[]")

    (fault,) = plan.faults
    assert ("first", True) == (plan.settings["dns"]["nsid"], fault.startswith("RESPONDER_DNS__LISTEM: there is no"))
    event = "the configuration cannot be used; going on with that of the last start"
    assert {"event": event, "log_level": "error", "reason": fault} in logged
    assert "second" == starts(DNS__NSID="second").settings["dns"]["nsid"]


def test_serve_with_nothing_to_go_on_with(run: Run, starts: Starts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the last configuration cannot be used either, or nothing has changed, it is the fault that there is."""
    starts()
    with structlog.testing.capture_logs() as logged, socket.create_server(("127.0.0.1", 10_080)):
        run("serve", status=1)
        monkeypatch.setenv("RESPONDER_DNS__LISTEM", "[]")
        run("serve", status=1)

    taken, unknown = [event["reason"] for event in logged if event["event"] == "cannot start"]
    assert taken.startswith("cannot listen on 127.0.0.1:10080")
    assert unknown.startswith("RESPONDER_DNS__LISTEM: there is no such setting")


def test_serve_without_the_database(starts: Starts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer is waited for, unless the last configuration has one that does."""
    away = "postgresql+asyncpg://me@127.0.0.1:1/responder"
    assert away == starts(DATABASE__URL=away).settings["database"]["url"]
    assert not (tmp_path / "last-configuration.json").exists()

    starts(DNS__NSID="first")
    monkeypatch.setenv("RESPONDER_DNS__NSID", "second")
    configuration = tmp_path / "responder.toml"
    text = configuration.read_text()
    configuration.write_text(f"{text[: text.index('[database]')]}[database]\nurl = '{away}'\n")
    plan = starts()

    assert ("first", True) == (plan.settings["dns"]["nsid"], "nothing answers there" in plan.faults[0])


def test_serve_that_cannot_keep_its_configuration(
    starts: Starts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is a warning: the next start has to do without."""
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "nowhere"))
    with structlog.testing.capture_logs() as logged:
        assert [] == starts().faults

    assert "cannot store the configuration for the next start" in [event["event"] for event in logged]


def test_serve_ready_with_a_faulty_configuration(run: Run, starts: Starts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks a service that goes on whether it is ready asks where it listens."""
    starts()
    monkeypatch.setenv("RESPONDER_DNS__LISTEM", "[]")

    assert "no service responds at 127.0.0.1:10081" in run("serve", "--ready", status=1).err
    monkeypatch.delenv("STATE_DIRECTORY")
    assert "RESPONDER_DNS__LISTEM" in run("serve", "--ready", status=1).err


def test_serve_and_the_key_file(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`serve` makes the key of updates, does not start with one that others can read, and needs none without them."""
    plans: list[Any] = []
    monkeypatch.setattr("responder.process.plan.become", plans.append)
    run("serve")
    key = tmp_path / "tsig.key"
    key.chmod(0o644)

    with structlog.testing.capture_logs() as logged:
        run("serve", status=1)
    assert {
        "event": "cannot start",
        "log_level": "critical",
        "reason": f"the key file {key} is open to other users: chmod 600 {key}",
    } == logged[-1]
    monkeypatch.setenv("RESPONDER_DNS__UPDATE__ENABLED", "false")
    run("serve")

    assert [True, False] == [plan.settings["dns"]["update"]["enabled"] for plan in plans]


def test_longest_expiry_fits_the_calendar() -> None:
    """The longest expiry that may be asked for is still a date."""
    assert datetime.now(UTC) + parameters.MAX_DURATION < datetime.max.replace(tzinfo=UTC)
