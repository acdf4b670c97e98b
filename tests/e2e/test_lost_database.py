"""A database that is lost under a running service: it is noticed, reported, and not replaced by an empty one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.postgres import PostgresServer

from . import configuration
from .dns_client import values
from .programs import wait_until
from .service import ZONE, Responder, Token

pytestmark = pytest.mark.e2e

VALUE = "a" * 43


def presented(service: Responder) -> Token:
    """A token with a value in place."""
    token = service.mint("some.example.com")
    wait_until(lambda: service.present(token, VALUE).status == 200, "the value is acknowledged")
    return token


def store_check(service: Responder) -> str:
    """What the readiness check reports of the store."""
    return str(service.readiness().body["store"])


def test_lost_file(fresh_service: Responder) -> None:
    """The service reports it and answers 503, DNS goes on, and no command makes another file in its place."""
    service = fresh_service
    token = presented(service)

    (service.directory / "responder.db").unlink()
    there = {path.name for path in service.directory.glob("responder.db*")}

    wait_until(lambda: "deleted, moved or replaced while in use" in store_check(service), "the loss is reported")
    assert 503 == service.present(token, "b" * 43).status
    assert {VALUE} == values(service.dns, token.challenge_name)
    for command in (("token", "mint", "other.example.com"), ("token", "list"), ("issue", "some.example.com", *_CA)):
        done = service.attempt(*command)
        assert (1, "") == (done.returncode, done.stdout)
        assert "there is no database" in done.stderr
    service.attempt("check", "--resolver", f"127.0.0.1:{service.dns}", "--port", str(service.dns))
    assert there == {path.name for path in service.directory.glob("responder.db*")}


_CA = ("--server", "https://127.0.0.1:1/dir")


def test_moved_back(fresh_service: Responder) -> None:
    """A file that is put back is used again, and nothing is lost."""
    service = fresh_service
    token = presented(service)

    (service.directory / "responder.db").rename(service.directory / "elsewhere.db")
    wait_until(lambda: store_check(service) != "ok", "the loss is noticed")
    (service.directory / "elsewhere.db").rename(service.directory / "responder.db")

    wait_until(lambda: store_check(service) == "ok", "the service goes on")
    assert 200 == service.present(token, "b" * 43).status
    assert {VALUE, "b" * 43} == values(service.dns, token.challenge_name)


def test_new_database(fresh_service: Responder) -> None:
    """A service that starts with an empty database says so: in its log, and in the readiness check, which is well."""
    service = fresh_service
    presented(service)
    service.supervisor.terminate()
    service.supervisor.wait()
    (service.directory / "responder.db").unlink()
    service.start()

    ready = service.readiness()
    done = service.cli("serve", "--ready")

    assert 200 == ready.status
    assert ready.body["database"].startswith("new: it was created at ")
    assert "ready\n" == done.stdout
    assert "responder: warning: database: new: it was created at " in done.stderr
    lines = [json.loads(line) for line in service.log().splitlines() if line.startswith("{")]
    *_, event = [line for line in lines if line["event"] == "the database is new"]
    assert "warning" == event["level"]
    assert str(service.directory / "responder.db") in event["database"]


def test_database_of_another(tmp_path: Path, postgres_server: PostgresServer) -> None:
    """With PostgreSQL, a database that is dropped and made anew is noticed; what it lacks does not vanish from DNS."""
    url = postgres_server.create_database()
    name = postgres_server.name(url)
    settings = configuration.render(configuration.zone(ZONE, {f"ns1.{ZONE}": ["127.0.0.1"]}))
    service = Responder(tmp_path, configuration=settings.replace("sqlite+aiosqlite:///{database}", url))
    service.start()
    try:
        token = presented(service)

        postgres_server.execute(f"DROP DATABASE {name} WITH (FORCE)")
        postgres_server.execute(f"CREATE DATABASE {name}")

        wait_until(lambda: "a table is missing" in service.log(), "the loss is noticed")
        minted = service.attempt("token", "mint", "other.example.com")
        assert 1 == minted.returncode
        assert "a service is running, and there is no database" in minted.stderr

        assert "made a new database" in service.cli("db", "upgrade").stderr
        service.cli("token", "mint", "other.example.com")

        wait_until(lambda: "another database has taken the place of the one in use" in service.log(), "it is noticed")
        assert {VALUE} == values(service.dns, token.challenge_name)
    finally:
        service.stop()
