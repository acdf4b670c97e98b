"""What Landlock keeps from a process, tried in processes of their own; seccomp is not there to help it."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.places import ROOT
from tests.support.processes import PATIENCE

ENTER = (
    "import os, signal, socket, sys; from responder.nameserver.landlock import enter; "
    "from responder.process.prctl import gain_no_privileges; gain_no_privileges(); enter()\n"
)


def version() -> int:
    return int(ctypes.CDLL(None).syscall(444, None, 0, 1))


def confined(code: str, *arguments: object) -> str:
    """What a process prints that went into the sandbox and then ran *code*."""
    run = subprocess.run(
        [sys.executable, "-c", ENTER + code, *map(str, arguments)], stdout=-1, check=True, timeout=PATIENCE
    )
    return run.stdout.decode().strip()


def needs(least: int) -> None:
    if version() < least:
        pytest.skip(f"this kernel has no Landlock of version {least}")


@pytest.mark.parametrize("mode", ["r", "w", "a"])
def test_files_are_out_of_reach(tmp_path: Path, mode: str) -> None:
    """No file can be read or written, such as the database, whoever the user is."""
    needs(1)
    database = tmp_path / "responder.db"
    database.write_text("secret")
    code = "try: open(sys.argv[1], sys.argv[2])\nexcept PermissionError: print('denied')"

    assert "denied" == confined(code, database, mode)
    assert "secret" == database.read_text()


def test_what_it_needs_still_works() -> None:
    """Modules that are needed later are found, and sockets go on."""
    code = (
        "import xml.dom.minidom\n"
        "udp = socket.socket(type=socket.SOCK_DGRAM); udp.bind(('127.0.0.1', 0))\n"
        "udp.sendto(b'x', udp.getsockname()); print(udp.recv(1).decode())"
    )

    assert "x" == confined(code)


def test_there_is_no_way_out() -> None:
    """It connects to nobody over TCP."""
    needs(4)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        code = "try: socket.create_connection(('127.0.0.1', int(sys.argv[1])))\nexcept PermissionError: print('denied')"

        assert "denied" == confined(code, listener.getsockname()[1])


def test_nobody_else_can_be_killed() -> None:
    """It sends no signal to a process outside."""
    needs(6)
    code = "try: os.kill(int(sys.argv[1]), signal.SIGTERM)\nexcept PermissionError: print('denied')"

    assert "denied" == confined(code, os.getpid())


def test_without_landlock() -> None:
    """On a kernel that has none, nothing happens."""
    code = (
        "from unittest.mock import Mock; from responder.nameserver import landlock\n"
        "landlock._libc = Mock(); landlock._libc.syscall.return_value = -1; print(landlock.enter())"
    )
    run = subprocess.run([sys.executable, "-c", code], stdout=-1, check=True, timeout=PATIENCE)

    assert "0" == run.stdout.decode().strip()


def test_of_a_checkout_only_the_package_is_read() -> None:
    """In a development install the checkout is on Python's path; its modules can be read, and nothing else in it."""
    needs(1)
    code = (
        "try: open(sys.argv[1])\nexcept PermissionError: print('denied')\n"
        "import responder.dns.counts; print('imported')"
    )

    assert ["denied", "imported"] == confined(code, ROOT / "pyproject.toml").split()
