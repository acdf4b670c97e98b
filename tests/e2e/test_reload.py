"""
A reload replaces the program and the configuration of a running service: no query and no call is lost, and what cannot
go on leaves everything as it was.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import dns.asyncquery
import dns.message
import pytest

from responder.nameserver.life import ANSWERING
from tests.support.places import ROOT
from tests.support.processes import PATIENCE

from . import configuration
from .dns_client import ask, serial, values
from .programs import Process, processes, wait_until
from .service import ZONE, Responder, Token

pytestmark = pytest.mark.e2e

CLIENTS = 20
"""API clients that keep their connections."""

PAUSE = 0.02
"""Seconds between two questions by each of UDP and TCP."""

LONG = 5 * PATIENCE
"""Seconds for a reload while clients work, on a busy machine."""

RELOADED, REFUSED = "reloaded", "the reload was refused; the service goes on as before"


def with_address(address: str, *, dns: str = "", more: str = "") -> str:
    """A configuration that can be told apart by what DNS has for `www`."""
    zone = configuration.zone(ZONE, {f"ns1.{ZONE}": ["127.0.0.1"]}, records=f"www A {address}")
    return configuration.render(zone, dns=dns, more=more)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Responder]:
    service = Responder(
        tmp_path, configuration=with_address("192.0.2.7"), environment={"STATE_DIRECTORY": str(tmp_path)}
    )
    try:
        service.start()
        yield service
    finally:
        service.stop()


def shown(service: Responder) -> str:
    return str(ask(service.dns, f"www.{ZONE}", "A").answer[0][0])


def logged(service: Responder, event: str) -> list[dict[str, Any]]:
    """The events of that name; a line that is just being written is not one yet."""
    return [json.loads(line) for line in service.log().split("\n")[:-1] if f'"event": "{event}"' in line]


def hang_up(service: Responder) -> None:
    os.kill(service.supervisor.pid, signal.SIGHUP)


def outcome(service: Responder, event: str) -> None:
    """Reload, and wait until the log has *event* once more."""
    before = len(logged(service, event))
    hang_up(service)
    wait_until(lambda: len(logged(service, event)) > before, f"the log has: {event}", LONG)


@dataclass
class Strain:
    """What clients saw while something happened to a service. *gap* is the longest time that one waited for a reply."""

    questions: int = 0
    calls: int = 0
    gaps: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def waited(self, what: str, since: float) -> None:
        self.gaps[what] = max(self.gaps.get(what, 0.0), time.monotonic() - since)


@asynccontextmanager
async def under_strain(service: Responder, tokens: list[Token]) -> AsyncIterator[Strain]:
    """
    Ask over UDP and TCP all the time, and have clients that keep their connections present values, ask for them, and
    clean them up. In the end each leaves one value.
    """
    strain, over = Strain(), threading.Event()
    with ThreadPoolExecutor(len(tokens)) as executor:
        calling = [executor.submit(_call, service, token, number, strain, over) for number, token in enumerate(tokens)]
        try:
            async with asyncio.TaskGroup() as group:
                asking = [group.create_task(_ask(service, how, strain, over, group)) for how in ("UDP", "TCP")]
                wait_for_both = asyncio.create_task(_wait_for_traffic(strain, len(tokens)))
                await wait_for_both
                yield strain
                over.set()
                await asyncio.gather(*asking)
        finally:
            over.set()
        for each in calling:
            await asyncio.wrap_future(each)


async def _wait_for_traffic(strain: Strain, calls: int) -> None:
    while strain.calls < 2 * calls or strain.questions < calls:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def _ask(service: Responder, how: str, strain: Strain, over: threading.Event, group: asyncio.TaskGroup) -> None:
    while not over.is_set():
        group.create_task(_ask_once(service, how, strain))
        await asyncio.sleep(PAUSE)


async def _ask_once(service: Responder, how: str, strain: Strain) -> None:
    """One question, asked once: what is not answered at all counts as lost."""
    query = dns.message.make_query(ZONE, "SOA")
    began = time.monotonic()
    try:
        send = dns.asyncquery.udp if how == "UDP" else dns.asyncquery.tcp
        reply = await send(query, "127.0.0.1", timeout=PATIENCE / 2, port=service.dns)
        if not reply.answer:
            strain.faults.append(f"{how}: no answer: {reply}")
    except Exception as fault:  # noqa: BLE001  # any of them is a lost question
        strain.faults.append(f"{how}: {fault!r}")
    strain.questions += 1
    strain.waited(how, began)


def _call(service: Responder, token: Token, number: int, strain: Strain, over: threading.Event) -> None:
    """One client. Those with odd numbers are quiet for a while between their calls."""
    connection = HTTPConnection("127.0.0.1", service.api, timeout=PATIENCE)
    calls = 0

    def call(path: str, value: str) -> None:
        nonlocal calls
        pair = base64.b64encode(f"{token.id}:{token.secret}".encode()).decode()
        headers = {"Authorization": f"Basic {pair}", "Content-Type": "application/json"}
        body = json.dumps({"fqdn": f"{token.challenge_name}.", "value": value})
        began = time.monotonic()
        try:
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            content = response.read()
            if response.status != 200:
                strain.faults.append(f"{path}: {response.status} {content!r}")
            served = value in values(service.dns, token.challenge_name)
            if response.status == 200 and served != (path == "/present"):
                strain.faults.append(f"{path}: acknowledged, and DNS has {served=}")
        except (OSError, HTTPException) as fault:
            strain.faults.append(f"{path}: {fault!r}")
            connection.close()
        calls += 1
        strain.calls += 1
        strain.waited("API", began)

    while not over.is_set():
        value = f"{number:03}-{calls:039}"
        call("/present", value)
        over.wait(0.9 if number % 2 else 0.2)
        call("/cleanup", value)
        over.wait(0.2)
    call("/present", f"{number:043}")
    connection.close()


@pytest.fixture
def tokens(service: Responder) -> list[Token]:
    """One for each client: they are one and the same, with a challenge name for each."""
    hosts = [f"host{number}.example.com" for number in range(CLIENTS)]
    minted = json.loads(service.cli("token", "mint", *hosts, "--output", "json").stdout)
    return [Token(minted["id"], minted["token"], granted["challenge_name"]) for granted in minted["hostnames"]]


def assert_nothing_was_lost(service: Responder, tokens: list[Token], strain: Strain) -> None:
    print(f"{strain.questions} questions, {strain.calls} calls, the longest took {strain.gaps}")
    assert [] == strain.faults
    assert [{f"{number:043}"} for number in range(CLIENTS)] == [
        values(service.dns, token.challenge_name) for token in tokens
    ]


async def test_reloads(service: Responder, tokens: list[Token]) -> None:
    """A changed record, a changed setting, another number of processes, and back: all of it while clients work."""
    supervisor, before = service.supervisor.pid, serial(service.dns, ZONE)
    children = service.children()

    async with under_strain(service, tokens) as strain:
        for text, nameservers in (
            (with_address("192.0.2.8"), 1),
            (with_address("192.0.2.9", dns='version = "reloaded"\nprocesses = 2'), 2),
            (with_address("192.0.2.7"), 1),
        ):
            service.configure(text)
            await asyncio.to_thread(outcome, service, RELOADED)
            assert text.count("192.0.2.") == 1
            assert (await asyncio.to_thread(shown, service)) in text
            assert nameservers == await asyncio.to_thread(_answering, service)

    assert_nothing_was_lost(service, tokens, strain)
    assert supervisor == service.supervisor.pid
    assert serial(service.dns, ZONE) > before
    assert not any(child.alive for child in children)
    assert [] == logged(service, "a process died; starting it again")


def _answering(service: Responder) -> int:
    return len([process for process in service.children() if process.name == ANSWERING])


async def test_what_cannot_go_on(service: Responder, tokens: list[Token]) -> None:
    """A faulty configuration, or an address that somebody else has, changes nothing, and the log has the reason."""
    children = set(service.children())
    faulty = with_address("192.0.2.8").replace("[dns]", "[dsn]", 1)
    listen = '"127.0.0.1:{api}"'

    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = with_address("192.0.2.8").replace(listen, f'{listen}, "127.0.0.1:{other.getsockname()[1]}"')
        async with under_strain(service, tokens) as strain:
            for text in (faulty, taken):
                service.configure(text)
                await asyncio.to_thread(outcome, service, REFUSED)

    assert_nothing_was_lost(service, tokens, strain)
    assert "192.0.2.7" == shown(service)
    assert children <= set(service.children())
    first = logged(service, REFUSED)[0]
    assert ("error", True) == (first["level"], first["reason"].startswith("dsn: there is no such setting"))
    assert "Address already in use" in logged(service, REFUSED)[-1]["reason"]


def test_another_version(tmp_path: Path) -> None:
    """
    An upgrade is another version behind a link, and a reload. A version that cannot run is refused, the way back is the
    same as the way there, and each version runs with its own Python.
    """
    install(tmp_path / "1")
    install(tmp_path / "2")
    install(tmp_path / "3", lacks="responder/feed/peer.py")
    install(tmp_path / "4", lacks="responder/cli/commands.py")
    current = tmp_path / "current"
    service = Installed(tmp_path, configuration=with_address("192.0.2.7"))
    try:
        link(current, "1")
        service.start()
        assert {"1"} == versions(service)
        for version in ("2", "1"):
            link(current, version)
            outcome(service, RELOADED)
            wait_until(lambda: service.spare(), "there is a spare")
            assert {version} == versions(service)
        for version, reason in (("3", "ModuleNotFoundError"), ("4", "ModuleNotFoundError"), ("5", "No such file")):
            link(current, version)
            outcome(service, REFUSED)
            assert reason in logged(service, REFUSED)[-1]["reason"]
            assert {"1"} == versions(service)
        assert "192.0.2.7" == shown(service)
    finally:
        service.stop()


class Installed(Responder):
    """The service as it is installed: the script of the version that a link leads to."""

    def _command(self, *arguments: str) -> list[str]:
        script = self.directory / "current" / "bin" / "responder"
        return [str(script), "--config", str(self._configuration), *arguments]


def install(directory: Path, lacks: str = "") -> None:
    """A version in an environment of its own; what it needs besides, it has from that of the tests."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)
    (site,) = directory.glob("lib/*/site-packages")
    shutil.copytree(ROOT / "responder", site / "responder", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "migrations", site / "responder" / "migrations")
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))
    script = directory / "bin" / "responder"
    script.write_text(f"#!{directory}/bin/python\nfrom responder.cli import main\nmain()\n")
    script.chmod(0o755)
    if lacks:
        (site / lacks).unlink()


