"""
The sockets of the service: bound here, inherited from systemd, or taken over in a reload.

All sockets are bound before any process is started, and all faults are reported together.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from responder.process import systemd

UDP_RECEIVE_BUFFER = 4 << 20
"""Octets asked of the kernel for waiting datagrams: a burst, or the second that a restart takes."""

TCP_BACKLOG = 1024

# linux/in.h and linux/in6.h; the socket module does not name them.
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_OMIT = 10, 23, 5
_IP_FREEBIND = 15
"""Bind to an address that no interface has yet (ip(7)); for IPv6, too."""

SocketAddress = tuple[str, int]
"""Host and port."""

RESTART_UNITS = "systemctl daemon-reload && systemctl restart responder.socket responder"

_MEETING_RESOLVED = [("0.0.0.0", 53), ("127.0.0.53", 53)]
_UDP_SOCKETS, _RESOLVED_STUB = "/proc/thread-self/net/udp", "3500007F:0035"
"""The UDP sockets of this network, and how 127.0.0.53:53 is written there (proc(5))."""

Bound = tuple[socket.SocketKind, SocketAddress]
Sockets = dict[str, list[socket.socket]]


def bind_all(
    dns: Sequence[SocketAddress],
    api: Sequence[SocketAddress],
    admin: Sequence[SocketAddress],
    *,
    processes: int,
    free: Collection[str] = (),
    offered: Iterable[socket.socket] | None = None,
) -> tuple[Sockets, list[str]]:
    """
    Sockets by purpose ("udp 1" and so on for each process, "tcp", "api", "admin"), and what could not be bound.

    Those of a section in *free* ("dns", "api", "admin") may have addresses that this machine gets later.

    A socket *offered* that has the address is taken; without an offer, those of systemd are. If there are fewer of them
    than processes, processes share them, because a new one would take a part of the packets before it is read; if there
    are more, a process reads from several, because those that wait in a socket are lost when it is closed.
    """
    there_already = [*(systemd.inherited_sockets() if offered is None else offered)]
    found = _by_address(there_already)
    sockets: Sockets = {f"udp {place}": [] for place in range(1, processes + 1)}
    sockets |= {"tcp": [], "api": [], "admin": []}
    faults: list[str] = []

    def bind(purpose: str, section: str, kind: socket.SocketKind, address: SocketAddress, place: int = 0) -> None:
        host, port = address  # a list, where it was read from JSON
        if there := found.get((kind, (host, port)), []):
            ours = there[place::processes] if kind == socket.SOCK_DGRAM else there[:1]
            sockets[purpose] += [_prepared(sock.dup()) for sock in ours or [there[place % len(there)]]]
            return
        shared = kind == socket.SOCK_DGRAM and processes > 1
        try:
            sockets[purpose].append(_bind(kind, (host, port), shared=shared, free=section in free))
        except OSError as fault:
            text = f"cannot listen on {_text(host, port)} ({purpose.split()[0]}, {section}.listen)"
            rivals = [other for other_kind, other in found if (other_kind, other[1]) == (kind, port)]
            rivals = [other for other in rivals if (":" in other[0]) == (":" in host)]
            fix = _fix_unit(fault, (kind, (host, port)), rivals) if found and offered is None else ""
            faults.append(f"{text}: {fault.strerror}{fix or _fix(fault, section, (host, port), rivals)}")

    for place in range(processes):
        for address in dns:
            bind(f"udp {place + 1}", "dns", socket.SOCK_DGRAM, address, place)
    for purpose, section, addresses in (("tcp", "dns", dns), ("api", "api", api), ("admin", "admin", admin)):
        for address in addresses:
            bind(purpose, section, socket.SOCK_STREAM, address)
    for sock in there_already:
        sock.detach()  # they stay open: the next program in this process may want them, too
    return sockets, list(dict.fromkeys(faults))


def _by_address(sockets: Iterable[socket.socket]) -> dict[Bound, list[socket.socket]]:
    """*sockets* by kind and address; of those that are one and the same, only the first."""
    found: dict[Bound, dict[int, socket.socket]] = {}
    for sock in sockets:
        host, port = sock.getsockname()[:2]
        found.setdefault((sock.type, (host, port)), {}).setdefault(os.fstat(sock.fileno()).st_ino, sock)
    return {bound: [*same.values()] for bound, same in found.items()}


def left_over(addresses: Collection[Bound]) -> list[str]:
    """What the socket unit has open that is not among *addresses*: clients would wait there, and nothing reads it."""
    inherited = systemd.inherited_sockets()
    unread = [bound for bound in _by_address(inherited) if bound not in addresses]
    for sock in inherited:
        sock.detach()
    return [
        f"the socket unit has {_line(*bound)}, but no listen setting has that address, so nothing answers there: "
        f"remove the line, or add the address; then run `{RESTART_UNITS}`"
        for bound in unread
    ]


def close_all(sockets: Sockets) -> None:
    for sock in itertools.chain(*sockets.values()):
        sock.close()


def is_here(host: str) -> bool:
    """Whether this machine has the address now. The wildcard addresses count as present."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((host, 0))
        except OSError as fault:
            return fault.errno != errno.EADDRNOTAVAIL
    return True


