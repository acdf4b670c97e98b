"""A service that ran comes back, whatever became of its configuration, its files and its database meanwhile."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.support.keypairs import key_pair
from tests.support.ports import free_port
from tests.support.postgres import new_server
from tests.support.processes import PATIENCE

from . import configuration
from .dns_client import answers, ask
from .service import CONFIGURATION, ZONE, Responder

pytestmark = pytest.mark.e2e


def with_address(address: str) -> str:
    """A configuration that can be told apart by what DNS has for `www`."""
    return configuration.render(configuration.zone(ZONE, {f"ns1.{ZONE}": ["127.0.0.1"]}, records=f"www A {address}"))


def state(directory: Path) -> dict[str, str]:
    return {"STATE_DIRECTORY": str(directory)}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Responder]:
    """A service that ran, and was stopped. Its service manager gives it a directory for its state."""
    service = Responder(tmp_path, configuration=with_address("192.0.2.7"), environment=state(tmp_path))
    try:
        service.start()
        service.stop()
        yield service
    finally:
        service.stop()


def shown(service: Responder) -> str:
    return str(ask(service.dns, f"www.{ZONE}", "A").answer[0][0])


def logged(service: Responder, event: str) -> list[dict[str, Any]]:
    lines = (service.directory / "responder.log").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if entry["event"] == event]


def asked(service: Responder, path: str) -> bytes:
    """What the admin listener answers."""
    connection = HTTPConnection("127.0.0.1", service.admin, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


GOING_ON = "the configuration cannot be used; going on with that of the last start"

FAULTS: dict[str, Callable[[str], str]] = {
    "dsn: there is no such setting": lambda text: text.replace("[dns]", "[dsn]"),
    "is not TOML": lambda text: text.replace("[dns]", "[dns"),
    "cannot listen on 192.0.2.1:53 (udp, dns.listen)": lambda text: text.replace(
        '"127.0.0.1:{dns}"', '"192.0.2.1:53", "127.0.0.1:{dns}"'
    ),
    "api.certificate_file: /nowhere: cannot be read": lambda text: text.replace(
        'tls = "off"', 'tls = "files"\ncertificate_file = "/nowhere"\nprivate_key_file = "/nowhere"'
    ),
    "check database.url": lambda text: text.replace("{database}", "/proc/nowhere/responder.db"),
    "the key file /proc/version is open": lambda text: f'{text}\n[dns.update]\nkey_file = "/proc/version"\n',
}


@pytest.mark.parametrize("fault", FAULTS)
def test_configurations_that_cannot_be_used(service: Responder, fault: str) -> None:
    """The service goes on with that of its last start, as if there had been no restart, and reports it everywhere."""
    service.configure(FAULTS[fault](with_address("192.0.2.8")))
    service.start()

    assert "192.0.2.7" == shown(service)
    assert any(fault in event["reason"] for event in logged(service, GOING_ON))
    checks = json.loads(asked(service, "/readyz"))
    assert fault in checks["configuration"]
    assert b'responder_condition_ok{condition="configuration"} 0.0' in asked(service, "/metrics").splitlines()
    ready = service.attempt("serve", "--ready")
    assert (0, "ready\n", True) == (ready.returncode, ready.stdout, fault in ready.stderr)
    service.stop()

    service.configure(with_address("192.0.2.8"))
    service.start()

    assert "192.0.2.8" == shown(service)
    assert "ok" == json.loads(asked(service, "/readyz"))["configuration"]
    assert b'responder_condition_ok{condition="configuration"} 1.0' in asked(service, "/metrics").splitlines()


def test_variables_that_cannot_be_used(service: Responder) -> None:
    """It is the same with an error in the environment."""
    service.environment["RESPONDER_DNS__LISTEM"] = "[]"
    service.start()

    assert "192.0.2.7" == shown(service)
    assert logged(service, GOING_ON)[0]["reason"].startswith("RESPONDER_DNS__LISTEM: there is no such setting")


def test_a_first_start(tmp_path: Path) -> None:
    """A service that never ran does not start with a fault."""
    faulty = CONFIGURATION.replace("[dns]", "[dsn]")
    service = Responder(tmp_path, configuration=faulty, environment=state(tmp_path))

    refused = service.attempt("serve")

    assert 1 == refused.returncode
    assert [("cannot start", "dsn: there is no such setting: did you mean dns?")] == [
        (event["event"], event["reason"]) for event in map(json.loads, refused.stderr.splitlines())
    ]
    assert not (tmp_path / "last-configuration.json").exists()


def test_files_that_broke(tmp_path: Path) -> None:
    """A restart with a damaged certificate and key file costs the API its certificate, and DNS its updates, alone."""
    pair = key_pair("api.example.com")
    files = {"certificate_file": pair.chain, "private_key_file": pair.key}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    settings = "".join(f'{name} = "{tmp_path}/{name}"\n' for name in files)
    text = CONFIGURATION.replace('tls = "off"', f'tls = "files"\n{settings}')
    service = Responder(tmp_path, configuration=text, environment=state(tmp_path))
    try:
        service.start()
        service.stop()
        (tmp_path / "certificate_file").write_text("damaged")
        (tmp_path / "tsig.key").write_text("damaged")
        service.start()

        assert answers(service.dns, ZONE, "SOA")
        assert (
            "it is self-signed, because no certificate has been issued yet"
            == json.loads(asked(service, "/readyz"))["certificate"]
        )
        assert logged(service, "the certificate files cannot be used; going on with what there was")
        assert logged(service, "DNS updates are disabled until the next start")
    finally:
        service.stop()


def test_a_database_that_comes_later(tmp_path: Path) -> None:
    """
    PostgreSQL that is not there when the service starts, as at boot, is waited for: at next to no cost, with a reason
    in the log and for the service manager, and with probes that do not end the service.
    """
    port = free_port()
    url = f"postgresql+asyncpg://postgres@127.0.0.1:{port}/postgres"
    text = CONFIGURATION.replace("sqlite+aiosqlite:///{database}", url)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, new_server() as server:
        manager.bind(f"\0responder-test-{port}")
        manager.settimeout(PATIENCE)
        server.stop()
        environment = {"NOTIFY_SOCKET": f"@responder-test-{port}"}
        service = Responder(tmp_path, configuration=text, environment=environment)
        try:
            service.begin_serving()
            assert b"EXTEND_TIMEOUT_USEC=30000000\nSTATUS=waiting for the database" == manager.recv(200)
            (event,) = logged(service, "waiting for the database: DNS is not answered before")
            assert "nothing answers there" in event["reason"]
            assert b'{"alive": true}\n' == asked(service, "/livez")
            assert "failed: the service is waiting for its database" == json.loads(asked(service, "/readyz"))["store"]

            server.start("listen_addresses=127.0.0.1", f"port={port}")

            service.wait_until_ready()
            assert logged(service, "the database answers again")
            said = b""
            while b"READY=1" not in said:
                said = manager.recv(200)
            assert b"STATUS=" == manager.recv(200)
        finally:
            service.stop()
