"""How sockets are shared; what is bound, inherited and refused is tried with the supervisor's and systemd's tests."""

from __future__ import annotations

import socket
from contextlib import closing

from responder.process.listeners import bind_all, close_all
from tests.support.ports import free_port

CLIENTS = 1000


def test_processes_share_clients_evenly() -> None:
    """Of very many clients each process gets its part, and no query of theirs gets lost."""
    port = free_port()
    sockets, faults = bind_all([("127.0.0.1", port)], [], [], processes=2)
    received = [0, 0]
    try:
        for _ in range(CLIENTS):
            with closing(socket.socket(type=socket.SOCK_DGRAM)) as client:
                client.sendto(b"query", ("127.0.0.1", port))
            received = [before + waiting(sock) for before, sock in zip(received, sockets["udp"], strict=True)]
    finally:
        close_all(sockets)

    assert [] == faults
    assert CLIENTS == sum(received)
    assert abs(received[0] - CLIENTS / 2) < CLIENTS / 8  # chance, by a hash of address and port: mostly 20 off, or less


def waiting(sock: socket.socket) -> int:
    """How many datagrams wait at a non-blocking socket; takes them out."""
    count = 0
    while True:
        try:
            sock.recv(16)
        except BlockingIOError:
            return count
        count += 1
