"""How sockets are shared; what is bound, inherited and refused is tried with the supervisor's and systemd's tests."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterable, Sequence
from contextlib import closing
from itertools import chain

from responder.process.listeners import bind_all, close_all, is_here
from tests.support.networks import network
from tests.support.ports import free_port
from tests.support.processes import PATIENCE

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
            received = [
                before + waiting(*sockets[place]) for before, place in zip(received, ("udp 1", "udp 2"), strict=True)
            ]
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


def test_the_stub_of_systemd_resolved() -> None:
    """Where systemd-resolved has port 53, the fault names it, and what to do; another program is not taken for it."""
    with network(["2001:db8::1"]) as here:
        for host, is_named in (("127.0.0.53", True), ("127.0.0.1", False)):
            stub = here.run(lambda: _bound_to(host))  # noqa: B023  # it is run at once
            with stub:
                sockets, faults = here.run(lambda: bind_all([("0.0.0.0", 53)], [], [], processes=1))
                close_all(sockets)
                (fault,) = faults
                assert fault.startswith("cannot listen on 0.0.0.0:53 (udp, dns.listen): Address already in use")
                assert is_named == ("DNSStubListener=no" in fault and "systemd-resolved" in fault)


def _bound_to(host: str) -> socket.socket:
    sock = socket.socket(type=socket.SOCK_DGRAM)
    sock.bind((host, 53))
    return sock


LATER = "2001:db8::77"
"""An address that the machine gets after the start."""


def test_an_address_that_comes_later() -> None:
    """With free_bind, what listens on an address that is not there yet is reached as soon as it is."""
    with network(["2001:db8::1"]) as here:
        sockets, faults = here.run(lambda: bind_all([(LATER, 0)], [], [], processes=1))
        assert ([], []) == (sockets["udp 1"], sockets["tcp"])
        assert {True} == {"for an address that comes later, set dns.free_bind = true" in fault for fault in faults}
        sockets, faults = here.run(lambda: bind_all([(LATER, 5353)], [], [], processes=2, free=["dns"]))
        try:
            assert [] == faults
            assert not here.run(lambda: is_here(LATER))

            here.add(LATER)

            assert here.run(lambda: is_here(LATER))
            assert b"question" == here.run(lambda: _send([*sockets["udp 1"], *sockets["udp 2"]]))
            with here.run(lambda: socket.create_connection((LATER, 5353), PATIENCE)):
                sockets["tcp"][0].setblocking(True)
                sockets["tcp"][0].accept()[0].close()
        finally:
            close_all(sockets)


def _send(listeners: Sequence[socket.socket]) -> bytes:
    """What one of *listeners* receives of a datagram to its address."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
        client.sendto(b"question", (LATER, 5353))
        (ready, *_), _, _ = select.select(listeners, [], [], PATIENCE)
        return bytes(ready.recv(100))


def test_sockets_that_are_offered() -> None:
    """
    Each socket that is there is taken: by one process if there are more processes, by several if there are fewer, and
    none twice. Another address of the same port is refused, because the service itself is in the way.
    """
    port = free_port()
    first, _ = bind_all([("127.0.0.1", port)], [], [], processes=2)
    try:
        for processes, shares in ((3, [1, 1, 1]), (2, [1, 1]), (1, [2])):
            offered = [sock.dup() for sock in chain(*first.values(), first["udp 1"])]
            numbers = [sock.fileno() for sock in offered]
            sockets, faults = bind_all([("127.0.0.1", port)], [], [], processes=processes, offered=offered)
            places = [_identities(sockets[f"udp {place}"]) for place in range(1, processes + 1)]
            assert ([], shares) == (faults, [len(place) for place in places])
            assert _identities([*first["udp 1"], *first["udp 2"]]) == set().union(*places)
            assert _identities(first["tcp"]) == _identities(sockets["tcp"])
            close_all(sockets)

            _, faults = bind_all([("0.0.0.0", port)], [], [], processes=1, offered=[])
            assert {True} == {"Address already in use (see who listens" in fault for fault in faults}
            offered = [socket.socket(fileno=number) for number in numbers]
            _, faults = bind_all([("0.0.0.0", port)], [], [], processes=1, offered=offered)
            itself = f"(this service itself listens on 127.0.0.1:{port}: to change that, restart the service)"
            assert {True} == {fault.endswith(itself) for fault in faults}
            for number in numbers:
                os.close(number)
    finally:
        close_all(first)


def _identities(sockets: Iterable[socket.socket]) -> set[int]:
    return {os.fstat(sock.fileno()).st_ino for sock in sockets}