def link(current: Path, version: str) -> None:
    """Have *current* lead to a version, from one moment to the next."""
    new = current.with_name("new")
    new.symlink_to(version)
    new.replace(current)


def versions(service: Responder) -> set[str]:
    """The versions that the supervisor and its children run."""
    supervisor = next(process for process in processes() if process.pid == service.supervisor.pid)
    commands = [process.command.split()[0] for process in (supervisor, *service.children())]
    return {Path(command).parent.parent.name for command in commands}


HANG_UP_ON_IMPORT = """
import os, signal, sys

class HangUp:
    def find_spec(name, path=None, target=None):
        if name == "{module}":
            os.kill(os.getpid(), signal.SIGHUP)

sys.meta_path.insert(0, HangUp)
"""


@pytest.mark.parametrize("module", ["responder.cli.service", "responder.store"])
def test_during_the_start(tmp_path: Path, module: str) -> None:
    """A reload that is asked for before there is a supervisor, while *module* is imported, comes after the start."""
    (tmp_path / "sitecustomize.py").write_text(HANG_UP_ON_IMPORT.format(module=module))
    service = Responder(tmp_path, environment={"PYTHONPATH": str(tmp_path)})
    try:
        service.start()
        wait_until(lambda: logged(service, RELOADED), "the service is reloaded", LONG)
        service.wait_until_ready()
    finally:
        service.stop()


