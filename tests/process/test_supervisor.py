"""The supervisor: what it binds, whom it starts, how it notices a death, and how everything ends."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import dns.exception
import dns.message
import dns.query
import pytest
import structlog

from responder import logs
from responder.config.settings import DnsSettings
from responder.process import children, listeners, supervisor
from responder.process.children import KEPT_FOR_NAMESERVERS, Child
from responder.process.plan import Plan, become
from responder.process.supervisor import Supervisor
from tests.e2e.programs import descendants
from tests.support.places import ROOT
from tests.support.ports import free_port
from tests.support.processes import PATIENCE, is_alive, wait_until

pytestmark = pytest.mark.serial
"""
The supervisor is a thread of this process and takes its signals: no other thread may be there that does not block them.
"""

NOBODY = "192.0.2.1"
"""An address that no machine has (RFC 5737)."""

CHILD = """
import asyncio, hashlib, json, os, signal, sys
from responder.process.child import run

async def main(orders, lifeline, stop):
    def note(text):
        with open(orders["journal"], "a") as file:
            file.write(f"{orders['name']} {text}\\n")
    note(f"started {os.getpid()}")
    {body}

run(main)
"""
LIVE = "lifeline.ready(); note('ready'); await stop.wait(); note('stopping')"
OBEY = (
    """
async def obey():
    while True:
        message = await lifeline.hear()
        note(f"{message.word} {message.number}")
        if message.word == "serve":
            lifeline.ready(message.number)
obeying = asyncio.create_task(obey())
"""
    + LIVE
)
"""Notes what the supervisor says, and answers where it is told to."""

IN_USE = " (see who listens there with `ss -lntup`, and stop that, or choose another address)"


@dataclass
class Journal:
    """What tiny child processes wrote down: lines of a name, a word, and perhaps more."""

    path: Path

    def lines(self) -> list[str]:
        return self.path.read_text().splitlines() if self.path.exists() else []

    def starts(self, name: str) -> list[int]:
        """Process ids under which the child of that name lived."""
        return [int(line.split()[-1]) for line in self.lines() if line.startswith(f"{name} started")]

    def wait_for(self, line: str, times: int = 1) -> None:
        wait_until(lambda: self.lines().count(line) >= times, f"the journal says: {line}")


@dataclass
class Nursery:
    """Makes children that run a few lines of their own."""

    directory: Path
    journal: Journal

    def child(self, name: str, body: str = LIVE, *, bare: bool = False, **orders: object) -> Child:
        module = f"tiny_{hashlib.sha256(body.encode()).hexdigest()[:8]}"
        (self.directory / f"{module}.py").write_text(CHILD.replace("{body}", body.replace("\n", "\n    ")))
        journal = str(self.journal.path)
        return Child(name, module, {}, {"name": name, "journal": journal, **orders}, bare=bare)


@pytest.fixture
def nursery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nursery:
    modules = tmp_path / "modules"
    modules.mkdir()
    monkeypatch.setenv("PYTHONPATH", f"{modules}{os.pathsep}{ROOT}")
    return Nursery(modules, Journal(tmp_path / "journal"))


@pytest.fixture
def journal(nursery: Nursery) -> Journal:
    return nursery.journal


@pytest.fixture
def blocked() -> Iterator[None]:
    """Signals blocked as the supervisor has them, so that they reach the thread that waits for them."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, supervisor._SIGNALS)
    yield
    while signal.sigtimedwait([signal.SIGCHLD, signal.SIGIO], 0) is not None:
        pass
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@pytest.fixture
def logged() -> Iterator[list[structlog.typing.EventDict]]:
    """The events that the supervisor logs."""
    with structlog.testing.capture_logs() as events:
        yield events


def entry(event: str, *, level: str = "error", **details: Any) -> dict[str, object]:
    """An event as it is logged."""
    return {"event": event, "log_level": level, **details}


def death(name: str, cause: str, **details: Any) -> dict[str, object]:
    """The event of a process that died, and that is started again."""
    return entry("a process died; starting it again", process=name, cause=cause, **details)


Logged = list[structlog.typing.EventDict]


