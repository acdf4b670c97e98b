"""`responder check` as its users meet it: usage, refusals, the report on a terminal and in a file."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from responder.cli.findings import Screen, as_json
from responder.doctor.report import CheckName, Section, cross, note, tick
from responder.names import Name
from tests.support.apis import serving
from tests.support.world import World, world

APEX = "acme.example.com"
RESOLVER, PARENT, NS1 = "127.0.10.1", "127.0.10.2", "127.0.10.11"
RECORDS = f"""
example.com. SOA a.example.com. hostmaster.example.com. 1 60 60 60 60
example.com. NS a.example.com.
a.example.com. A {PARENT}
{APEX}. NS ns1.{APEX}.
ns1.{APEX}. A {NS1}
"""
SOA = f"{APEX}. SOA ns1.{APEX}. hostmaster.example.com. 3000000000 60 60 60 60\n"

CONFIGURATION = """
[[zones]]
name = "{apex}"
hostmaster = "hostmaster@example.com"
[zones.nameservers]
"ns1.{apex}" = ["{ns1}"]
[api]
listen = ["127.0.0.1:{api}"]
[admin]
listen = []
[database]
url = "sqlite+aiosqlite:///{directory}/responder.db"
"""


@dataclass(frozen=True)
class Done:
    """What the command came to."""

    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Cli:
    """The program, with a configuration and a database of its own, and servers that it may ask."""

    world: World
    configuration: Path

    async def run(self, *arguments: str, **environment: str) -> Done:
        command = [sys.executable, "-m", "responder", "--config", str(self.configuration), *arguments]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=PIPE, stderr=PIPE, env={**os.environ, **environment}
        )
        out, err = await process.communicate()
        return Done(process.returncode or 0, out.decode(), err.decode())

    async def check(self, *arguments: str, **environment: str) -> Done:
        """Run the doctor on the servers of the test."""
        return await self.run(
            "check", "--resolver", RESOLVER, "--port", str(self.world.port), *arguments, **environment
        )


@pytest_asyncio.fixture
async def program(tmp_path: Path) -> AsyncIterator[Cli]:
    """A delegation that is in order."""
    configuration = tmp_path / "responder.toml"
    async with world() as servers, serving() as api:
        configuration.write_text(CONFIGURATION.format(apex=APEX, ns1=NS1, directory=tmp_path, api=api))
        await servers.add(RESOLVER, RECORDS + SOA, recursive=True)
        await servers.add(PARENT, RECORDS)
        await servers.add(NS1, RECORDS[RECORDS.index(APEX) :] + SOA)
        yield Cli(servers, configuration)


@pytest.fixture
def section() -> Section:
    """Something of everything."""
    return Section(
        Name.parse("some.example.com"),
        (
            tick(CheckName.TCP, "it answers"),
            note(CheckName.PUBLIC, "it is a long way to go: " + "far, " * 30),
            cross(CheckName.CNAME, "there is none", "add to example.com:", "x" * 150, "y"),
        ),
    )


async def test_report(program: Cli) -> None:
    """A report in a file has a line for each finding, however long, and nothing that only terminals understand."""
    done = await program.check()

    lines = list(map(str.strip, done.out.splitlines()))
    assert (0, "") == (done.status, done.err)
    assert APEX == lines[0]
    assert 10 == sum(line.startswith("✔") for line in lines)
    noted = f"!  public addresses no CA on the internet can reach {NS1}"
    assert [noted] == [line for line in lines if line.startswith("!")]
    assert "no problems, 1 note" == lines[-1]
    assert "\x1b" not in done.out


async def test_json(program: Cli) -> None:
    """The same as data."""
    done = await program.check("--output", "json")

    report = json.loads(done.out)
    assert (0, "") == (done.status, done.err)
    assert (True, 0, 1) == (report["passed"], report["crosses"], report["notes"])
    zone, api = [one["subject"] for one in report["sections"]]
    assert (APEX, True) == (zone, api.startswith("the API at http://127.0.0.1:"))


async def test_terminal_without_the_signs(program: Cli) -> None:
    """Where there are no ticks, words do."""
    done = await program.check(PYTHONIOENCODING="ascii")

    assert 10 == sum(line.split()[:1] == ["ok"] for line in done.out.splitlines())


async def test_no_resolver(program: Cli) -> None:
    """A resolver with a port of its own; nobody answers there, and that is one line."""
    async with world() as elsewhere:
        await elsewhere.add(RESOLVER, "", recursive=True, bend=lambda _: b"HTTP/1.1 400 Bad Request")
        done = await program.run("check", "--resolver", f"{RESOLVER}:{elsewhere.port}")

    nonsense = "replies with a message that does not match the query"
    at = f"the resolver {RESOLVER}, port {elsewhere.port}, {nonsense}"
    line = f"responder: {at}: choose another with --resolver ADDRESS[:PORT]\n"
    assert Done(1, "", line) == done


async def test_under_nohup(program: Cli) -> None:
    """What is to survive the end of its terminal does; SIGTERM ends it all the same."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind((RESOLVER, 0))
        silent.setblocking(False)
        resolver = f"{RESOLVER}:{silent.getsockname()[1]}"
        command = ["nohup", sys.executable, "-m", "responder", "--config", str(program.configuration)]
        process = await asyncio.create_subprocess_exec(
            *command, "check", "--resolver", resolver, stdin=DEVNULL, stdout=PIPE, stderr=PIPE
        )
        said = asyncio.create_task(process.communicate())
        await loop.sock_recv(silent, 512)
        process.send_signal(signal.SIGHUP)
        again = asyncio.create_task(loop.sock_recv(silent, 512))  # as it had no answer
        await asyncio.wait([again, said], return_when=asyncio.FIRST_COMPLETED)
        asked_again = again.done()
        again.cancel()
        if asked_again:
            process.send_signal(signal.SIGTERM)
        _, err = await said

    assert (True, 1, "responder: interrupted") == (asked_again, process.returncode, err.decode().strip())


