"""Our units on a real systemd: what a bad day of an administrator does to DNS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .programs import require, wait_until
from .systemd import Machine, booted

pytestmark = pytest.mark.e2e

CONFIGURATION = """
[[zones]]
name = "acme.example.com"
hostmaster = "hostmaster@example.com"
records = "www A {address}"
[zones.nameservers]
"ns1.acme.example.com" = ["192.0.2.1"]

[dns]
listen = ["0.0.0.0:53", "[::]:53"]
"""

TYPING_ERROR = "dsn: there is no such setting: did you mean dns?"

STARTS = 7
"""More than the five in ten seconds after which systemd gives a unit up, unless it is told not to."""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine with our units, and nothing started."""
    require("dig")
    with booted(tmp_path) as machine:
        yield machine


def configure(machine: Machine, address: str, *, typing_error: bool = False) -> None:
    text = CONFIGURATION.format(address=address)
    machine.path("/etc/responder/responder.toml").write_text(text.replace("[dns]", "[dsn]") if typing_error else text)


def address(machine: Machine) -> str:
    """What DNS has for the record."""
    question = ("www.acme.example.com", "A", "+short", "+tries=1", "+time=1")
    return machine.attempt("dig", "@127.0.0.1", *question).stdout.strip()


def test_a_typing_error_and_a_restart(machine: Machine) -> None:
    """
    The service goes on with the configuration of its last start, and reports that wherever somebody looks; without the
    error, the next restart takes the new one.
    """
    configure(machine, "192.0.2.7")
    machine.run("systemctl", "start", "responder.socket", "responder")
    assert "192.0.2.7" == address(machine)

    configure(machine, "192.0.2.8", typing_error=True)
    machine.run("systemctl", "restart", "responder")

    assert "192.0.2.7" == address(machine)
    assert "active" == machine.state("responder")
    status = "going on with the configuration of an earlier start: the new one has faults"
    wait_until(lambda: machine.property("responder", "StatusText") == status, "systemd knows")
    (event,) = [event for event in machine.events() if event["level"] == "error"]
    assert (TYPING_ERROR, 3) == (event["reason"], event["priority"])

    configure(machine, "192.0.2.8")
    machine.run("systemctl", "restart", "responder")

    assert "192.0.2.8" == address(machine)
    assert "" == machine.property("responder", "StatusText")


def test_a_first_start_that_fails(machine: Machine) -> None:
    """
    It is tried again for as long as it takes, the ports stay bound, and once the error is gone the service starts by
    itself, and answers what was asked meanwhile.
    """
    configure(machine, "192.0.2.7", typing_error=True)
    machine.attempt("systemctl", "start", "--no-block", "responder.socket", "responder")
    wait_until(lambda: int(machine.property("responder", "NRestarts")) >= STARTS, "it was tried again and again")
    assert "active" == machine.state("responder.socket")
    assert {2} == {event["priority"] for event in machine.events()}

    asking = machine.begin("dig", "@127.0.0.1", "www.acme.example.com", "A", "+short", "+tries=1", "+time=60")
    configure(machine, "192.0.2.7")

    assert "192.0.2.7" == asking.communicate()[0].strip()
    wait_until(lambda: machine.state("responder") == "active", "the service is ready")


def test_how_it_ends(machine: Machine) -> None:
    """The journal has the end of the service, and every event its priority."""
    configure(machine, "192.0.2.7")
    machine.run("systemctl", "start", "responder.socket", "responder")
    machine.run("systemctl", "stop", "responder.socket", "responder")

    logged = [(event["event"], event["priority"]) for event in machine.events()]
    assert ("stopped", 6) == logged[-1]
    assert ("stopping the service", 6) in logged
    assert ("the configuration may not do what you expect", 4) in logged


def test_reload(machine: Machine) -> None:
    """
    `systemctl reload` takes over the new configuration, with the same process, ports and capabilities. One with an
    error is refused, and the status has the reason.
    """
    configure(machine, "192.0.2.7")
    machine.run("systemctl", "start", "responder.socket", "responder")
    pid = machine.property("responder", "MainPID")

    configure(machine, "192.0.2.8")
    machine.run("systemctl", "reload", "responder")
    wait_until(lambda: "reloaded" in [event["event"] for event in machine.events()], "the reload is complete", 300)
    wait_until(lambda: machine.state("responder") == "active", "systemd knows")
    assert ("192.0.2.8", pid) == (address(machine), machine.property("responder", "MainPID"))
    users = [event["user"] for event in machine.events() if event["event"] == "in the sandbox"]
    assert 1 == len(set(users))

    configure(machine, "192.0.2.9", typing_error=True)
    machine.run("systemctl", "reload", "responder")
    wait_until(lambda: TYPING_ERROR in machine.property("responder", "StatusText"), "the status has the reason")
    wait_until(lambda: machine.state("responder") == "active", "systemd knows")
    assert ("192.0.2.8", pid) == (address(machine), machine.property("responder", "MainPID"))