@dataclass
class Run:
    """A supervisor at work in a thread of this process."""

    work: Callable[[], int]
    statuses: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=lambda: self.statuses.append(self.work()))
        self._thread.start()

    def send(self, number: int) -> None:
        assert self._thread.ident is not None
        if self._thread.is_alive():
            signal.pthread_kill(self._thread.ident, number)

    def status(self) -> int:
        self._thread.join(PATIENCE)
        assert self.statuses, "the supervisor does not come to an end"
        return self.statuses[0]


Supervise = Callable[..., Run]


@pytest.fixture
def supervise(blocked: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervise]:
    """Starts a supervisor of *control* and *nameservers*, who have all the time to stop; stops it in the end."""
    for name in ("STOP_CONTROL", "STOP_NAMESERVERS"):
        monkeypatch.setattr(supervisor, name, PATIENCE)
    runs: list[Run] = []
    children: list[Child] = []

    def supervise(control: Child, *nameservers: Child, places: int | None = None) -> Run:
        children.extend((control, *nameservers))
        places = len(nameservers) if places is None else places
        runs.append(Run(Supervisor(control, [*nameservers], places=places).run))
        return runs[-1]

    yield supervise
    for run in runs:
        run.send(signal.SIGTERM)
        assert run.status() in (0, 1)
    for child in children:
        assert child.process is None or child.process.returncode is not None
        if child._lifeline is not None:
            child._lifeline.close()


def test_the_killed_are_replaced(supervise: Supervise, nursery: Nursery, journal: Journal, logged: Logged) -> None:
    """A child that is killed is started again, be it a nameserver or the control process."""
    supervise(nursery.child("control"), nursery.child("nameserver 1"), nursery.child("nameserver 2"))
    for name in ("control", "nameserver 1", "nameserver 2"):
        journal.wait_for(f"{name} ready")

    for name in ("nameserver 2", "control"):
        os.kill(journal.starts(name)[0], signal.SIGKILL)
        journal.wait_for(f"{name} ready", times=2)

    assert [2, 1, 2] == [len(set(journal.starts(name))) for name in ("control", "nameserver 1", "nameserver 2")]
    assert [death("nameserver 2", "killed by signal 9"), death("control", "killed by signal 9")] == logged


def test_those_that_end_are_replaced(supervise: Supervise, nursery: Nursery, journal: Journal, logged: Logged) -> None:
    """A nameserver that ends by itself is started again, though it may never have been ready."""
    supervise(nursery.child("control"), nursery.child("nameserver 1", "sys.exit(3)"))

    wait_until(lambda: len(journal.starts("nameserver 1")) == 3, "it was started three times")

    assert death("nameserver 1", "exited with status 3") in logged


def test_those_that_die_at_birth(supervise: Supervise, nursery: Nursery, journal: Journal, logged: Logged) -> None:
    """A nameserver that ends before it has read its orders is started again, too."""
    (nursery.directory / "tiny_stillborn.py").write_text("raise SystemExit(4)")
    run = supervise(nursery.child("control"), Child("nameserver 1", "tiny_stillborn", {}, {}))

    wait_until(lambda: len(logged) >= 2, "it died twice")

    assert [death("nameserver 1", "exited with status 4")] * 2 == logged[:2]
    run.send(signal.SIGTERM)
    assert 0 == run.status()


def test_a_spare(supervise: Supervise, nursery: Nursery, journal: Journal) -> None:
    """
    Of the nameservers as many answer as there are places; one more is started then, and gets the place of the first
    that dies. That one is started again, as the next spare.
    """
    names = [f"nameserver {number}" for number in (1, 2, 3)]
    supervise(nursery.child("control", OBEY), *(nursery.child(name, OBEY) for name in names), places=2)
    journal.wait_for("nameserver 3 ready")
    served = [line for line in journal.lines() if " serve " in line and not line.startswith("control")]
    assert {"nameserver 1", "nameserver 2"} == {line.partition(" serve ")[0] for line in served}
    assert {"1", "2"} == {line.rpartition(" ")[2] for line in served}
    name, _, place = served[0].partition(" serve ")
    (first,) = journal.starts(name)

    os.kill(first, signal.SIGKILL)
    journal.wait_for(f"{name} ready", times=2)

    _, second = journal.starts(name)
    assert journal.lines().index(f"nameserver 3 serve {place}") < journal.lines().index(f"{name} started {second}")
    journal.wait_for(f"control serve {journal.starts('nameserver 3')[0]}")
    assert f"control died {first}" in journal.lines()