def _bind(kind: socket.SocketKind, address: SocketAddress, *, shared: bool, free: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    sock = socket.socket(family, kind)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # so that [::] and 0.0.0.0 live side by side
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if free:
            sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        sock.bind(address)
        return _prepared(sock)
    except BaseException:
        sock.close()
        raise


def _prepared(sock: socket.socket) -> socket.socket:
    """*sock*, which is bound, as the processes expect it."""
    if sock.type == socket.SOCK_STREAM:
        sock.listen(TCP_BACKLOG)
    else:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UDP_RECEIVE_BUFFER)
        _never_fragment(sock)
    sock.setblocking(False)
    return sock


def _never_fragment(sock: socket.socket) -> None:
    """Ignore the path MTU, which ICMP messages can forge: all replies are short enough for any path (RFC 9715)."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_OMIT)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_OMIT)


def _line(kind: socket.SocketKind, address: SocketAddress) -> str:
    """As systemd.socket(5) has it."""
    return f"{'ListenStream' if kind == socket.SOCK_STREAM else 'ListenDatagram'}={_text(*address)}"


def _fix_unit(fault: OSError, bound: Bound, rivals: Sequence[SocketAddress]) -> str:
    """How to fix *fault* where systemd has bound other sockets; "" if that has nothing to do with it."""
    if fault.errno == errno.EADDRINUSE and rivals:
        there = _line(bound[0], rivals[0])
        return f" (the socket unit has {there} instead of {_line(*bound)}: change it, and run `{RESTART_UNITS}`)"
    if isinstance(fault, PermissionError):
        return f" (the socket unit has no {_line(*bound)}: add it, and run `{RESTART_UNITS}`)"
    return ""


def _has_resolved_stub() -> bool:
    """Whether systemd-resolved's stub listens here (systemd-resolved.service(8))."""
    try:
        table = Path(_UDP_SOCKETS).read_text("ascii").splitlines()
    except OSError:
        return False
    return any(line.split()[1:2] == [_RESOLVED_STUB] for line in table)


def _text(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _fix(fault: OSError, section: str, address: SocketAddress, rivals: Sequence[SocketAddress]) -> str:
    """How to fix *fault*; *rivals* are the addresses at which this very service has that port."""
    if fault.errno == errno.EADDRINUSE and rivals:
        return f" (this service itself listens on {_text(*rivals[0])}: to change that, restart the service)"
    if fault.errno == errno.EADDRINUSE and address in _MEETING_RESOLVED and _has_resolved_stub():
        return (
            " (systemd-resolved listens on 127.0.0.53:53: write the public addresses of this machine into "
            f"{section}.listen instead of 0.0.0.0, or set DNSStubListener=no in /etc/systemd/resolved.conf)"
        )
    if fault.errno == errno.EADDRINUSE:
        return " (see who listens there with `ss -lntup`, and stop that, or choose another address)"
    if isinstance(fault, PermissionError):
        return " (ports below 1024 need root, CAP_NET_BIND_SERVICE, or net.ipv4.ip_unprivileged_port_start)"
    if fault.errno == errno.EADDRNOTAVAIL:
        return (
            " (no interface here has it, see `ip address`: behind NAT write the private address, or 0.0.0.0; "
            f"for an address that comes later, set {section}.free_bind = true)"
        )
    if fault.errno == errno.EAFNOSUPPORT:
        return " (this machine has no IPv6: take the address out of that setting)"
    return ""