def test_question_that_is_interrupted(tmp_path: Path) -> None:
    """SIGHUP ends a command that only asks whether the service is ready."""
    (tmp_path / "sitecustomize.py").write_text(HANG_UP_ON_IMPORT.format(module="responder.cli.service"))
    service = Responder(tmp_path, environment={"PYTHONPATH": str(tmp_path)})

    assert -signal.SIGHUP == service.attempt("serve", "--ready").returncode


def test_twice_in_a_row(service: Responder) -> None:
    """Of reloads that come together the last one counts: it has the configuration that was there when it came."""
    supervisor = service.supervisor.pid
    for number in range(8, 11):
        service.configure(with_address(f"192.0.2.{number}"))
        hang_up(service)

    wait_until(lambda: shown(service) == "192.0.2.10", "the last configuration is in use", LONG)
    wait_until(lambda: service.spare(), "there is a spare", LONG)
    assert ([], supervisor) == (logged(service, REFUSED), service.supervisor.pid)


def successors(service: Responder, before: set[Process], module: str) -> list[Process]:
    return [each for each in set(service.children()) - before if f"responder.{module}" in each.command]


@pytest.mark.parametrize("moment", ["check", "start"])
def test_the_end_during_a_reload(service: Responder, moment: str) -> None:
    """SIGTERM ends everything in an orderly way, the processes of before and those to come."""
    before = set(service.children())
    hang_up(service)
    if moment == "start":
        wait_until(lambda: successors(service, before, "control"), "the new control process is there", LONG)
    else:
        wait_until(lambda: successors(service, before, ""), "the check has begun", LONG)
    children = service.children()

    service.supervisor.terminate()

    assert 0 == service.supervisor.wait()
    assert not any(child.alive for child in children)
    assert "stopped" in service.log().splitlines()[-1]


