"""A full disk: DNS goes on and stays in rotation, and every place that reports the state of the service reports it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.disks import Disk, disk

from .dns_client import values
from .programs import wait_until
from .service import CONFIGURATION, ZONE, Responder, Token
from .test_metrics import samples
from .unbound import resolving

__all__ = ["disk"]

pytestmark = pytest.mark.e2e

FULL = "the disk is full: make room on it"


def test_full_disk(disk: Disk, tmp_path: Path) -> None:
    """
    Presents get 503, and the readiness check names the reason without failing for DNS. That ends when there is room,
    and not before, also if the process is started again in between.
    """
    service = Responder(tmp_path, configuration=CONFIGURATION.replace("{database}", f"{disk.directory}/responder.db"))
    service.start()
    try:
        token = service.mint("some.example.com")
        wait_until(lambda: service.present(token, "v0").status == 200, "the value is acknowledged")
        assert "ok" == service.readiness().body["writing"]

        disk.fill()
        served = _present_until_refused(service, token)

        wait_until(lambda: FULL in service.readiness().body["writing"], "the readiness check reports it")
        assert 200 == service.readiness().status
        assert 503 == service.readiness("?include=writing").status
        assert 0 == samples(service)["responder_condition_ok", "writing"]
        assert 1 == samples(service)["responder_database_up",]
        ready = service.cli("serve", "--ready")
        assert ("ready\n", True) == (ready.stdout, FULL in ready.stderr)
        with resolving(tmp_path, {ZONE: service.dns}) as resolver:
            assert f"changes cannot be stored: cannot use the database {disk.directory}/responder.db: {FULL}" in (
                service.attempt("check", "--resolver", f"127.0.0.1:{resolver}").stdout
            )
        assert served == values(service.dns, token.challenge_name)

        os.kill(service.supervisor.pid, signal.SIGHUP)
        wait_until(lambda: "the reload was refused" in service.log(), "a reload cannot go on without room")
        assert all(FULL in line for line in service.log().splitlines() if "the reload was refused" in line)
        assert served == values(service.dns, token.challenge_name)

        before = service.child("control")
        before.kill()
        service.replacement(before, "control")
        wait_until(service.ready, "the service is ready again")
        wait_until(lambda: FULL in service.readiness().body["writing"], "the readiness check reports it again")
        assert served == values(service.dns, token.challenge_name)
        assert "changes can be made again" not in service.log()

        disk.empty()
        wait_until(lambda: "ok" == service.readiness().body["writing"], "the readiness check reports that it is over")
        assert "changes can be made again" in service.log()
        assert 200 == service.present(token, "after").status
    finally:
        service.stop()


def _present_until_refused(service: Responder, token: Token) -> set[str]:
    """Present a value again and again, and clean up another; gives what is in place once that is refused."""
    in_place = {"v0"}
    for number in range(1, 1000):
        for change, value in ((service.present, f"v{number}"), (service.cleanup, f"v{number - 1}")):
            reply = change(token, value)
            if reply.status == 503:
                return in_place
            assert reply.status == 200, reply
            in_place ^= {value}
    raise AssertionError("the disk does not fill up")
