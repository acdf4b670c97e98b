"""`make run`: what it prints, and when."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.places import ROOT
from tests.support.ports import free_port
from tests.support.service import write_configuration

SCRIPT = ROOT / "config" / "dev.py"

RUN = [sys.executable, str(SCRIPT)]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory whose `config/dev.toml` has ports of its own."""
    (tmp_path / "config").mkdir()
    written = write_configuration(tmp_path, dns=free_port(), api=free_port(), admin=free_port())
    written.rename(tmp_path / "config" / "dev.toml")
    return tmp_path


@contextmanager
def running(directory: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(RUN, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        try:
            yield program
        finally:
            program.terminate()


def read_to(program: subprocess.Popen[str], text: str) -> str:
    """What the program prints up to *text*, or up to its end."""
    assert program.stdout is not None
    printed = ""
    while text not in printed and (line := program.stdout.readline()):
        printed += line
    return printed


def test_hints(directory: Path) -> None:
    """What to try is printed with the token that is kept, the same at each start; Ctrl-C ends it all."""
    token = ""
    for _ in range(2):
        with running(directory) as program:
            printed = read_to(program, "Ctrl-C stops the service")
            assert "Bearer rsp_" in printed
            assert token in printed
            token = printed[printed.index("rsp_") :].split("'")[0]
    assert 0 == program.returncode
    assert token in (directory / ".dev" / "first-token").read_text()
    assert 0o600 == (directory / ".dev" / "first-token").stat().st_mode & 0o7777


@pytest.mark.parametrize("made", [".dev", "responder.db", ".dev/first-token"])
def test_interrupted_before_it_is_ready(directory: Path, made: str) -> None:
    """Ctrl-C, which a terminal sends to all processes, ends the start without a traceback, at each of its steps."""
    with subprocess.Popen(
        RUN, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as program:
        while not (directory / made).exists():
            assert program.poll() is None
            time.sleep(0.01)
        os.killpg(program.pid, signal.SIGINT)
        printed, error = program.communicate()

    assert "Traceback" not in error
    assert "" == printed


def test_port_that_is_taken(directory: Path) -> None:
    """Where something else listens, that is said, and nothing is printed that would not work."""
    with running(directory) as first:
        read_to(first, "Ctrl-C stops the service")
        second = subprocess.run(RUN, cwd=directory, capture_output=True, text=True)

    assert (1, "") == (second.returncode, second.stdout)
    assert "cannot listen on 127.0.0.1:" in second.stderr
    assert "Address already in use" in second.stderr


def test_no_token(directory: Path) -> None:
    """Where no token can be minted, the reason is all that is said, and next time is like the first."""
    (directory / "config" / "dev.toml").write_text("zones = 1")

    run = subprocess.run(RUN, cwd=directory, capture_output=True, text=True)

    assert (1, "") == (run.returncode, run.stdout)
    assert run.stderr.startswith("responder: config/dev.toml: zones: must be [[zones]]")
    assert [] == list((directory / ".dev").iterdir())