def test_feeds(supervise: Supervise, nursery: Nursery, journal: Journal) -> None:
    """
    The control process and each nameserver get an end of a feed, for each life of either; a new control process is
    told who runs and who answers.
    """
    feed = """
sock = None
async def obey():
    global sock
    while True:
        message = await lifeline.hear()
        if message.word == "feed":
            import socket
            sock = socket.socket(fileno=message.descriptor)
            if orders["name"] == "control":
                sock.send(f"{os.getpid()} to {message.number}".encode())
            else:
                note(f"was told: {sock.recv(100).decode()}")
        elif message.word == "serve":
            note(f"serve {message.number}")
            lifeline.ready(message.number)
obeying = asyncio.create_task(obey())
note(f"runs: {orders.get('nameservers')}")
"""
    supervise(nursery.child("control", feed + LIVE), nursery.child("nameserver 1", feed + LIVE))
    (pid,) = wait_until_started(journal, "nameserver 1")
    for life in range(2):
        control = wait_until_started(journal, "control", life + 1)[life]
        journal.wait_for(f"nameserver 1 was told: {control} to {pid}")
        journal.wait_for(f"control serve {pid}", times=life + 1)
        os.kill(control, signal.SIGKILL)

    journal.wait_for("control ready", times=3)
    assert ["control runs: []", *[f"control runs: [{pid}]"] * 2] == [
        line for line in journal.lines() if line.startswith("control runs")
    ]


def wait_until_started(journal: Journal, name: str, times: int = 1) -> list[int]:
    """The process ids of the child's lives, once there are so many."""
    wait_until(lambda: len(journal.starts(name)) >= times, f"{name} was started")
    return journal.starts(name)


ASK = """
lifeline.ready(); note('ready')
while not stop.is_set():
    await asyncio.sleep(0.01)
    for pid in open(orders['victims']).read().split():
        lifeline.ask_to_kill(int(pid))
"""
"""Asks for the death of all whose process ids are in a file."""


def test_killed_for_the_control_process(supervise: Supervise, nursery: Nursery, journal: Journal) -> None:
    """A nameserver that the control process wants dead is killed, and nobody else is."""
    victims = journal.path.with_name("victims")
    with subprocess.Popen(["sleep", "3600"]) as stranger:
        victims.write_text(f"{stranger.pid} {os.getpid()} 0 -1")
        supervise(nursery.child("control", ASK, victims=str(victims)), nursery.child("nameserver 1"))
        for name in ("control", "nameserver 1"):
            journal.wait_for(f"{name} ready")

        victims.write_text(f"{stranger.pid} {journal.starts('nameserver 1')[0]}")
        journal.wait_for("nameserver 1 ready", times=2)

        assert stranger.poll() is None
        stranger.kill()
    assert 1 == len(journal.starts("control"))


def test_nameservers_have_no_say(supervise: Supervise, nursery: Nursery, journal: Journal) -> None:
    """A nameserver cannot have anybody killed."""
    victims = journal.path.with_name("victims")
    victims.write_text("")
    ask = ASK.replace("ask_to_kill(int(pid))", "ask_to_kill(int(pid)); note('asked')")
    names = ["control", "nameserver 1", "nameserver 2"]
    supervise(*(nursery.child(name, ask if name == "nameserver 1" else LIVE, victims=str(victims)) for name in names))
    for name in names:
        journal.wait_for(f"{name} ready")

    victims.write_text(" ".join(str(journal.starts(name)[0]) for name in names))
    journal.wait_for("nameserver 1 asked", times=9)

    assert [1, 1, 1] == [len(journal.starts(name)) for name in names]


def test_nonsense(supervise: Supervise, nursery: Nursery, journal: Journal, logged: Logged) -> None:
    """A child that says what makes no sense is killed, as it is not itself any more, and started again."""
    mad = "lifeline._socket.send(b'die 1'); await stop.wait()"
    supervise(nursery.child("control"), nursery.child("nameserver 1", mad))

    wait_until_started(journal, "nameserver 1", 2)

    assert entry("a process sends invalid messages; killing it", process="nameserver 1") in logged
    assert death("nameserver 1", "killed by signal 9") in logged


