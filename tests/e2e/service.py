"""
The service as a user runs it: `responder serve` with a configuration file, its commands, its HTTP routes.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from responder.nameserver.life import ANSWERING, SPARE
from tests.support.places import ROOT
from tests.support.ports import free_port
from tests.support.processes import PATIENCE

from . import configuration
from .dns_client import answers
from .programs import Process, Program, descendants, wait_until

ZONE = "acme.example.com"

CONFIGURATION = configuration.render(configuration.zone(ZONE, {f"ns1.{ZONE}": ["127.0.0.1"]}))
"""One zone, and no rate limit for whoever is on the same machine."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token as `responder token mint` printed it, for one hostname."""

    id: str
    secret: str
    challenge_name: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What an HTTP route answered. *body* is None where that is no JSON."""

    status: int
    body: Any


@dataclass(slots=True)
class Responder:
    """One installation of the service, its database in *directory*; starts and stops as often as asked."""

    directory: Path
    dns: int = field(default_factory=free_port)
    api: int = field(default_factory=free_port)
    admin: int = field(default_factory=free_port)
    configuration: str = CONFIGURATION
    environment: dict[str, str] = field(default_factory=dict)
    """Variables that the service and its commands find, besides the tests' own."""
    _program: Program | None = None
    _seen: set[Process] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.configure(self.configuration)

    def configure(self, text: str) -> None:
        """Write the configuration file, which has its places in braces."""
        self._configuration.write_text(
            text.format(
                dns=self.dns,
                api=self.api,
                admin=self.admin,
                database=self.directory / "responder.db",
            )
        )

    def start(self, zone: str = ZONE) -> None:
        """Start the supervisor, and wait until the service says that it is ready, and serves the zone."""
        self.begin_serving()
        self.wait_until_ready(zone)

    def begin_serving(self) -> None:
        """Start the supervisor, and wait for nothing."""
        self._program = Program(self._command("serve"), self._log, cwd=ROOT, environment=self._variables())

    def wait_until_ready(self, zone: str = ZONE) -> None:
        self.supervisor.wait_until_ready(lambda: self.ready() and answers(self.dns, zone, "SOA"))
        self._seen.update(self.children())

    def stop(self) -> None:
        """End whatever is left of it, orphans included."""
        if self._program is not None:
            with suppress(ProcessLookupError):
                self._seen.update(self.children())
            self._program.stop()
        for process in self._seen:
            process.kill()

    @property
    def supervisor(self) -> Program:
        """The process that was started last."""
        assert self._program is not None, "the service has not been started"
        return self._program

    def children(self) -> list[Process]:
        """The processes that the supervisor started, and theirs."""
        return descendants(self.supervisor.pid)

    def child(self, module: str) -> Process:
        """The one process of the module, such as `control` or `nameserver`, but no spare; waits for it to be there."""
        return wait_until(lambda: self._child(module), f"there is one {module} process")

    def spare(self) -> Process | None:
        """The nameserver that has loaded and stands by, if there is one now."""
        return next((process for process in self.children() if process.name == SPARE), None)

    def replacement(self, of: Process, module: str) -> Process:
        """The process of the module that takes the place of another; waits for it."""
        return wait_until(
            lambda: found if (found := self._child(module)) != of else None, f"the {module} process is back"
        )

    def _child(self, module: str) -> Process | None:
        found = [process for process in self.children() if f"responder.{module}" in process.command]
        self._seen.update(found)
        at_work = [process for process in found if module != "nameserver" or process.name == ANSWERING]
        return at_work[0] if len(at_work) == 1 else None

    def ready(self) -> bool:
        """Whether the service says that it is ready."""
        try:
            return self.readiness().status == 200
        except (OSError, HTTPException):
            return False

    def readiness(self, query: str = "") -> Reply:
        """What the readiness check answers."""
        return self._exchange("GET", self.admin, f"/readyz{query}", {}, None)

    def log(self) -> str:
        """Everything that it has logged so far."""
        return self._log.read_text()

    def mint(self, hostname: str, *options: str) -> Token:
        """Mint a token for the hostname, with more options of `responder token mint` if need be."""
        minted = json.loads(self.cli("token", "mint", hostname, *options, "--output", "json").stdout)
        (granted,) = minted["hostnames"]
        return Token(minted["id"], minted["token"], granted["challenge_name"])

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one command on the same configuration; it has to succeed."""
        run = self.attempt(*arguments)
        assert run.returncode == 0, f"{' '.join(arguments)}: {run.stdout}{run.stderr}"
        return run

    def attempt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one command on the same configuration; it may fail."""
        with self.begin(*arguments) as process:
            try:
                out, err = process.communicate(timeout=PATIENCE)
            finally:
                process.kill()
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Start one command on the same configuration, and leave it to the caller."""
        return subprocess.Popen(
            self._command(*arguments),
            cwd=ROOT,
            env=self._variables(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def endpoint(self) -> str:
        """The URL of the API."""
        return f"http://127.0.0.1:{self.api}"

    def present(self, token: Token, value: str, *, name: str | None = None) -> Reply:
        """Ask for the value to be served at the token's challenge name, or at another *name*."""
        return self._post("/present", token, {"fqdn": f"{name or token.challenge_name}.", "value": value})

    def cleanup(self, token: Token, value: str) -> Reply:
        """Ask for the value to be served no longer."""
        return self._post("/cleanup", token, {"fqdn": f"{token.challenge_name}.", "value": value})

    def acme_dns_update(self, token: Token, subdomain: str, value: str) -> Reply:
        """Ask for the value to be served, as a client of acme-dns does."""
        headers = {"X-Api-User": token.id, "X-Api-Key": token.secret, "Content-Type": "application/json"}
        return self._exchange("POST", self.api, "/update", headers, json.dumps({"subdomain": subdomain, "txt": value}))

    def introspect(self, token: Token) -> Reply:
        """Ask what the token may do."""
        return self._exchange("GET", self.api, "/v1/token", _credentials(token), None)

    def _post(self, path: str, token: Token, body: dict[str, str]) -> Reply:
        headers = {**_credentials(token), "Content-Type": "application/json"}
        return self._exchange("POST", self.api, path, headers, json.dumps(body))

    @staticmethod
    def _exchange(method: str, port: int, path: str, headers: dict[str, str], body: str | None) -> Reply:
        connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        is_json = "json" in response.headers.get_content_subtype()
        return Reply(response.status, json.loads(content) if is_json else None)

    @property
    def _log(self) -> Path:
        return self.directory / "responder.log"

    @property
    def _configuration(self) -> Path:
        return self.directory / "responder.toml"

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "responder", "--config", str(self._configuration), *arguments]

    def _variables(self) -> dict[str, str]:
        return _environment() | self.environment


def _credentials(token: Token) -> dict[str, str]:
    """The header with which lego's httpreq shows a token."""
    pair = f"{token.id}:{token.secret}".encode()
    return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}


def _environment() -> dict[str, str]:
    """What the service finds in its environment: nothing that would change its settings."""
    return {name: text for name, text in os.environ.items() if not name.startswith("RESPONDER_")}