async def test_before_the_service_first_runs(program: Cli, tmp_path: Path) -> None:
    """The delegation can be looked at without a database; nothing is made, also not by a question about a hostname."""
    before = sorted(tmp_path.iterdir())  # noqa: ASYNC240

    zones, host = await program.check(), await program.check("some.example.com")

    assert (0, "") == (zones.status, zones.err)
    assert 1 == host.status
    assert host.err.startswith("responder: there is no database yet (sqlite+aiosqlite:///")
    assert before == sorted(tmp_path.iterdir())  # noqa: ASYNC240


async def test_hostnames_that_cannot_be_checked(program: Cli) -> None:
    """Each is one line that says what to do, and nobody is asked anything."""
    token = json.loads((await program.run("token", "mint", "gone.example.com", "--output", "json")).out)["id"]
    await program.run("token", "revoke", token)

    done = await program.check("gone.example.com", "*.new.example.com", "192.0.2.1", "com")

    assert (1, "") == (done.status, done.out)
    mint = "responder: no valid token covers {0}: mint one with responder token mint {0}"
    assert [
        "responder: '192.0.2.1' is an IP address: dns-01 validates names only (RFC 8738, section 7)",
        "responder: 'com' is a public suffix: a token for it would be a token for every name below it",
        mint.format("gone.example.com"),
        mint.format("new.example.com"),
    ] == done.err.splitlines()


async def test_writing_at_a_shared_name(program: Cli) -> None:
    """A test value may be written for each of the hostnames that share a name."""
    hosts = ("s1.example.com", "s2.example.com")
    await program.run("token", "mint", *hosts, "--alias", "shared.acme.example.com")

    for host in hosts:
        done = await program.check("--write", "--output", "json", host)

        assert "" == done.err
        assert host in [section["subject"] for section in json.loads(done.out)["sections"]]


async def test_challenge_name_in_no_zone(program: Cli) -> None:
    """A hostname whose zone has been taken out of the configuration."""
    await program.run("token", "mint", "some.example.com")
    program.configuration.write_text(program.configuration.read_text().replace(APEX, "acme.example.net"))

    done = await program.check("some.example.com")

    name, zone = "_acme-challenge.some.acme.example.com", "acme.example.com"
    expected = f"some.example.com: {name} is in the zone {zone}, which is not served here"
    assert (1, f"responder: {expected}\n") == (done.status, done.err)


@pytest.mark.parametrize(
    ("where", "expected"),
    [("/dev/full", (1, "responder: failed: No space left on device\n")), ("| head -1", (0, ""))],
)
async def test_output_that_cannot_be_written(program: Cli, where: str, expected: tuple[int, str]) -> None:
    """A full disk is one line, and a reader that leaves is none of our business."""
    arguments = f"check --resolver {RESOLVER} --port {program.world.port}"
    command = f"{sys.executable} -m responder --config {program.configuration} {arguments}"
    process = await asyncio.create_subprocess_shell(
        f"{command} {where}" if "|" in where else f"{command} > {where}", stdout=PIPE, stderr=PIPE
    )
    _, err = await process.communicate()

    assert expected == (process.returncode, err.decode())


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--resolver", "localhost"], "does not start with an IP address"),
        (["--resolver", "127.0.0.1:x"], "does not end with a port"),
        (["--port", "0"], "is not a port from 1 to 65535"),
        (["--account-uri", "me"], "is not the URL of an ACME account"),
        (["--account-uri", "https://ca.example.net/1; policy=ev"], "is not the URL of an ACME account"),
    ],
)
async def test_wrong_usage(program: Cli, arguments: list[str], complaint: str) -> None:
    """What makes no sense is exit status 2."""
    done = await program.run("check", *arguments)

    assert (2, "") == (done.status, done.out)
    assert complaint in " ".join(done.err.split())


def test_screen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], section: Section) -> None:
    """
    On a terminal, tables fit it, while records and commands stand unbroken on lines of their own; whom it waits for
    is shown meanwhile.
    """
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    screen = Screen()

    with screen.live():
        screen.waiting("ns1 (192.0.2.1) over UDP")
        screen.show(section)
    screen.waiting("nobody")
    screen.show_fixes()
    screen.conclude([section])

    out = capsys.readouterr().out
    assert "waiting for ns1 (192.0.2.1) over UDP" in out
    assert "nobody" not in out
    table, _, fixes = out.partition("add to example.com:")
    assert f"\n{'x' * 150}\ny\n" in fixes
    assert "1 problem, 1 note" in fixes
    assert max(len(line) for line in table.splitlines() if "far, far" in line) < 80


def test_found_in_json(section: Section) -> None:
    """The fix of a cross is an instruction and lines."""
    data: dict[str, Any] = as_json([section])

    assert (False, 1, 1) == (data["passed"], data["crosses"], data["notes"])
    assert [
        {"check": "TCP", "mark": "tick", "text": "it answers", "fix": None},
        {
            "check": "CNAME",
            "mark": "cross",
            "text": "there is none",
            "fix": {"instruction": "add to example.com:", "lines": ["x" * 150, "y"]},
        },
    ] == data["sections"][0]["findings"][::2]
