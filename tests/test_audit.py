"""`responder audit` as its users meet it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.commands import HOST, VALUE, Run, bare, configuration, environment, present, run
from tests.service import connect

__all__ = ["bare", "configuration", "environment", "run"]


def test_audit(run: Run, tmp_path: Path) -> None:
    """What was done, oldest first, by whom, from where, and why not."""
    minted = run("token", "mint", HOST, "--output", "json").json["id"]
    present(tmp_path, minted, VALUE, lifetime=timedelta(hours=1))
    run("token", "deny", minted, HOST)
    present(tmp_path, minted, VALUE, lifetime=timedelta(hours=1))

    table = run("audit").out.splitlines()
    as_json = run("audit", "--output", "json").json

    assert re.fullmatch(r"TIME +ACTION +OUTCOME +HOSTNAME +VALUE +TOKEN +CLIENT +REASON", table[0])
    rows = [re.split(r"  +", line) for line in table[1:]]
    assert [
        ["mint", "done", HOST, "-", minted, "-"],
        ["present", "done", HOST, VALUE, minted, "192.0.2.1"],
        ["deny", "done", HOST, "-", minted, "-"],
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
    assert 1 == len(done.out.splitlines())
    assert "" == done.err
    assert "longer than 90 days" in run("audit", "--since", "91d").err


def test_wrong_usage(run: Run) -> None:
    """What is no time."""
    assert "is not a time" in run("audit", "--since", "yesterday", status=2).err