@pytest.mark.parametrize("victim", ["old control", "new control", "old nameserver", "new nameserver"])
def test_deaths_during_a_reload(service: Responder, victim: str) -> None:
    """Whatever dies, the reload comes to its end, and everything that was acknowledged is served."""
    token = service.mint("some.example.com")
    assert 200 == service.present(token, "a" * 43).status
    before = set(service.children())
    old = {module: service.child(module) for module in ("control", "nameserver")}
    age, module = victim.split()
    service.configure(with_address("192.0.2.8"))
    hang_up(service)
    (new, *_) = wait_until(lambda: successors(service, before, module), f"there is a new {module}", LONG)

    (old[module] if age == "old" else new).kill()

    wait_until(lambda: logged(service, RELOADED), "the reload comes to its end", LONG)
    assert "192.0.2.8" == shown(service)
    assert {"a" * 43} == values(service.dns, token.challenge_name)
    assert 200 == service.present(token, "b" * 43).status
    assert {"a" * 43, "b" * 43} == values(service.dns, token.challenge_name)


def test_without_its_database(service: Responder) -> None:
    """A database that is away is the reason of a refusal, and no new one is made in its place."""
    database = service.directory / "responder.db"
    database.rename(service.directory / "away")
    service.configure(with_address("192.0.2.8"))

    outcome(service, REFUSED)

    assert not database.exists()
    assert "192.0.2.7" == shown(service)
    (service.directory / "away").rename(database)
    outcome(service, RELOADED)
    assert "192.0.2.8" == shown(service)
