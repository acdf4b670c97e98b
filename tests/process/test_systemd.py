"""What systemd sees of the service and hands over to it: real sockets, the real program, a stand-in for PID 1."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dns.message
import dns.query
import pytest

from responder.process import listeners, systemd
from responder.process.listeners import bind_all, close_all
from responder.process.users import PREFERRED
from tests.e2e.programs import require
from tests.support.places import ROOT
from tests.support.ports import free_port
from tests.support.processes import PATIENCE
from tests.support.service import write_configuration

bind = listeners._bind


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket on which systemd hears of its services."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield sock


def test_notify(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state is one datagram; where nobody listens, or nobody is named, nothing happens."""
    systemd.notify("READY=1")
    assert b"READY=1" == manager.recv(100)
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/at/all")
    systemd.notify("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    systemd.notify("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as abstract:
        abstract.bind(f"\0responder-test-{os.getpid()}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@responder-test-{os.getpid()}")
        systemd.notify("STOPPING=1")
        assert b"STOPPING=1" == abstract.recv(100)


def test_watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs of life are given three times as often as asked for; none if nobody asks, or asks another process."""
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    assert systemd.watchdog_interval() is None
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    assert 10.0 == systemd.watchdog_interval()
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + 1))
    assert systemd.watchdog_interval() is None


def test_sockets_for_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets that were handed to whoever started us are not ours."""
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", str(os.getpid() + 1))
    assert [] == systemd.inherited_sockets()


def test_inherited_sockets_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where systemd has bound an address, that very socket serves all processes; the rest is bound as ever."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as theirs:
        theirs.bind(("127.0.0.1", 0))
        address: tuple[str, int] = theirs.getsockname()
        monkeypatch.setattr(systemd, "inherited_sockets", lambda: [theirs.dup()])
        sockets, faults = bind_all([address], [("127.0.0.1", 0)], [], processes=2)
    try:
        udp = [*sockets["udp 1"], *sockets["udp 2"]]
        assert ([], 2, 1) == (faults, len(udp), len(sockets["tcp"]))
        assert {address} == {sock.getsockname() for sock in udp}
        assert not any(sock.getblocking() for sock in udp)
    finally:
        close_all(sockets)


def test_a_socket_unit_that_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the unit lacks, has in another form, or has left over is named as the line in the unit."""
    with socket.socket(type=socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
        udp.bind(("0.0.0.0", free_port()))
        tcp.bind(("127.0.0.1", 0))
        port, other = udp.getsockname()[1], tcp.getsockname()[1]
        monkeypatch.setattr(systemd, "inherited_sockets", lambda: [udp.dup(), tcp.dup()])
        monkeypatch.setattr(listeners, "_bind", refusing_privileged_ports)

        sockets, faults = bind_all([("127.0.0.1", port)], [("127.0.0.1", 443)], [], processes=1)

        close_all(sockets)
        restart = "systemctl daemon-reload && systemctl restart responder.socket responder"
        assert [
            (
                f"cannot listen on 127.0.0.1:{port} (udp, dns.listen): Address already in use (the socket unit has "
                f"ListenDatagram=0.0.0.0:{port} instead of ListenDatagram=127.0.0.1:{port}: change it, and run "
                f"`{restart}`)"
            ),
            (
                "cannot listen on 127.0.0.1:443 (api, api.listen): Permission denied (the socket unit has no "
                f"ListenStream=127.0.0.1:443: add it, and run `{restart}`)"
            ),
        ] == faults
        used = {(socket.SOCK_DGRAM, ("0.0.0.0", port))}
        (line,) = listeners.left_over(used)
        assert line.startswith(f"the socket unit has ListenStream=127.0.0.1:{other}, but no listen setting has that")
        assert [] == listeners.left_over(used | {(socket.SOCK_STREAM, ("127.0.0.1", other))})


def refusing_privileged_ports(
    kind: socket.SocketKind, address: tuple[str, int], *, shared: bool, free: bool
) -> socket.socket:
    """As the kernel does without a capability."""
    if address[1] < 1024:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return bind(kind, address, shared=shared, free=free)


def test_the_unit_is_confined() -> None:
    """systemd's own audit of the sandbox stays below 2.0 of 10."""
    unit = ROOT / "config" / "systemd" / "responder.service"
    audit = subprocess.run(
        [require("systemd-analyze"), "security", "--offline=true", "--threshold=20", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == audit.returncode, audit.stdout[-500:] + audit.stderr


def test_the_user_of_the_nameservers(tmp_path: Path) -> None:
    """systemd makes the user that nameservers run as: one that is in no use otherwise, and cannot log in."""
    (tmp_path / "etc").mkdir()
    with (ROOT / "config" / "systemd" / "sysusers.conf").open("rb") as file:
        subprocess.run([require("systemd-sysusers"), f"--root={tmp_path}", "-"], stdin=file, check=True)

    (user,) = (tmp_path / "etc" / "passwd").read_text().splitlines()
    name, _, uid, gid, _, _, shell = user.split(":")
    assert PREFERRED[0] == name
    assert "0" not in (uid, gid)
    assert shell.endswith("nologin")


HAND_OVER = """
import os, sys
os.environ["LISTEN_PID"], os.environ["LISTEN_FDS"] = str(os.getpid()), "2"
for number, there in enumerate(map(int, sys.argv[1:3]), start=3):
    os.dup2(there, number, inheritable=True)
os.execv(sys.executable, [sys.executable, "-m", "responder", *sys.argv[3:]])
"""
"""What systemd does between fork and exec."""


def test_a_restart_loses_no_query(manager: socket.socket, tmp_path: Path) -> None:
    """
    The program says when it is ready and that it stops. A query that is asked while it is down waits in systemd's
    socket, and is answered by the next one.
    """
    port = free_port()
    configuration = write_configuration(tmp_path, dns=port, api=free_port(), admin=free_port())
    question = dns.message.make_query("acme.example.com", "SOA")
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        udp.bind(("127.0.0.1", port))
        tcp.bind(("127.0.0.1", port))
        tcp.listen()
        client.settimeout(PATIENCE)
        for _ in range(2):
            client.sendto(question.to_wire(), ("127.0.0.1", port))  # nobody is there yet
            program = _start(configuration, udp, tcp)
            try:
                assert b"READY=1" == manager.recv(100)
                reply = dns.message.from_wire(client.recv(4096))
                assert (question.id, 1) == (reply.id, len(reply.answer))
                assert 1 == len(dns.query.tcp(question, "127.0.0.1", port=port, timeout=PATIENCE).answer)
            finally:
                program.terminate()
                _, said = program.communicate(timeout=PATIENCE)
            assert (0, b"STOPPING=1") == (program.returncode, manager.recv(100)), said


def _start(configuration: Path, *sockets: socket.socket) -> subprocess.Popen[str]:
    numbers = [sock.fileno() for sock in sockets]
    return subprocess.Popen(
        [sys.executable, "-c", HAND_OVER, *map(str, numbers), "--config", str(configuration), "serve"],
        pass_fds=numbers,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
