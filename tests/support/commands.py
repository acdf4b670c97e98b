"""
Runs commands as their users do, with a new database: the fixtures `run` (with a configuration) and `bare` (without).

Import both, and `configuration` and `environment` with them.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import pytest

from responder import cli, logs
from responder.names import Name
from responder.store import Present, Store
from tests.support.service import SERVING, new_database, write_configuration

HOST = "some.example.com"
CHALLENGE = "_acme-challenge.some.acme.example.com"
VALUE = "-LHDhK3oGRvkiefQnx7OOczTY5Tic_xZ6HcMOc_gmto"


@dataclass(frozen=True)
class Done:
    """What a command came to."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Run(Protocol):
    """Runs a command with the test's configuration."""

    def __call__(self, *arguments: str, status: int = 0) -> Done: ...


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    """A configuration with a new database."""
    new_database(tmp_path)
    return write_configuration(tmp_path, dns=10_053, api=10_080, admin=10_081)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's own configuration."""
    for name in list(os.environ):
        if name.startswith("RESPONDER_"):
            monkeypatch.delenv(name)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the program with just these arguments, and expects this exit status and no traceback."""

    def run(*arguments: str, status: int = 0) -> Done:
        monkeypatch.setattr(sys, "argv", ["responder", *arguments])
        monkeypatch.setattr(logs, "configure", lambda **_: None)  # the tests' own stays
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        captured = capsys.readouterr()
        done = Done(int(ended.value.code or 0), captured.out, captured.err)
        assert status == done.status, done
        return done

    return run


@pytest.fixture
def run(bare: Run, configuration: Path) -> Run:
    """Runs a command on the test's database."""

    def run(*arguments: str, status: int = 0) -> Done:
        return bare("--config", str(configuration), *arguments, status=status)

    return run


def fails(run: Run, *arguments: str) -> str:
    """The one line on stderr of a command that is refused or fails."""
    done = run(*arguments, status=1)
    assert "" == done.out
    (line,) = done.err.splitlines()
    assert line.startswith("responder: ")
    return line.removeprefix("responder: ")


def program(*arguments: str, **how: Any) -> subprocess.Popen[bytes]:
    """The program as a process of its own."""
    return subprocess.Popen([sys.executable, "-m", "responder", *arguments], **how)


def present(directory: Path, token_id: str, value: str, *, name: str = CHALLENGE, lifetime: timedelta) -> None:
    """Put a value into the database, as the service does."""

    async def apply() -> None:
        store = await Store.open(f"sqlite+aiosqlite:///{directory}/responder.db")
        now = datetime.now(UTC)
        operation = Present(
            token_id=UUID(token_id),
            challenge_name=Name.parse(name),
            value=value,
            expires_at=now + lifetime,
            client="192.0.2.1",
        )
        await store.apply([operation], serving=SERVING, now=now)
        await store.close()

    asyncio.run(apply())
