"""The control process as a whole: its parts start in order, work together, and stop in reverse."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import aiohttp
import dns.asyncquery
import dns.message
import pytest
import structlog
from cryptography import x509

from responder import challenges, feed, logs
from responder.api import health
from responder.config import load
from responder.control import __main__ as control
from responder.control import database, parts, tasks
from responder.dns.wire import Transport
from responder.dns.zone import Zones
from responder.errors import StoreUnavailable
from responder.files.keyfile import read_key
from responder.process import lifeline
from responder.process.child import Lifeline
from responder.process.lifeline import Word
from responder.store import NewToken, SchemaState, Store
from responder.tokens.secret import digest, mint_secret, tsig_secret
from responder.tokens.token import tsig_key_name
from tests.support.commands import Run, bare, fails
from tests.support.keypairs import key_pair
from tests.support.ports import free_port
from tests.support.processes import PATIENCE, eventually, wait_until
from tests.support.service import APEX, connect, grant, new_database, patient, write_configuration
from tests.support.updates import Key, add, message, rcode

__all__ = ["bare"]

HOST = "some.example.com"
VALUE = "LHDhK3oGRvkiefQnx7OOczTY5Tic_xZ6HcMOc_gmtoM"


@dataclass
class Process:
    """A control process in this event loop: its orders, and what it would tell its supervisor."""

    directory: Path
    orders: dict[str, Any]
    ports: dict[str, int]
    lifeline: Lifeline
    supervisor: socket.socket
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    relay: feed.Relay = field(default_factory=feed.Relay)
    feeds: feed.Feeds = field(default_factory=feed.Feeds)
    _heard: list[Word] = field(default_factory=list)

    @property
    def heard(self) -> list[Word]:
        """What it has reported to its supervisor so far."""
        with suppress(BlockingIOError):
            while message := lifeline.receive_text(self.supervisor):
                self._heard.append(message.word)
        return self._heard

    @property
    def is_ready(self) -> bool:
        """Whether it has reported that to its supervisor."""
        return Word.ALIVE in self.heard

    def introduce(self) -> None:
        """Have it and the nameserver's end of the feed, which is in this process, know each other."""
        ours, theirs = socket.socketpair()
        with ours:
            lifeline.send(self.supervisor, lifeline.Message(Word.FEED, os.getpid(), ours.fileno()))
        lifeline.send(self.supervisor, lifeline.Message(Word.SERVE, os.getpid()))
        self.feeds.put(theirs)

    async def main(self) -> None:
        self.lifeline.watch()
        try:
            await control.main(self.orders, self.lifeline, self.stop)
        finally:
            self.lifeline.unwatch()


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    """A control process that was not started yet; its sockets are bound, as the supervisor does it."""
    monkeypatch.setattr(logs, "configure", lambda **_: None)  # the tests' own stays
    monkeypatch.setattr(parts, "DRAIN", 0.1)
    new_database(tmp_path)
    read_key(tmp_path / "tsig.key")
    listeners = {purpose: socket.create_server(("127.0.0.1", 0)) for purpose in ("api", "admin")}
    ports = {purpose: listeners[purpose].getsockname()[1] for purpose in ("api", "admin")}
    settings = load(write_configuration(tmp_path, **ports, dns=free_port()), {})
    numbers = {purpose: [os.dup(listener.fileno())] for purpose, listener in listeners.items()}
    ours, theirs = lifeline.pair()
    with patient(), ours, theirs:
        yield Process(
            tmp_path,
            {
                "settings": settings.model_dump(mode="json"),
                "sockets": numbers,
                "nameservers": [],
                "elders": [],
                "restarts": 0,
                "again": False,
                "waits": False,
                "faults": [],
                "instance": "first",
            },
            ports,
            Lifeline(theirs),
            ours,
        )
    for listener in listeners.values():
        listener.close()