@pytest.mark.parametrize("stubborn", ["control", "nameserver 1"])
def test_those_that_do_not_stop(
    supervise: Supervise,
    nursery: Nursery,
    journal: Journal,
    monkeypatch: pytest.MonkeyPatch,
    logged: Logged,
    stubborn: str,
) -> None:
    """A child that does not stop in time is killed, and the end is an orderly one all the same."""
    monkeypatch.setattr(supervisor, "STOP_CONTROL", 0.05)
    monkeypatch.setattr(supervisor, "STOP_NAMESERVERS", 0.05)
    deaf = "lifeline.ready(); note('ready'); await asyncio.Event().wait()"
    children = [nursery.child(name, deaf if name == stubborn else LIVE) for name in ("control", "nameserver 1")]
    run = supervise(*children)
    for child in children:
        journal.wait_for(f"{child.name} ready")

    run.send(signal.SIGINT)

    assert 0 == run.status()
    assert entry("stopping the service", level="info", signal="SIGINT") == logged[0]
    assert entry("a process does not stop; killing it", process=stubborn) in logged
    assert entry("stopped", level="info") == logged[-1]


def test_control_cannot_start(supervise: Supervise, nursery: Nursery, journal: Journal, logged: Logged) -> None:
    """A control process that ends before it was ever ready ends everything, with status 1."""
    run = supervise(nursery.child("control", "raise SystemExit(1)"), nursery.child("nameserver 1"))

    assert 1 == run.status()
    assert [
        entry("a process died", process="control", cause="exited with status 1"),
        entry("the control process could not start; its last event has the reason", level="critical"),
    ] == logged
    assert not any(is_alive(pid) for pid in journal.starts("nameserver 1"))


