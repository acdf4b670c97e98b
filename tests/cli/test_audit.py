"""`responder audit` as its users meet it."""

from __future__ import annotations

import asyncio
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from pwd import getpwuid
from uuid import UUID

import pytest

from responder.store import AuditAction, AuditEvent, AuditResult, Store
from tests.support.commands import HOST, VALUE, Run, bare, configuration, environment, present, run
from tests.support.service import connect

__all__ = ["bare", "configuration", "environment", "run"]


def test_audit(run: Run, tmp_path: Path) -> None:
    """What was done, oldest first, by whom, from where, and why not."""
    minted = run("token", "mint", HOST, "--output", "json").json["id"]
    present(tmp_path, minted, VALUE, lifetime=timedelta(hours=1))
    run("token", "deny", minted, HOST)
    present(tmp_path, minted, VALUE, lifetime=timedelta(hours=1))

    table = run("audit", "--wide").out.splitlines()
    narrow = run("audit").out.splitlines()
    as_json = run("audit", "--output", "json").json

    assert re.fullmatch(r"TIME +ACTION +OUTCOME +HOSTNAME +VALUE +TOKEN ID +CLIENT +REASON", table[0])
    assert all(len(line) <= 100 for line in narrow)
    assert minted[:8] in narrow[4]
    assert narrow[5].startswith("  this token does not cover _acme-challenge.some")
    me = getpwuid(os.getuid()).pw_name
    rows = [re.split(r"  +", line) for line in table[1:]]
    assert [
        ["mint", "done", HOST, "-", minted, me],
        ["present", "done", HOST, VALUE, minted, "192.0.2.1"],
        ["deny", "done", HOST, "-", minted, me],
        ["present", "refused", HOST, VALUE, minted, "192.0.2.1"],
    ] == [row[1:7] for row in rows]
    assert rows[3][7].startswith("this token does not cover _acme-challenge.some")
    assert datetime.strptime(rows[0][0], "%Y-%m-%d %H:%M:%SZ").replace(tzinfo=UTC) == datetime.fromisoformat(
        as_json[0]["at"]
    )
    assert {
        "action": "present",
        "outcome": "done",
        "hostname": HOST,
        "value": VALUE,
        "token_id": minted,
        "client": "192.0.2.1",
        "reason": None,
    } == {key: value for key, value in as_json[1].items() if key != "at"}


def test_part_of_the_audit(run: Run, tmp_path: Path) -> None:
    """It may be about one hostname, written in any way, and reaches back as far as it is asked to."""
    run("token", "mint", HOST)
    run("token", "mint", "other.example.com")
    with connect(tmp_path) as database:
        database.execute("UPDATE audit SET at = at - 7200 WHERE hostname = 'some.example.com'")

    def hosts(*options: str) -> list[str]:
        return [event["hostname"] for event in run("audit", *options, "--output", "json").json]

    assert ["other.example.com"] == hosts()
    assert [HOST, "other.example.com"] == hosts("--since", "3h")
    assert [HOST] == hosts("--since", "3h", "--host", "*.SOME.example.com.")
    assert [] == hosts("--host", "com")
    done = run("audit", "--since", "3h", "--host", "com")
    assert "" == done.out
    assert "responder: there are no such events: see --since, --host, --token and --refused\n" == done.err
    assert "events are kept for 90 days only" in run("audit", "--since", "91d").err


def test_what_tokens_of_a_hostname_were_refused(run: Run, tmp_path: Path) -> None:
    """What is about a token as a whole is about each of its hostnames: refusals before it is known for which, too."""
    mine, other = (run("token", "mint", host, "--output", "json").json["id"] for host in (HOST, "other.example.com"))
    run("token", "rotate", mine)
    run("token", "revoke", mine)

    async def refuse(token_id: str) -> None:
        store = await Store.open(f"sqlite+aiosqlite:///{tmp_path}/responder.db")
        refusal = AuditEvent(
            at=datetime.now(UTC), action=AuditAction.PRESENT, result=AuditResult.REFUSED, token_id=UUID(token_id)
        )
        await store.record([refusal])
        await store.close()

    asyncio.run(refuse(mine))
    asyncio.run(refuse(other))

    def actions(host: str) -> list[str]:
        return [event["action"] for event in run("audit", "--host", host, "--output", "json").json]

    assert ["mint", "rotate", "revoke", "present"] == actions(HOST)
    assert ["mint", "present"] == actions("other.example.com")
    assert [] == actions("third.example.com")


def test_a_hostname_that_was_denied(run: Run, tmp_path: Path) -> None:
    """What was about the token as a whole remains in the audit of a hostname that the token had."""
    minted = run("token", "mint", HOST, "b.example.com", "--output", "json").json["id"]
    other = run("token", "mint", "c.example.com", "--output", "json").json["id"]
    run("token", "rotate", minted)
    run("token", "deny", minted, HOST)
    present(tmp_path, other, VALUE, lifetime=timedelta(hours=1))  # refused, as it never had this hostname
    run("token", "rotate", other)
    run("token", "revoke", minted)

    events = run("audit", "--host", HOST, "--output", "json").json

    actions = {id_: [event["action"] for event in events if event["token_id"] == id_] for id_ in (minted, other)}
    assert {minted: ["mint", "rotate", "deny", "revoke"], other: ["present"]} == actions


def test_who_administers(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What administrators do has their user, with a hint from sudo; what tokens do has the address of the client."""
    me = getpwuid(os.getuid()).pw_name
    monkeypatch.setenv("SUDO_USER", "alice")
    minted = run("token", "mint", HOST, "b.example.com", "--output", "json").json["id"]
    monkeypatch.setenv("SUDO_USER", "\x1b[31m")
    run("token", "allow", minted, "c.example.com")
    run("token", "deny", minted, "b.example.com")
    present(tmp_path, minted, VALUE, lifetime=timedelta(hours=1))
    run("value", "clear", HOST)
    run("token", "rotate", minted)
    run("token", "revoke", minted)

    events = run("audit", "--output", "json").json

    actors = {event["action"]: event["client"] for event in events}
    assert {"mint": f"{me} (sudo: alice)", "present": "192.0.2.1"} == {
        action: actors.pop(action) for action in ("mint", "present")
    }
    assert dict.fromkeys(["allow", "deny", "clear", "rotate", "revoke"], me) == actors


def test_events_of_a_token_and_refusals(run: Run, tmp_path: Path) -> None:
    """The audit of one token, and of what was refused."""
    mine, other = (run("token", "mint", host, "--output", "json").json["id"] for host in (HOST, "b.example.com"))
    present(tmp_path, other, VALUE, lifetime=timedelta(hours=1))

    def events(*options: str) -> list[tuple[str, str]]:
        return [(event["action"], event["token_id"]) for event in run("audit", *options, "--output", "json").json]

    assert [("mint", mine)] == events("--token", mine[:8])
    assert [("present", other)] == events("--refused")
    assert [] == events("--refused", "--token", mine)


def test_wrong_usage(run: Run) -> None:
    """What is no time."""
    assert "is not a time" in run("audit", "--since", "yesterday", status=2).err