@asynccontextmanager
async def started(process: Process) -> AsyncIterator[list[Zones]]:
    """The process at work, and a nameserver that follows it: yields what it was given to serve."""
    snapshots: list[Zones] = []
    before = asyncio.all_tasks()
    following = asyncio.create_task(feed.follow(process.feeds, snapshots.append, lambda _: None, process.relay))
    process.introduce()
    running = asyncio.create_task(process.main())
    try:
        await eventually(lambda: (process.is_ready and snapshots) or running.done(), "the process is ready")
        yield snapshots
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        process.stop.set()
        try:
            await running
        finally:
            mine = {*before, asyncio.current_task()}
            await eventually(lambda: asyncio.all_tasks() <= mine, "all connections are closed")


async def mint(process: Process) -> str:
    """A token for `some.example.com`, written to the database by another process."""
    store = await Store.open(process.orders["settings"]["database"]["url"])
    await store.register_zones({APEX: None}, now=tasks.now())
    secret = mint_secret()
    await store.mint(NewToken(digest=digest(secret), grants=(grant(HOST),), created_at=tasks.now()))
    await store.close()
    return secret


async def request(
    process: Process, purpose: str, method: str, path: str, *, scheme: str = "http", **how: Any
) -> tuple[int, Any]:
    url = f"{scheme}://127.0.0.1:{process.ports[purpose]}{path}"
    async with aiohttp.ClientSession() as session, session.request(method, url, **how) as response:
        return response.status, await response.json(content_type=None)


