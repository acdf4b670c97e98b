"""
acme-dns itself as a peer (version 2, with SQLite): its program if there is one, and accounts that it hands out.

No Debian package has it: `go install` puts it where it is looked for.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from uuid import UUID

from responder.names import Name
from responder.tokens.secret import Secret
from tests.bench.database import Holder
from tests.bench.machine import family
from tests.e2e.dns_client import answers
from tests.e2e.programs import running
from tests.e2e.service import ZONE
from tests.support.ports import free_port

NAME = "acme-dns"
"""Its program, too."""

_TIMEOUT = 15.0
"""Seconds for a reply; it takes a hundred milliseconds where there is nothing else to do."""

_CONFIGURATION = """
[general]
listen = "127.0.0.1:{dns}"
protocol = "both"
domain = "{zone}"
nsname = "ns1.{zone}"
nsadmin = "hostmaster.example.com"
records = ["{zone}. NS ns1.{zone}.", "ns1.{zone}. A 127.0.0.1"]

[database]
engine = "sqlite"
connection = "acme-dns.db"

[api]
ip = "127.0.0.1"
port = "{api}"
tls = "none"

[logconfig]
loglevel = "info"
logtype = "stdout"
logformat = "text"
"""


@dataclass(frozen=True, slots=True)
class AcmeDns:
    """One that runs: its ports, and its processes."""

    dns: int
    api: int
    pids: tuple[int, ...]

    def register(self) -> Holder:
        """Somebody with a new account, which is for one name."""
        status, body = self._exchange("POST", "/register")
        if status != 201:
            raise SystemExit(f"{NAME} gave no account: {status} {body!r}")
        account = json.loads(body)
        return Holder(UUID(account["username"]), Secret(account["password"]), (Name.parse(account["fulldomain"]),))

    def ready(self) -> bool:
        """Whether it answers, over HTTP and DNS."""
        try:
            return self._exchange("GET", "/health")[0] == 200 and answers(self.dns, ZONE, "SOA")
        except (OSError, HTTPException):
            return False

    def _exchange(self, method: str, path: str) -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", self.api, timeout=_TIMEOUT)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


def find() -> str | None:
    """Where its program is: on PATH, or where Go installs programs."""
    places = [os.environ.get("PATH", os.defpath), os.environ.get("GOBIN", "")]
    if (go := shutil.which("go")) is not None:
        paths = subprocess.run([go, "env", "GOPATH"], capture_output=True, text=True, check=True, timeout=10).stdout
        places += [f"{path}/bin" for path in paths.strip().split(os.pathsep)]
    return shutil.which(NAME, path=os.pathsep.join(filter(None, places)))


@contextmanager
def serving(program: str, directory: Path) -> Iterator[AcmeDns]:
    """Run *program*, with a new database in *directory*, until the block ends."""
    dns, api = free_port(), free_port()
    directory.mkdir()
    (directory / "conf").write_text(_CONFIGURATION.format(zone=ZONE, dns=dns, api=api))
    with running([program, "-c", "conf"], directory) as process:
        process.wait_until_ready(AcmeDns(dns, api, ()).ready)
        yield AcmeDns(dns, api, tuple(family(process.pid)))
