"""
`dns.realtime`: which priority the processes of a running service have.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import configuration
from .service import ZONE, Responder

pytestmark = pytest.mark.e2e


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Responder]:
    """A service that is to have the priority; it is not running yet."""
    zone = configuration.zone(ZONE, {f"ns1.{ZONE}": ["127.0.0.1"]})
    service = Responder(tmp_path, configuration=configuration.render(zone, dns="realtime = true"))
    yield service
    service.stop()


@pytest.fixture
def one_core() -> Iterator[None]:
    """What is started here has no other core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    yield
    os.sched_setaffinity(0, cores)


def policies(service: Responder) -> tuple[int, int]:
    """Of the nameserver process and of the control process."""
    nameserver, control = (os.sched_getscheduler(service.child(module).pid) for module in ("nameserver", "control"))
    return nameserver, control


def test_nameservers_go_first(installed: Responder) -> None:
    """The nameserver process has real-time priority, and no other process has."""
    if os.geteuid() != 0 or len(os.sched_getaffinity(0)) == 1:
        pytest.skip("real-time priority takes root, and two cores")
    installed.start()

    assert (os.SCHED_RR, os.SCHED_OTHER) == policies(installed)


def test_without_a_core_to_spare(installed: Responder, one_core: None) -> None:
    """It would starve all else, so it answers with the ordinary priority, and says so."""
    installed.start()

    assert (os.SCHED_OTHER, os.SCHED_OTHER) == policies(installed)
    assert (
        "no real-time priority (dns.realtime): going on without" in (installed.directory / "responder.log").read_text()
    )
