"""
Nameservers as a user of their own: real processes of several users, so these tests need root.

A Python in root's home cannot be read by others. Then the service is started where it can: in mounts of its own.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.request import urlopen

import dns.exception
import dns.message
import dns.query
import pytest

from responder.process import users
from responder.process.users import User, for_nameservers
from tests.e2e.programs import Process, descendants, require
from tests.support.places import ROOT
from tests.support.ports import free_port
from tests.support.processes import PATIENCE, wait_until
from tests.support.requirements import lacking
from tests.support.service import new_database, write_configuration

NOBODY = pwd.getpwnam("nobody")
STRANGER = 65_053
"""A user that no system has."""

OPEN = """
for closed in "$@"; do
    shift
    [ "$closed" = -- ] && break
    inner=$(mktemp -d) && mount --bind "$closed" "$inner"
    mount -t tmpfs -o mode=755 none "/$(echo "$closed" | cut -d/ -f2)"
    mkdir -p "$closed" && mount --bind "$inner" "$closed"
done
exec "$@"
"""
"""Puts each directory of the arguments before -- where all can reach it, and runs the rest."""


def status(pid: int) -> dict[str, list[str]]:
    """What the kernel shows of a process (proc(5)), as words."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: rest.split() for name, _, rest in (line.partition(":") for line in lines)}


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that all can reach; those of pytest are their owner's."""
    path = Path(tempfile.mkdtemp(prefix="responder-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@contextmanager
def serving(
    directory: Path, before: Sequence[str] = (), settings: Mapping[str, str] | None = None
) -> Iterator[tuple[int, dict[str, int]]]:
    """The service, ready, with *before* in front of its command; its process id, and its ports."""
    if os.geteuid() != 0:
        lacking("only root can change users")
    home = Path(sys.base_prefix).resolve()
    is_closed = any(not path.stat().st_mode & 0o001 for path in home.parents)
    opened = [require("unshare"), "-m", "sh", "-c", OPEN, "sh", *([str(home)] if is_closed else []), "--"]
    ports = {purpose: free_port() for purpose in ("dns", "api", "admin")}
    configuration = str(write_configuration(directory, **ports))
    command = [*opened, *before, sys.executable, "-m", "responder", "--config", configuration, "serve"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(settings or {})}
    with (directory / "log").open("wb") as log:
        service = subprocess.Popen(command, cwd=directory, env=environment, stdout=log, stderr=log)
    try:
        wait_until(lambda: service.poll() is not None or ready(ports["admin"]), "the service is ready")
        assert service.poll() is None, (directory / "log").read_text()
        yield service.pid, ports
    finally:
        service.terminate()
        service.wait(PATIENCE)


def ready(port: int) -> bool:
    """Whether the service is, with a sandbox that is as it should be."""
    connection = HTTPConnection("127.0.0.1", port)
    try:
        connection.request("GET", "/readyz?include=sandbox")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def sandbox(port: int) -> str:
    """What the service reports of it."""
    with urlopen(f"http://127.0.0.1:{port}/readyz") as response:
        return str(json.load(response)["sandbox"])


def nameservers(service: int) -> list[Process]:
    """Those that have loaded."""
    return [each for each in descendants(service) if each.name in ("responder-dns", "responder-spare")]


def answers(port: int) -> bool:
    try:
        return bool(dns.query.udp(dns.message.make_query("acme.example.com", "SOA"), "127.0.0.1", 0.5, port).answer)
    except (dns.exception.Timeout, OSError):
        return False


def test_started_as_root(directory: Path) -> None:
    """
    Nameservers run as nobody, with no group and no right that was root's. They answer, and one that hangs is killed and
    replaced, though the control process could not do that.
    """
    with serving(directory, settings={"RESPONDER_DNS__USER": "nobody"}) as (service, ports):
        wait_until(lambda: len(nameservers(service)) == 2, "there is a spare")
        for nameserver in nameservers(service):
            shown = status(nameserver.pid)
            assert [str(NOBODY.pw_uid)] * 4 == shown["Uid"]
            assert [[str(NOBODY.pw_gid)] * 4, [str(NOBODY.pw_gid)]] == [shown["Gid"], shown["Groups"]]
            assert {"0000000000000000"} == {*shown["CapPrm"], *shown["CapEff"], *shown["CapInh"], *shown["CapAmb"]}
        control = next(each for each in descendants(service) if "responder.control" in each.command)
        assert "0" == status(control.pid)["Uid"][0]
        assert answers(ports["dns"])
        assert sandbox(ports["admin"]).endswith(", seccomp, user nobody")
        hanging = next(each for each in nameservers(service) if each.name == "responder-dns")
        os.kill(hanging.pid, signal.SIGSTOP)
        wait_until(lambda: not hanging.alive and answers(ports["dns"]), "it is killed, and another one answers")

    events = [json.loads(line) for line in (directory / "log").read_text().splitlines()]
    assert {"nobody"} == {event["user"] for event in events if event["event"] == "in the sandbox"}


def test_capabilities_alone(directory: Path) -> None:
    """
    A service that may change users, and is not root, does so as well; the control process gets none of the capabilities
    that this takes.
    """
    new_database(directory)
    for path in (directory, *directory.iterdir()):
        os.chown(path, STRANGER, STRANGER)
    capabilities = "-all,+setuid,+setgid,+kill"
    before = [require("setpriv"), f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups", "--no-new-privs"]
    before += [f"--{kind}={capabilities}" for kind in ("bounding-set", "inh-caps", "ambient-caps")]
    with serving(directory, before) as (service, ports):
        wait_until(lambda: len(nameservers(service)) == 2, "there is a spare")
        uids = {each.name: status(each.pid)["Uid"][0] for each in nameservers(service)}
        expected = str(next(pwd.getpwnam(name).pw_uid for name in users.PREFERRED if name in _names()))
        assert {"responder-dns": expected, "responder-spare": expected} == uids
        control = next(each for each in descendants(service) if "responder.control" in each.command)
        assert str(STRANGER) == status(control.pid)["Uid"][0]
        for shown in (status(each.pid) for each in (control, *nameservers(service))):
            assert {"0000000000000000"} == {*shown["CapPrm"], *shown["CapEff"], *shown["CapAmb"]}
        first = next(each for each in nameservers(service) if each.name == "responder-dns")
        first.kill()
        wait_until(lambda: not first.alive and answers(ports["dns"]), "another one answers")


def _names() -> set[str]:
    return {entry.pw_name for entry in pwd.getpwall()}


def test_without_the_right(directory: Path) -> None:
    """A service that may not change users goes on with one, and reports why."""
    new_database(directory)
    for path in (directory, *directory.iterdir()):
        os.chown(path, STRANGER, STRANGER)
    before = [require("setpriv"), f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups"]
    with serving(directory, before, {"RESPONDER_DNS__USER": "nobody"}) as (service, ports):
        assert {str(STRANGER)} == {status(each.pid)["Uid"][0] for each in nameservers(service)}
        assert sandbox(ports["admin"]).endswith(", seccomp, no user of its own")
        assert answers(ports["dns"])

    events = [json.loads(line) for line in (directory / "log").read_text().splitlines()]
    (event,) = (event for event in events if event["event"] == "nameservers run as the user of the service")
    assert ("warning", "the service has no CAP_KILL, CAP_SETGID, CAP_SETUID") == (event["level"], event["reason"])


@pytest.fixture
def capable(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this process could change users, whether it can or not."""
    monkeypatch.setattr(users, "_capabilities", lambda: (1 << 40) - 1)


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ("no-such-user", "there is no user no-such-user"),
        ("root", "user root is that of the service, or root"),
    ],
)
def test_users_that_are_not_taken(capable: None, wanted: str, reason: str) -> None:
    """One that the system does not have, and root, are none for nameservers."""
    assert reason == for_nameservers(wanted)


def test_preferred_users(capable: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a name it is the first that the system has; there may be none, or Python may be out of its reach."""
    monkeypatch.setattr(users, "PREFERRED", ("no-such-user", "nobody"))
    monkeypatch.setattr(users, "_can_run_python", lambda _: True)
    assert User("nobody", NOBODY.pw_uid, NOBODY.pw_gid) == for_nameservers("")
    monkeypatch.setattr(users, "_can_run_python", lambda _: False)
    assert f"user nobody cannot read {sys.executable} and the modules of the service" == for_nameservers("")
    monkeypatch.setattr(users, "PREFERRED", ("no-such-user", "nor-this-one"))
    assert "there is no user no-such-user or nor-this-one" == for_nameservers("")
