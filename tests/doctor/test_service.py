"""What the doctor makes of what the service reports of itself."""

from __future__ import annotations

import pytest

from responder.doctor import CheckName, Mark, ServiceReport
from responder.doctor.service import examine

WELL = {"store": "ok", "dns_udp": "ok", "dns_tcp": "ok", "writing": "ok", "database": "ok"}


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        (ServiceReport({}), []),
        (ServiceReport(WELL), [(Mark.TICK, "the service on this machine can store changes")]),
        (
            ServiceReport(
                WELL | {"writing": "failed: cannot use the database x.db: the disk is full: make room on it"}
            ),
            [(Mark.CROSS, "changes cannot be stored: cannot use the database x.db: the disk is full: make room on it")],
        ),
        (
            ServiceReport({"store": "failed: it was moved", "writing": "failed: it was moved"}),
            [
                (Mark.CROSS, "the service cannot use it: it was moved"),
                (Mark.CROSS, "changes cannot be stored: it was moved"),
            ],
        ),
        (
            ServiceReport(WELL | {"database": "new: it was created at 2026-11-28T22:10:57Z"}),
            [(Mark.NOTE, "it is new: it was created at 2026-11-28T22:10:57Z")],
        ),
        (ServiceReport({}, ["it is open"]), [(Mark.NOTE, "it is open")]),
        # DNS is looked at from outside.
        (
            ServiceReport(WELL | {"dns_udp": "failed: TimeoutError"}),
            [(Mark.TICK, "the service on this machine can store changes")],
        ),
    ],
)
def test_findings(service: ServiceReport, expected: list[tuple[Mark, str]]) -> None:
    """Each thing that is wrong with the database is a finding; a service that was not asked makes none."""
    findings = examine(service)
    assert expected == [(finding.mark, finding.text) for finding in findings]
    assert {CheckName.DATABASE} >= {finding.check for finding in findings}
    assert all(finding.fix is not None for finding in findings if finding.mark is Mark.CROSS)