def test_control_waits(
    nursery: Nursery, journal: Journal, supervise: Supervise, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A control process that waits for something outside has the service manager wait, too, and know why."""
    waits = "lifeline.waiting(); note('waits')\nwhile not os.path.exists(orders['flag']): await asyncio.sleep(0.01)\n"
    flag = tmp_path / "flag"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "manager"))
        manager.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "manager"))
        supervise(nursery.child("control", waits + LIVE, flag=str(flag)), nursery.child("nameserver 1", OBEY))

        first = manager.recv(200)
        flag.touch()
        while (later := manager.recv(200)) == first:
            pass

        assert b"EXTEND_TIMEOUT_USEC=30000000\nSTATUS=waiting for the database" == first
        assert (b"READY=1", b"STATUS=") == (later, manager.recv(200))


def test_control_cannot_start_again(supervise: Supervise, nursery: Nursery, journal: Journal) -> None:
    """A control process that was ready once is started for ever, and the nameservers go on meanwhile."""
    once = f"if os.path.exists(orders['flag']): sys.exit(1)\nopen(orders['flag'], 'x').close()\n{LIVE}"
    flag = str(journal.path.with_name("flag"))
    supervise(nursery.child("control", once, flag=flag), nursery.child("nameserver 1"))
    for name in ("control", "nameserver 1"):
        journal.wait_for(f"{name} ready")

    os.kill(journal.starts("control")[0], signal.SIGKILL)

    wait_until(lambda: len(journal.starts("control")) == 4, "it was tried again and again")
    assert 1 == len(journal.starts("nameserver 1"))
    assert is_alive(journal.starts("nameserver 1")[0])


def test_the_end_is_near() -> None:
    """Whatever the children do, all is over within the five seconds that we promise: Docker waits for ten."""
    assert supervisor.STOP_CONTROL + supervisor.STOP_NAMESERVERS < 5


def test_hangup_changes_nothing(supervise: Supervise, nursery: Nursery, journal: Journal) -> None:
    """A terminal that closes ends neither the supervisor nor its children."""
    run = supervise(nursery.child("control", LIVE), nursery.child("nameserver 1", LIVE))
    for name in ("control", "nameserver 1"):
        journal.wait_for(f"{name} ready")

    run.send(signal.SIGHUP)
    run.send(signal.SIGTERM)

    assert 0 == run.status()


def test_those_that_hang_are_replaced(
    supervise: Supervise,
    nursery: Nursery,
    journal: Journal,
    logged: Logged,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A child that was ready and whose event loop stands still is killed, and started again."""
    monkeypatch.setattr(supervisor, "LOOK_INTERVAL", 0.05)
    hang = f"{LIVE.partition('await')[0]}\nif len(open(orders['journal']).read().split('nameserver 1 ready')) == 2:\n"
    child = nursery.child("nameserver 1", f"{hang}    note('hangs'); signal.pause()\nawait stop.wait()")
    supervise(nursery.child("control"), child)
    journal.wait_for("nameserver 1 hangs")
    first = child.process

    def is_replaced() -> bool:
        if child.process is first:  # as if nothing had been heard of it for so long: it may have said something before
            child._heard -= children.SILENCE
        return child.process is not first

    wait_until(is_replaced, "it is killed")
    journal.wait_for("nameserver 1 ready", times=2)

    assert entry("a process is unresponsive; killing it", process="nameserver 1") in logged
    assert 1 == len(journal.starts("control"))


def test_short_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that keeps dying young is started with growing delays; one that lived is started at once."""
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr(Child, "listen", lambda self: [])
    child = Child("nameserver 1", "nothing", {}, {})
    child._started = now - children.SHORT_LIFE
    delays = []
    for is_ready in (False, True, True, True, True, False, True, True):
        child.is_ready = is_ready
        child.bury()
        assert child.due is not None
        delays.append(round(child.due - now, 3))
        child._started = now

    assert [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0] == delays
    child._started, child.is_ready = now - children.SHORT_LIFE, True
    child.bury()
    assert now == child.due


def test_deaths_that_come_again_and_again(monkeypatch: pytest.MonkeyPatch, logged: Logged) -> None:
    """Of a child that keeps dying the log tells once in ten minutes, and when it lives again."""
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr(Child, "listen", lambda self: [])
    child = Child("nameserver 1", "nothing", {}, {})
    child.deaths = logs.Seldom(logs.REMINDER, lambda: now)
    run = Supervisor(Child("control", "nothing", {}, {}), [child], places=1)
    for _ in range(130):
        child._started = now
        child.bury()
        run._report(child, "exited with status 3")
        run._listen()
        now += 5

    one = death("nameserver 1", "exited with status 3")
    assert [*[one] * 7, {**one, "more": 119}] == logged

    child.is_ready, child._heard = True, now
    for _ in range(3):
        run._listen()
    child._started = now - children.SHORT_LIFE
    child.bury()
    run._report(child, "exited with status 3")

    assert [entry("a process is running again", level="warning", process="nameserver 1"), one] == logged[8:]


def test_no_process_to_be_had(
    supervise: Supervise,
    nursery: Nursery,
    journal: Journal,
    monkeypatch: pytest.MonkeyPatch,
    logged: Logged,
) -> None:
    """When the system cannot start a process, what runs goes on, and it is tried again."""
    faults = [OSError(errno.EAGAIN, "no processes left"), OSError(errno.EMFILE, "no descriptors left")]

    def popen(*arguments: Any, **keywords: Any) -> subprocess.Popen[bytes]:
        if len(journal.starts("control")) and faults:
            raise faults.pop(0)
        return original(*arguments, **keywords)

    original = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", popen)
    run = supervise(nursery.child("control"))
    journal.wait_for("control ready")
    os.kill(journal.starts("control")[0], signal.SIGKILL)

    journal.wait_for("control ready", times=2)

    assert [
        death("control", "killed by signal 9"),
        entry("cannot start a process", process="control", reason="no processes left"),
        entry("cannot start a process", process="control", reason="no descriptors left"),
    ] == logged
    run.send(signal.SIGTERM)
    assert 0 == run.status()


def test_large_orders(supervise: Supervise, nursery: Nursery, journal: Journal) -> None:
    """Orders far larger than a socket takes at once arrive whole."""
    digest = "note(hashlib.sha256(orders['records'].encode()).hexdigest())\n" + LIVE
    records = "x" * 3_000_000

    supervise(nursery.child("control", digest, records=records))

    journal.wait_for(f"control {hashlib.sha256(records.encode()).hexdigest()}")


def test_orders_that_nobody_reads(supervise: Supervise, nursery: Nursery, journal: Journal) -> None:
    """A child that does not get round to its large orders keeps the supervisor from nothing."""
    module = nursery.directory / "tiny_deaf.py"
    module.write_text("import signal; signal.pthread_sigmask(signal.SIG_SETMASK, []); signal.pause()")
    run = supervise(nursery.child("control"), Child("nameserver 1", "tiny_deaf", {}, {"records": "x" * 3_000_000}))
    journal.wait_for("control ready")

    run.send(signal.SIGTERM)

    assert 0 == run.status()


def test_what_a_nameserver_sees(
    supervise: Supervise, nursery: Nursery, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A nameserver process has the few variables it needs, its sockets, its lifeline and what it writes to: no more."""
    monkeypatch.setenv("RESPONDER_DATABASE__URL", "postgresql+asyncpg://user:secret@host/name")
    look = (
        "note(json.dumps([sorted(os.environ), sorted({os.readlink(f'/proc/self/fd/{n}') for n in "
        "os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{n}')}), os.getpgid(0) == os.getpid()]))\n"
    )
    with socket.socket() as its, socket.socket() as another, socket.socket() as secret:
        os.set_inheritable(secret.fileno(), True)
        bare = nursery.child("nameserver 1", look + LIVE, bare=True)
        bare = replace(bare, sockets={"tcp": [its.fileno()]})
        control = replace(nursery.child("control", look + LIVE), sockets={"api": [another.fileno()]})
        supervise(control, bare)
        for name in ("control", "nameserver 1"):
            journal.wait_for(f"{name} ready")

        seen = {
            line.rpartition(" [[")[0]: json.loads(line[line.index("[[") :]) for line in journal.lines() if "[[" in line
        }
        variables, files, leads_its_group = seen["nameserver 1"]
        assert set(variables) <= {*KEPT_FOR_NAMESERVERS, "LC_CTYPE"}
        assert leads_its_group
        assert "RESPONDER_DATABASE__URL" in seen["control"][0]
        inodes = {sock: f"socket:[{os.fstat(sock.fileno()).st_ino}]" for sock in (its, another, secret)}
        assert inodes[its] in files
        assert inodes[another] not in files
        assert inodes[secret] not in files
        lifeline = {link for link in files if link.startswith("socket:")} - {inodes[its]}
        assert len(lifeline) <= 3  # the lifeline, and the pair that asyncio wakes itself with
        assert not [
            link for link in files if link.startswith("/") and not link.startswith("/dev/") and "/tmp" not in link
        ]


def test_sigkill_takes_all_along(nursery: Nursery, journal: Journal) -> None:
    """When the supervisor is killed its children end at once, ready or not."""
    names = {"control": LIVE, "nameserver 1": LIVE, "nameserver 2": "await stop.wait()"}
    children = [nursery.child(name, body) for name, body in names.items()]
    arguments = [(child.name, child.module, child.sockets, child.orders) for child in children]
    code = (
        "import json, signal, sys; from responder.process import supervisor as s; "
        "signal.pthread_sigmask(signal.SIG_BLOCK, s._SIGNALS); "
        "first, *rest = [s.Child(*a) for a in json.loads(sys.argv[1])]; s.Supervisor(first, rest, places=2).run()"
    )
    with subprocess.Popen([sys.executable, "-c", code, json.dumps(arguments)]) as process:
        for name in ("control", "nameserver 1"):
            journal.wait_for(f"{name} ready")
        wait_until(lambda: journal.starts("nameserver 2"), "all have begun")
        pids = [journal.starts(name)[0] for name in names]

        process.kill()

    wait_until(lambda: not any(is_alive(pid) for pid in pids), "no child is left")
    assert [] == [line for line in journal.lines() if "stopping" in line]


@pytest.fixture
def taken() -> Iterator[tuple[int, int]]:
    """A UDP port and a TCP port that somebody else listens on."""
    with socket.socket(type=socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
        for sock in (udp, tcp):
            sock.bind(("127.0.0.1", 0))
        tcp.listen()
        yield udp.getsockname()[1], tcp.getsockname()[1]


def plan(**differences: Any) -> Plan:
    nothing: dict[str, Any] = {
        "dns": [],
        "api": [],
        "admin": [],
        "processes": 1,
        "spares": 1,
        "settings": {"log": {}, "dns": DnsSettings().model_dump(mode="json")},
        "free": [],
        "faults": [],
    }
    return Plan(**nothing | differences)


def close(sockets: dict[str, list[socket.socket]]) -> None:
    for sock in (sock for group in sockets.values() for sock in group):
        sock.close()


def test_python_that_cannot_be_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisor is another run of the same Python: one that cannot be had is named."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python3")

    with pytest.raises(FileNotFoundError) as caught:
        become(plan())
    assert "/nowhere/python3" == caught.value.filename


def test_machine_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel has no IPv6, the default of dns.listen cannot be had; the line says what to take out."""

    def refuse(*_: object) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", refuse)

    _, faults = plan(dns=[("::1", 0)]).bind()

    assert 2 == len(faults)
    assert faults[0].endswith(
        "not supported by protocol (this machine has no IPv6: take the address out of that setting)"
    )


def test_all_faults_at_once(taken: tuple[int, int]) -> None:
    """Everything that cannot be bound is named, once, with the setting that asks for it."""
    udp, tcp = taken

    sockets, faults = plan(
        dns=[("127.0.0.1", udp), (NOBODY, 53), ("2001:db8::1", 53)],
        api=[("127.0.0.1", tcp)],
        admin=[("127.0.0.1", 0)],
        processes=2,
    ).bind()

    nobody = (
        "Cannot assign requested address (no interface here has it, see `ip address`: behind NAT write the private "
        "address, or 0.0.0.0; for an address that comes later, set dns.free_bind = true)"
    )
    assert [
        f"cannot listen on 127.0.0.1:{udp} (udp, dns.listen): Address already in use{IN_USE}",
        f"cannot listen on {NOBODY}:53 (udp, dns.listen): {nobody}",
        f"cannot listen on [2001:db8::1]:53 (udp, dns.listen): {nobody}",
        f"cannot listen on {NOBODY}:53 (tcp, dns.listen): {nobody}",
        f"cannot listen on [2001:db8::1]:53 (tcp, dns.listen): {nobody}",
        f"cannot listen on 127.0.0.1:{tcp} (api, api.listen): Address already in use{IN_USE}",
    ] == faults
    assert 1 == len(sockets["admin"])
    close(sockets)


def test_privileged_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may not bind a port is told what would let them."""

    def refuse(*_: object, **__: object) -> socket.socket:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(listeners, "_bind", refuse)

    _, faults = plan(admin=[("127.0.0.1", 53)]).bind()

    mend = "ports below 1024 need root, CAP_NET_BIND_SERVICE, or net.ipv4.ip_unprivileged_port_start"
    assert [f"cannot listen on 127.0.0.1:53 (admin, admin.listen): Permission denied ({mend})"] == faults


def test_both_families_side_by_side() -> None:
    """The wildcard addresses of IPv4 and IPv6 can be bound to the same port."""
    sockets, faults = plan(dns=[("0.0.0.0", 0)]).bind()
    port = sockets["tcp"][0].getsockname()[1]
    others, more_faults = plan(admin=[("::", port)]).bind()

    assert [] == faults + more_faults
    close(sockets)
    close(others)


def test_every_place_has_its_own_udp_sockets() -> None:
    """Places share the listening TCP sockets; each has UDP sockets of its own, one for each address."""
    port = free_port()
    work = plan(dns=[("127.0.0.1", port), ("::1", port)], api=[("127.0.0.1", 0)], admin=[("::1", 0)], processes=3)
    sockets, faults = work.bind()
    sockets["feed"] = []

    control, *nameservers = supervisor._supervisor(work, sockets)._children

    assert [] == faults
    names = ["control", "nameserver 1", "nameserver 2", "nameserver 3", "nameserver 4"]
    assert names == [child.name for child in (control, *nameservers)]
    assert {"api", "admin"} == set(control.sockets)
    hosts = {sock.fileno(): sock.getsockname()[0] for place in (1, 2, 3) for sock in sockets[f"udp {place}"]}
    (places,) = {tuple(map(tuple, child.sockets.values())) for child in nameservers}
    assert {"udp 1", "udp 2", "udp 3", "tcp"} == set(nameservers[0].sockets)
    assert [("127.0.0.1", "::1")] * 3 == [tuple(hosts[number] for number in place) for place in places[:3]]
    assert 6 == len({number for place in places[:3] for number in place})
    assert [True] * 4 == [child.bare for child in nameservers]
    close(sockets)


def test_a_fault_leaves_nothing_bound(
    blocked: None, taken: tuple[int, int], tmp_path: Path, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With any fault nothing is started, all faults are logged, and what was bound is free again."""
    port = free_port()

    plan_file(plan(api=[("127.0.0.1", taken[1])], admin=[("127.0.0.1", port), (NOBODY, 80)]), tmp_path, monkeypatch)
    monkeypatch.setattr(logs, "configure", lambda **_: None)  # the tests' own stays

    assert 1 == supervisor.main()

    first, second = logged
    assert {("cannot start", "critical")} == {(event["event"], event["log_level"]) for event in logged}
    reason = f"cannot listen on 127.0.0.1:{taken[1]} (api, api.listen): Address already in use{IN_USE}"
    assert reason == first["reason"]
    assert second["reason"].startswith(f"cannot listen on {NOBODY}:80 (admin, admin.listen)")
    sockets, faults = plan(admin=[("127.0.0.1", port)]).bind()
    assert [] == faults
    close(sockets)


def plan_file(work: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hand *work* over as `become` does, in the descriptor that is the only argument."""
    path = tmp_path / "plan"
    path.write_text(json.dumps({name: getattr(work, name) for name in Plan.__slots__}))
    monkeypatch.setattr(sys, "argv", ["supervisor", str(os.open(path, os.O_RDONLY))])


def test_become_hands_over_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan, secrets and all, goes to the supervisor in an anonymous file and nowhere else."""
    work = plan(dns=[("127.0.0.1", 53)], settings={"password": "hush"})
    executed: list[list[str]] = []

    def execv(path: str, arguments: list[str]) -> None:
        executed.append(arguments)
        assert os.get_inheritable(int(arguments[-1]))
        with os.fdopen(int(arguments[-1]), "rb") as file:
            assert {"dns": [["127.0.0.1", 53]], "settings": {"password": "hush"}}.items() <= json.load(file).items()

    monkeypatch.setattr(os, "execv", execv)
    become(work)

    assert ["-m", "responder.process.supervisor"] == executed[0][2:4]
    assert "hush" not in " ".join(executed[0])


CONFIGURATION = """
[[zones]]
name = "acme.example.com"
hostmaster = "hostmaster@example.com"
records = '''
{records}
'''
[zones.nameservers]
"ns1.acme.example.com" = ["127.0.0.1"]

[dns]
listen = ["127.0.0.1:{port}"]
processes = 2

[api]
listen = ["127.0.0.1:0"]

[admin]
listen = ["127.0.0.1:0"]

[database]
url = "sqlite+aiosqlite:///{database}"
"""


def serve(tmp_path: Path, port: int, records: str) -> subprocess.Popen[bytes]:
    """The whole service, saying what it has to say into `log`."""
    configuration = tmp_path / "responder.toml"
    configuration.write_text(CONFIGURATION.format(port=port, database=tmp_path / "responder.db", records=records))
    with (tmp_path / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "responder", "--config", str(configuration), "serve"],
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )


def nameservers_of(pid: int) -> list[int]:
    """The process ids of the supervisor's nameservers."""
    return [child.pid for child in descendants(pid) if "responder.nameserver" in child.command]


def test_whole_service(tmp_path: Path) -> None:
    """
    A megabyte of zone records, nameservers that all die at once: the service answers, and comes to an orderly end.
    """
    port = free_port()
    records = "\n".join(f"host{number} 60 IN TXT " + f'"{"x" * 250}" ' * 80 for number in range(50))
    question = dns.message.make_query("host49.acme.example.com", "TXT")

    def answers() -> bool:
        try:
            return bool(dns.query.tcp(question, "127.0.0.1", port=port, timeout=0.5).answer)
        except (dns.exception.Timeout, OSError, EOFError):
            return False

    with serve(tmp_path, port, records) as service:
        try:
            wait_until(lambda: len(nameservers_of(service.pid)) == 3 and answers(), "the service answers")
            first = nameservers_of(service.pid)
            for pid in first:
                os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not any(map(is_alive, first)) and answers(), "new nameservers answer")
            service.terminate()
            assert 0 == service.wait(PATIENCE)
        finally:
            service.kill()

    events = map(json.loads, (tmp_path / "log").read_text().splitlines())
    assert 3 == [event.get("cause") for event in events].count("killed by signal 9")
