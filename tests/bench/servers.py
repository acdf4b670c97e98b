"""
The servers that are compared: our nameserver process, and Debian's with one thread or process and no rate limit.

Each serves the very same zone. Replies are equally small (no authority section with an answer), and all make DNS
cookies, so that all do the same work; but not Knot, which would send BADCOOKIE to a client like dnsperf that never
brings one back. Another server is one more `Server` in `OTHERS`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.machine import family
from tests.e2e import configuration, nsd
from tests.e2e.dns_client import answers
from tests.e2e.programs import running
from tests.e2e.service import ZONE, Responder
from tests.support.ports import free_port


@dataclass(frozen=True, slots=True)
class Listener:
    """A server that runs: where it answers, and the processes that do the work."""

    name: str
    port: int
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Server:
    """
    How to run a server on the zone file `zone`: *command* with *configuration* in `conf`, all in one directory.

    *name* is its program, too. The configuration depends on that directory, and on the port.
    """

    name: str
    version: tuple[str, ...]
    command: tuple[str, ...]
    configuration: Callable[[Path, int], str]


def _filling_in(template: str) -> Callable[[Path, int], str]:
    return lambda directory, port: template.format(directory=directory, port=port, zone=ZONE)


def configured(*, processes: int = 1, realtime: bool = False) -> str:
    """The service with so many nameserver processes, for `Responder`: no load is too much for it."""
    return configuration.render(
        configuration.zone(ZONE, {f"ns1.{ZONE}": ["127.0.0.1"]}),
        dns=f"processes = {processes}\nrealtime = {'true' if realtime else 'false'}",
        rate_limit="replies_per_second = 0",
        log="info",
        limits='per_token = "1000000/second"\nper_address = "1000000/second"',
    )


CONFIGURATION = configured()

OTHERS = (
    Server(
        name="nsd",
        version=("-v",),
        command=("-d", "-c", "conf"),
        configuration=lambda directory, port: nsd.configuration(directory, port, {ZONE: "zone"}, server=nsd.LIKE_OURS),
    ),
    Server(
        name="knotd",
        version=("-V",),
        command=("-c", "conf"),
        configuration=_filling_in("""
server:
    listen: 127.0.0.1@{port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
    rundir: "{directory}"
database:
    storage: "{directory}"
log:
  - target: stderr
    any: warning
zone:
  - domain: {zone}
    storage: "{directory}"
    file: zone
"""),
    ),
    Server(
        name="named",
        version=("-v",),
        command=("-n", "1", "-f", "-c", "conf"),
        configuration=_filling_in("""
options {{
    directory "{directory}";
    pid-file none;
    session-keyfile none;
    managed-keys-directory "{directory}";
    listen-on port {port} {{ 127.0.0.1; }};
    listen-on-v6 {{ none; }};
    recursion no;
    minimal-responses yes;
    answer-cookie yes;
    rate-limit {{ responses-per-second 0; }};
    dnssec-validation no;
    notify no;
}};
controls {{ }};
zone "{zone}" {{ type primary; file "zone"; }};
"""),
    ),
)


@contextmanager
def ours(responder: Responder, name: str) -> Iterator[Listener]:
    """Run the service, to be called *name*; only its nameserver process counts."""
    try:
        responder.start()
        yield Listener(name, responder.dns, (responder.child("nameserver").pid,))
    finally:
        responder.stop()


@contextmanager
def other(server: Server, program: str, zone: str, directory: Path) -> Iterator[Listener]:
    """Run *server*, whose program is at the path *program*, on a zone given as zone text."""
    port = free_port()
    directory.mkdir()
    (directory / "zone").write_text(zone)
    (directory / "conf").write_text(server.configuration(directory, port))
    with running([program, *server.command], directory) as process:
        process.wait_until_ready(lambda: answers(port, ZONE, "SOA"))
        yield Listener(server.name, port, tuple(family(process.pid)))


def version(server: Server, program: str) -> str:
    """What the program says that it is."""
    run = subprocess.run([program, *server.version], capture_output=True, text=True, timeout=10, check=False)
    return (run.stdout + run.stderr).strip().partition("\n")[0]


def installed(say: Callable[[str], None]) -> Iterator[tuple[Server, str]]:
    """Those of the others that this machine has, each with the path of its program; *say* names the missing."""
    for server in OTHERS:
        if (program := find(server.name)) is not None:
            yield server, program
        else:
            say(f"without {server.name}: it is not installed")


def find(program: str) -> str | None:
    """Where *program* is; an ordinary user's PATH lacks the directories of servers."""
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin")
