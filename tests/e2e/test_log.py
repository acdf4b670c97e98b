"""What the service writes to stderr, as a collector of logs reads it: every line is an event with time and level."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.support.places import ROOT
from tests.support.processes import PATIENCE
from tests.support.service import write_configuration

from .programs import wait_until
from .service import Responder, Token

pytestmark = pytest.mark.e2e

VALUE = "a" * 43


def events(directory: Path) -> list[dict[str, Any]]:
    """What the service logged. Fails the test if there is anything that is no event."""
    lines = (directory / "responder.log").read_text().splitlines()
    logged = [json.loads(line) for line in lines]
    assert [] == [event for event in logged if not {"timestamp", "level", "event"} <= {*event}]
    return logged


def test_every_line_is_an_event(fresh_service: Responder) -> None:
    """Warnings about the configuration, deaths of processes, and the end of the service are events as others are."""
    service = fresh_service
    before = {module: service.child(module) for module in ("nameserver", "control")}
    for module, process in before.items():
        process.kill()
        service.replacement(process, module)
    wait_until(service.ready, "the service is ready again")
    service.supervisor.terminate()
    assert 0 == service.supervisor.wait()

    logged = events(service.directory)
    warning = next(event for event in logged if event["event"] == "the configuration may not do what you expect")
    assert ("warning", True) == (warning["level"], warning["reason"].startswith("zones[0].nameservers: 127.0.0.1 of"))
    deaths = [event for event in logged if event["event"] == "a process died; starting it again"]
    assert [("nameserver 1", "error"), ("control", "error")] == [(e["process"], e["level"]) for e in deaths]
    assert {"killed by signal 9"} == {event["cause"] for event in deaths}
    assert ["SIGTERM"] == [event["signal"] for event in logged if event["event"] == "stopping the service"]
    assert "stopped" == logged[-1]["event"]


def test_requests_name_the_token(fresh_service: Responder) -> None:
    """A request is logged with its token's id, and one that is refused with the reason, never with a secret."""
    service = fresh_service
    good, revoked = service.mint("some.example.com"), service.mint("other.example.com")
    wait_until(lambda: service.present(good, VALUE).status == 200, "the value is acknowledged")
    service.cli("token", "revoke", revoked.id)
    wait_until(lambda: service.present(revoked, VALUE).status == 401, "the revocation is noticed")
    unknown = Token(good.id, "rsp_" + "x" * 43, good.challenge_name)
    assert 401 == service.present(unknown, VALUE).status
    assert 403 == service.present(good, VALUE, name="_acme-challenge.elsewhere.example.com").status
    assert 401 == _update(service, good, revoked)

    requests = [event for event in events(service.directory) if event["event"] == "request"]
    told = {(r.get("token"), r["status"], r.get("reason")) for r in requests if r["path"] != "/readyz"}
    assert {
        (good.id, 200, None),
        (revoked.id, 401, "this token was revoked: ask your platform team for a new one"),
        (None, 401, "this token is unknown: check that all of it was copied, with its rsp_ prefix"),
        (good.id, 403, None),
        (good.id, 401, f"the user name is {revoked.id}, which is not the id of this token"),
    } <= told
    assert not any(secret in (service.directory / "responder.log").read_text() for secret in (good.secret, "xxxx"))


def _update(service: Responder, token: Token, user: Token) -> int:
    """The status that acme-dns's route gives for a token with the user name of another one."""
    connection = HTTPConnection("127.0.0.1", service.api, timeout=PATIENCE)
    try:
        body = json.dumps({"subdomain": token.challenge_name, "txt": VALUE})
        connection.request("POST", "/update", body, {"X-Api-User": user.id, "X-Api-Key": token.secret})
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("setting", "fault"),
    [
        ('[dsn]\nlisten = ["127.0.0.1:0"]', "dsn: there is no such setting"),
        ('[log]\nformat = "text"\n[dns]\nlisten = ["192.0.2.1:53"]', "cannot listen on 192.0.2.1:53"),
    ],
)
def test_journal(tmp_path: Path, setting: str, fault: str) -> None:
    """Where stderr is journald's (JOURNAL_STREAM of systemd.exec(5)), each line begins with its priority."""
    configuration = write_configuration(tmp_path)
    parts = configuration.read_text().partition("[dns]")
    configuration.write_text(f"{parts[0]}{setting}\n[database]\nurl = 'sqlite+aiosqlite:///{tmp_path}/responder.db'\n")
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as journal:
        status = os.fstat(writing)
        process = subprocess.Popen(
            [sys.executable, "-m", "responder", "--config", str(configuration), "serve"],
            cwd=ROOT,
            env={**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"},
            stderr=writing,
        )
        os.close(writing)
        lines = journal.read().decode().splitlines()

    assert 1 == process.wait(PATIENCE)
    assert {"<2>", "<4>"} >= {line[:3] for line in lines}
    assert any(line.startswith("<2>") and fault in line for line in lines)
