"""Moving from acme-dns: its accounts work here as they did there, while the service runs."""

from __future__ import annotations

import time
from pathlib import Path
from uuid import uuid4

import bcrypt
import pytest

from tests.acmednsdb import AcmeDns

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
    assert 401 == service.update(user, PASSWORD[:-1] + "x", subdomain, NEXT).status
    assert 401 == service.update(stranger, PASSWORD, subdomain, NEXT).status
    for _ in range(2):
        reply = service.update(user, PASSWORD, subdomain, NEXT)
        assert (200, {"txt": NEXT}) == (reply.status, reply.body)
    assert {PENDING, NEXT} == values(service.dns, name)
    assert "here already: 2" in service.cli("import", "acme-dns", source.url).stdout
    assert 401 == service.update(str(uuid4()), PASSWORD, subdomain, NEXT).status
