"""
A box between resolvers and a nameserver, such as a load balancer or a firewall: passes packets on, or spoils them.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

Change = Callable[[bytes], bytes | None]
"""What becomes of a query; None: it is dropped."""

_PATIENCE = 5.0
"""Seconds until the nameserver behind is given up."""


def unchanged(query: bytes) -> bytes | None:
    """As boxes should be."""
    return query


def lower_case(query: bytes) -> bytes | None:
    """Lower-case the name that is asked for: the octets of lengths and types in a question are no letters."""
    return query[:12] + query[12:].lower()


def without_edns(query: bytes) -> bytes | None:
    """Drop what has an additional section, as firewalls of old do."""
    return query if query[10:12] == b"\0\0" else None


@contextmanager
def passing(address: str, nameserver: str, change: Change = unchanged, *, tcp: bool = True) -> Iterator[None]:
    """Stand at *address*, port 53, before a *nameserver* at its port 53; without *tcp*, nobody listens there."""

    class Datagram(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            query, reply_to = self.request
            with contextlib.suppress(OSError), socket.socket(type=socket.SOCK_DGRAM) as behind:
                behind.settimeout(_PATIENCE)
                behind.connect((nameserver, 53))
                if (passed := change(query)) is not None:
                    behind.send(passed)
                    reply_to.sendto(behind.recv(65_535), self.client_address)

    class Connection(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError), socket.create_connection((nameserver, 53), _PATIENCE) as behind:
                self.request.settimeout(_PATIENCE)
                threading.Thread(target=_copy, args=(behind, self.request), daemon=True).start()
                _copy(self.request, behind)

    with ExitStack() as stack:
        servers: list[socketserver.BaseServer] = [_Datagrams((address, 53), Datagram)]
        if tcp:
            servers.append(_Connections((address, 53), Connection))
        for server in servers:
            stack.enter_context(server)
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            stack.callback(server.shutdown)
        yield


class _Datagrams(socketserver.ThreadingUDPServer):
    daemon_threads = True


class _Connections(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(65_535):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)
