"""Moving from acme-dns: its accounts work here as they did there, while the service runs."""

from __future__ import annotations

import json
import time
from http.client import HTTPConnection
from pathlib import Path
from uuid import uuid4

import bcrypt
import pytest

from tests.bench import acmedns
from tests.support.acmednsdb import AcmeDns
from tests.support.processes import PATIENCE

from .dns_client import values
from .programs import wait_until
from .service import ZONE, Responder

pytestmark = pytest.mark.e2e

PENDING, NEXT = "p" * 43, "n" * 43
PASSWORD = "Jz4-cVe5Yf8vXsnG_qmB2kT9uWd0rHaLx3PoE7iy"


def test_account_goes_on(service: Responder, tmp_path: Path) -> None:
    """
    What acme-dns showed is shown; its client sets the next value with its old user name and password, before and
    after the hash was exchanged for a digest, and nobody does with another password.
    """
    source = AcmeDns(str(tmp_path / "acme-dns.db"))
    user, subdomain = source.register(
        (PENDING, int(time.time())), password=bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10, b"2a")).decode()
    )
    stranger, _ = source.register()
    name = f"{subdomain}.{ZONE}"

    service.cli("import", "acme-dns", source.url)

    wait_until(lambda: values(service.dns, name) == {PENDING}, "the value of acme-dns is shown")
    assert 401 == _update(service.api, user, PASSWORD[:-1] + "x", subdomain, NEXT)
    assert 401 == _update(service.api, stranger, PASSWORD, subdomain, NEXT)
    for _ in range(2):
        assert 200 == _update(service.api, user, PASSWORD, subdomain, NEXT)
    assert {PENDING, NEXT} == values(service.dns, name)
    assert "imported before: 2" in service.cli("import", "acme-dns", source.url).stdout
    assert 401 == _update(service.api, str(uuid4()), PASSWORD, subdomain, NEXT)


def test_from_a_running_acme_dns(service: Responder, tmp_path: Path) -> None:
    """An account that acme-dns itself made, while it goes on serving it: the same values, the same credentials."""
    program = acmedns.find()
    if program is None:
        pytest.skip("acme-dns is not installed, which no Debian package has")
    with acmedns.serving(program, tmp_path / "acme-dns") as peer:
        holder = peer.register()
        (name,) = map(str, holder.challenge_names)
        account = str(holder.token_id), holder.secret, name.partition(".")[0]
        assert 200 == _update(peer.api, *account, PENDING)

        service.cli("import", "acme-dns", str(tmp_path / "acme-dns" / "acme-dns.db"))

        assert {PENDING} == values(peer.dns, name)
        wait_until(lambda: values(service.dns, name) == {PENDING}, "the value of acme-dns is shown")
        assert 200 == _update(peer.api, *account, NEXT) == _update(service.api, *account, NEXT)
        assert {PENDING, NEXT} == values(peer.dns, name) == values(service.dns, name)


def _update(port: int, username: str, password: str, subdomain: str, value: str) -> int:
    """What a server answers to an update."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        headers = {"X-Api-User": username, "X-Api-Key": password}
        connection.request("POST", "/update", json.dumps({"subdomain": subdomain, "txt": value}), headers)
        return connection.getresponse().status
    finally:
        connection.close()
