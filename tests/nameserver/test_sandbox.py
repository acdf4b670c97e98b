"""The sandbox of a real nameserver process: what is in force from its first packet on, and what it reports of it."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

from responder.nameserver.seccomp import program_for
from tests.nameserver.test_landlock import version
from tests.support.nameservers import resolve, running
from tests.support.processes import wait_until


def test_all_is_in_force(tmp_path: Path) -> None:
    """The process has no new privileges, its calls are filtered, it has no core; it says so, and answers."""
    with running(tmp_path) as nameserver:
        lines = Path(f"/proc/{nameserver.process.pid}/status").read_text().splitlines()
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        limits = [
            resource.prlimit(nameserver.process.pid, limit) for limit in (resource.RLIMIT_CORE, resource.RLIMIT_NPROC)
        ]
        assert resolve(nameserver).answer
        wait_until(lambda: nameserver.control.sandbox, "it has reported what is in force")
        reported = nameserver.control.sandbox

    filtered = program_for(os.uname().machine) is not None
    assert ("1", "2" if filtered else "0", "1") == (status["NoNewPrivs"], status["Seccomp"], status["Threads"])
    assert [(0, 0)] * 2 == limits
    assert {"landlock": version() if version() > 0 else 0, "seccomp": filtered, "user": ""} == reported
    (event,) = (json.loads(line) for line in nameserver.log.read_text().splitlines() if "in the sandbox" in line)
    assert reported.items() <= event.items()