async def test_parts_work_together(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """API, writer, feed and admin listener serve until the process is told to stop; then everything is let go."""
    async with started(process) as snapshots:
        secret = await mint(process)
        status, body = await request(
            process,
            "api",
            "POST",
            "/present",
            json={"fqdn": f"_acme-challenge.{HOST}", "value": VALUE},
            headers={"Authorization": f"Bearer {secret}"},
        )
        served = {rdata for zone in snapshots[-1] for rrset in zone.rrsets() for rdata in rrset.rdatas}
        well = await request(process, "admin", "GET", "/readyz?exclude=dns_udp&exclude=dns_tcp")
        with monkeypatch.context() as patch:
            patch.setattr(health, "PROBE_DEADLINE", 0.1)
            ready, _ = await request(process, "admin", "GET", "/readyz")

        assert 200 == status
        assert body["serial"] == next(iter(snapshots[-1])).serial
        assert bytes((len(VALUE),)) + VALUE.encode() in served
        sandbox = "incomplete: no Landlock, no seccomp, no user of its own"  # of the nameserver's end in this process
        conditions = ("writing", "database", "nodes", "clock", "configuration", "certificate", "api")
        assert (200, {"store": "ok", "sandbox": sandbox} | dict.fromkeys(conditions, "ok")) == well
        assert 503 == ready  # no nameserver answers on the port in the settings
        assert 200 == (await request(process, "admin", "GET", "/livez"))[0]

    with connect(process.directory) as database:
        database.execute("BEGIN EXCLUSIVE")  # nobody else has it open any more
    for purpose in ("api", "admin"):
        with pytest.raises((aiohttp.ClientError, TimeoutError)):
            await request(process, purpose, "GET", "/livez", timeout=aiohttp.ClientTimeout(0.05))


async def update(process: Process, secret: str) -> str:
    """Add the value by an update, as a nameserver passes it on; returns the rcode that came back."""
    store = await Store.open(process.orders["settings"]["database"]["url"])
    token = await store.find_token(digest(secret))
    await store.close()
    assert token is not None
    name = tsig_key_name(token)
    key = Key(name, tsig_secret(read_key(process.directory / "tsig.key"), name))
    signed = key.sign(message(add(str(grant(HOST).challenge_name), VALUE)), int(time.time()))
    replies: list[bytes] = []
    process.relay.pass_on(feed.Packet(signed, Transport.UDP, "192.0.2.7", b""), replies.append)
    await eventually(lambda: replies, "there is a reply")
    return rcode(replies[0])


async def test_its_turn(process: Process) -> None:
    """
    In a reload the process has nothing to do with clients before its turn. When that is over it gives each connection
    one more answer, which says that it is the last one, ends, and keeps its lease for the next process.
    """
    process.orders |= {"waits": True, "again": True}
    running = asyncio.create_task(process.main())
    await eventually(lambda: Word.PREPARED in process.heard, "it is prepared")
    url = f"http://127.0.0.1:{process.ports['api']}/health"
    async with aiohttp.ClientSession() as session:
        asking = asyncio.create_task(session.get(url))
        lifeline.send(process.supervisor, lifeline.Message(Word.TAKE_OVER))
        first = await asking
        await first.read()
        assert "Connection" not in first.headers
        await eventually(lambda: process.is_ready, "it is ready")
        lifeline.send(process.supervisor, lifeline.Message(Word.RETIRE))
        await eventually(process.stop.is_set, "its turn is over")

        async with session.get(url) as last:
            assert (200, "close") == (last.status, last.headers["Connection"])
    await running
    with connect(process.directory) as database:
        ((lease_until,),) = database.execute("SELECT lease_until FROM nodes").fetchall()
        assert lease_until > time.time() + 30


async def test_updates(process: Process) -> None:
    """What nameservers pass on is answered with keys made from the key file, which is made if there is none."""
    (process.directory / "tsig.key").unlink()
    with structlog.testing.capture_logs() as logged:
        async with started(process) as snapshots:
            assert "NOERROR" == await update(process, await mint(process))

            served = {rdata for zone in snapshots[-1] for rrset in zone.rrsets() for rdata in rrset.rdatas}
            assert bytes((len(VALUE),)) + VALUE.encode() in served
    assert ("the key file is new", "warning") == (logged[0]["event"], logged[0]["log_level"])


@pytest.mark.parametrize("broken", [True, False])
async def test_no_updates(process: Process, *, broken: bool) -> None:
    """Without a key that can be used, or without updates, the rest goes on; the log says what is wrong."""
    read_key(process.directory / "tsig.key")
    if broken:
        (process.directory / "tsig.key").chmod(0o644)
    else:
        process.orders["settings"]["dns"]["update"]["enabled"] = False
    with structlog.testing.capture_logs() as logged:
        async with started(process):
            secret = await mint(process)
            (process.directory / "tsig.key").chmod(0o600)
            assert "SERVFAIL" == await update(process, secret)
            status, _ = await request(process, "api", "GET", "/v1/token", headers={"Authorization": f"Bearer {secret}"})
            assert 200 == status

    events = [event["event"] for event in logged]
    assert broken is ("DNS updates are disabled until the next start" in events)


async def test_tls_from_files(process: Process, tmp_path: Path) -> None:
    """With a certificate from files, the API speaks TLS; the admin listener does not."""
    pair = key_pair("api.acme.example.com")
    for name, content in (("tls.crt", pair.chain), ("tls.key", pair.key)):
        (tmp_path / name).write_bytes(content)
    api = process.orders["settings"]["api"]
    api |= {
        "tls": "files",
        "certificate_file": str(tmp_path / "tls.crt"),
        "private_key_file": str(tmp_path / "tls.key"),
        "hostname": "api.acme.example.com",
    }
    async with started(process):
        assert pair.leaf == await shown(process)
        status, _ = await request(process, "api", "GET", "/openapi.json", scheme="https", ssl=False)
        assert 200 == status
        assert 200 == (await request(process, "admin", "GET", "/livez"))[0]


async def test_tls_from_broken_files(process: Process, tmp_path: Path) -> None:
    """A process that finds its certificate files broken starts all the same, for the DNS's sake."""
    api = process.orders["settings"]["api"]
    missing = str(tmp_path / "none")
    api |= {"tls": "files", "certificate_file": missing, "private_key_file": missing, "hostname": ""}
    with structlog.testing.capture_logs() as logs:
        async with started(process):
            certificate = await shown(process)

    assert certificate.issuer == certificate.subject
    (fault,) = (entry["reason"] for entry in logs if "cannot be used" in entry["event"])
    assert f"api.certificate_file: {missing}: cannot be read: no such file or directory" == fault


async def shown(process: Process) -> x509.Certificate:
    """The certificate that the API shows."""
    address = "127.0.0.1", process.ports["api"]
    return x509.load_pem_x509_certificate(
        (await asyncio.to_thread(ssl.get_server_certificate, address, timeout=PATIENCE)).encode()
    )


async def test_writer_that_dies(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends with what its writer died of, so that it is started afresh."""

    async def die(_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(challenges.Challenges, "run", die)

    with pytest.raises(RuntimeError, match="a fault"):
        async with started(process):
            pass


async def test_database_that_cannot_be_used(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that fails is one event and exit status 1."""

    async def fail(*_: object, **__: object) -> Store:
        raise StoreUnavailable("the disk is full")

    monkeypatch.setattr(Store, "open", fail)

    with structlog.testing.capture_logs() as logged, pytest.raises(SystemExit) as ended:
        await process.main()

    assert 1 == ended.value.code
    assert [("critical", "the disk is full")] == [(event["log_level"], event["reason"]) for event in logged]
    assert not process.is_ready


async def test_a_database_that_is_away_at_a_restart(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is started again waits until the database answers, and says so once."""
    monkeypatch.setattr(database, "OPEN_AGAIN", 0.01)
    process.orders["restarts"] = 1
    tries = 0

    async def check(url: str) -> SchemaState:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise StoreUnavailable("nothing answers there")
        return SchemaState.CURRENT

    monkeypatch.setattr(Store, "check", check)
    with structlog.testing.capture_logs() as logged:
        async with started(process):
            pass

    assert [
        "waiting for the database: DNS goes on with what is in memory",
        "the database answers again",
        "serving",
    ] == [entry["event"] for entry in logged]
    assert "nothing answers there" == logged[0]["reason"]


async def test_a_server_that_is_away_at_the_start(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL is waited for at the first start, too, and that is reported to the supervisor as long."""
    monkeypatch.setattr(database, "OPEN_AGAIN", 0.01)
    url = process.orders["settings"]["database"]["url"]
    process.orders["settings"]["database"]["url"] = "postgresql+asyncpg://me@127.0.0.1:1/responder"
    open_store = Store.open

    async def open_in_the_end(server: str, **how: Any) -> Store:
        return await open_store(url if process.heard.count(Word.WAITING) == 3 else server, **how)

    monkeypatch.setattr(Store, "open", open_in_the_end)
    with structlog.testing.capture_logs() as logged:
        async with started(process):
            pass

    assert ["waiting for the database: DNS is not answered before", "the database answers again"] == [
        entry["event"] for entry in logged[:2]
    ]
    assert "nothing answers there" in logged[0]["reason"]


async def test_a_database_that_is_gone_at_a_restart(process: Process) -> None:
    """
    It is not made anew by a process that is started again, which can be told to stop all the while. Who probes it is
    told that it lives, and what does not: a probe that leaves the store out is about DNS alone.
    """
    process.orders["restarts"] = 1
    database = process.directory / "responder.db"
    database.unlink()
    admin = f"http://127.0.0.1:{process.ports['admin']}"
    with structlog.testing.capture_logs() as logged:
        running = asyncio.create_task(process.main())
        await eventually(lambda: logged, "it waits")
        async with aiohttp.ClientSession(admin) as client:
            answers = {path: await _told(client, path) for path in ("/livez", "/readyz", "/readyz?exclude=store")}
            metrics = await _told(client, "/metrics")
        process.stop.set()
        await running

    assert (200, '{"alive": true}\n') == answers["/livez"]
    assert (503, "failed: the service is waiting for its database") == (
        answers["/readyz"][0],
        json.loads(answers["/readyz"][1])["store"],
    )
    checks = json.loads(answers["/readyz?exclude=store"][1])
    conditions = {"writing", "database", "nodes", "clock", "sandbox", "configuration", "certificate", "api"}
    assert {"dns_udp", "dns_tcp"} | conditions == {*checks}
    assert "failed: the service is waiting for its database" == checks["writing"]
    assert "responder_database_up 0.0" in metrics[1].splitlines()
    assert ["the database is missing: put it back, or restart the service to create a new one"] == [
        entry["reason"] for entry in logged if "waiting for the database" in entry["event"]
    ]
    assert not database.exists()
    assert not process.is_ready


async def _told(client: aiohttp.ClientSession, path: str) -> tuple[int, str]:
    async with client.get(path) as response:
        return response.status, await response.text()


# The whole service


@contextmanager
def serving(directory: Path, ports: dict[str, int]) -> Iterator[subprocess.Popen[bytes]]:
    """`responder serve` as a user runs it, ready for requests; told to stop at the end."""
    configuration = write_configuration(directory, **ports)
    with (directory / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "responder", "--config", str(configuration), "serve"], stderr=log, stdout=log
        )
    try:
        wait_until(lambda: process.poll() is not None or is_ready(ports["admin"]), "the service is ready")
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(PATIENCE)


def is_ready(port: int) -> bool:
    """What the readiness check says."""
    connection = HTTPConnection("127.0.0.1", port)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def test_the_whole_service(tmp_path: Path) -> None:
    """From the first mint to the DNS: a value is answered when its caller reads 200, and not after its cleanup."""
    ports = {purpose: free_port() for purpose in ("dns", "api", "admin")}
    configuration = str(write_configuration(tmp_path, **ports))
    mint = [sys.executable, "-m", "responder", "--config", configuration, "token", "mint", HOST, "--output", "json"]

    async def post_and_answer(secret: str, path: str) -> tuple[int, list[str]]:
        name = str(grant(HOST).challenge_name)
        url = f"http://127.0.0.1:{ports['api']}{path}"
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {secret}"}) as session,
            session.post(url, json={"fqdn": name, "value": VALUE}) as response,
        ):
            query = dns.message.make_query(name, "TXT")
            reply = await dns.asyncquery.udp(query, "127.0.0.1", port=ports["dns"], timeout=PATIENCE)
            return response.status, [rdata.to_text() for rrset in reply.answer for rdata in rrset]

    with serving(tmp_path, ports):
        secret = json.loads(subprocess.run(mint, capture_output=True, check=True).stdout)["token"]
        assert (200, [f'"{VALUE}"']) == asyncio.run(post_and_answer(secret, "/present"))
        assert (200, []) == asyncio.run(post_and_answer(secret, "/cleanup"))
    log = (tmp_path / "log").read_text()
    assert secret not in log
    assert "starting it again" not in log


def test_serve_ready(tmp_path: Path) -> None:
    """Whoever has the configuration can ask whether the service is ready: a container's HEALTHCHECK, for one."""
    ports = {purpose: free_port() for purpose in ("dns", "api", "admin")}
    configuration = str(write_configuration(tmp_path, **ports))

    def ask() -> tuple[int, str, str]:
        command = [sys.executable, "-m", "responder", "--config", configuration, "serve", "--ready"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    nobody = (
        f"responder: no service responds at 127.0.0.1:{ports['admin']}: check admin.listen, and start the service\n"
    )
    assert (1, "", nobody) == ask()
    with serving(tmp_path, ports):
        status, out, warning = ask()
        assert (0, "ready\n") == (status, out)
        assert warning.startswith("responder: warning: database: new: it was created at ")
        (tmp_path / "responder.db").rename(tmp_path / "elsewhere")
        status, _, fault = ask()
        assert (1, True) == (status, fault.startswith("responder: store: failed: the database "))
        (tmp_path / "elsewhere").rename(tmp_path / "responder.db")


def test_serve_ready_without_the_listener(bare: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an admin listener, nobody can ask."""
    monkeypatch.setenv("RESPONDER_ADMIN__LISTEN", "[]")

    fault = fails(bare, "--config", str(write_configuration(tmp_path)), "serve", "--ready")

    assert "admin.listen is empty: set an address there to check whether the service is ready" == fault
