"""The PROXY protocol: its headers, who may send them, and whom a connection counts for."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from responder.addresses import UNKNOWN
from responder.connections import WITHOUT_CLIENT, proxyprotocol
from responder.connections.proxyprotocol import MAX_HEADER, MalformedHeader, parse_header, receive_header
from tests.connections.test_connections import TRUSTING, Server, serving
from tests.support.processes import PATIENCE, eventually

PROXY = "127.0.0.200"
"""The trusted proxy of these tests."""

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
REQUEST = b"GET /client HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def binary(command: int, family: int, rest: bytes, *, length: int | None = None) -> bytes:
    """A header of version 2."""
    return SIGNATURE + bytes([command, family]) + (len(rest) if length is None else length).to_bytes(2) + rest


V4 = socket.inet_aton("203.0.113.5") + socket.inet_aton("192.0.2.1") + bytes([0xC0, 0, 1, 0xBB])
V6 = socket.inet_pton(socket.AF_INET6, "2001:db8::5") + bytes(16) + bytes([0xC0, 0, 1, 0xBB])
MAPPED = socket.inet_pton(socket.AF_INET6, "::ffff:203.0.113.5") + bytes(16) + bytes(4)
TLV = b"\x20\x00\x05\x01\x00\x00\x00\x00"

HEADERS = [
    (b"PROXY TCP4 203.0.113.5 192.0.2.1 49152 443\r\n", "203.0.113.5"),
    (b"PROXY TCP6 2001:db8::5 2001:db8::1 49152 443\r\n", "2001:db8::5"),
    (b"PROXY TCP6 ::ffff:203.0.113.5 2001:db8::1 49152 443\r\n", "203.0.113.5"),
    (WITHOUT_CLIENT, UNKNOWN),
    (b"PROXY UNKNOWN ffff:f...f ffff:f...f 65535 65535\r\n", UNKNOWN),
    (binary(0x21, 0x11, V4), "203.0.113.5"),
    (binary(0x21, 0x11, V4 + TLV * 100), "203.0.113.5"),
    (binary(0x21, 0x21, V6), "2001:db8::5"),
    (binary(0x21, 0x21, MAPPED), "203.0.113.5"),
    (binary(0x20, 0x00, b""), PROXY),
    (binary(0x20, 0x11, V4), PROXY),
    (binary(0x21, 0x00, b""), UNKNOWN),
    (binary(0x21, 0x31, bytes(216)), UNKNOWN),
    (binary(0x21, 0x12, V4), UNKNOWN),
]

MALFORMED = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PROXY \r\n",
    b"PROXY\r\n\r\n",
    b"proxy TCP4 203.0.113.5 192.0.2.1 49152 443\r\n",
    b"PROXY TCP4 203.0.113.5 192.0.2.1 49152\r\n",
    b"PROXY TCP4 203.0.113.5 192.0.2.1 49152 65536\r\n",
    b"PROXY TCP4 203.0.113 192.0.2.1 49152 443\r\n",
    b"PROXY TCP4 2001:db8::5 2001:db8::1 49152 443\r\n",
    b"PROXY TCP6 203.0.113.5 192.0.2.1 49152 443\r\n",
    b"PROXY TCP6 fe80::1%eth0 2001:db8::1 49152 443\r\n",
    b"PROXY TCP4 203.0.113.5 nonsense 49152 443\r\n",
    b"PROXY TCP4 " + b"1" * 200,
    b"PROXY UNKNOWN " + b"x" * 100 + b"\r\n",
    b"PROXY \xff\xff\r\n",
    binary(0x11, 0x11, V4),
    binary(0x22, 0x11, V4),
    binary(0x21, 0x11, V4[:-1]),
    binary(0x21, 0x21, V4),
    binary(0x21, 0x11, V4, length=MAX_HEADER),
    SIGNATURE[:-1] + b"\r\r\r",
]


@pytest.mark.parametrize(("header", "expected"), HEADERS)
def test_headers(header: bytes, expected: str) -> None:
    """A header has the address of the client, or reports that the proxy connects for itself or for nobody known."""
    assert expected == parse_header(header, PROXY)


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize(("header", "expected"), HEADERS)
async def test_pieces(header: bytes, expected: str, step: int) -> None:
    """A header may come in pieces, and what follows it stays where it is."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        receiving = asyncio.create_task(receive_header(ours, PROXY))
        octets = header + REQUEST
        for start in range(0, len(octets), step):
            await asyncio.get_running_loop().sock_sendall(theirs, octets[start : start + step])
            await asyncio.sleep(0)
        assert expected == await asyncio.wait_for(receiving, PATIENCE)
        assert ours.recv(4096) == REQUEST


@pytest.mark.parametrize("header", MALFORMED)
async def test_malformed_headers(header: bytes) -> None:
    """What is not a header is a fault as soon as that is certain, and never taken for the start of what follows."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.sendall(header)
        with pytest.raises(MalformedHeader):
            await asyncio.wait_for(receive_header(ours, PROXY), PATIENCE)


@pytest.mark.parametrize("header", [b"", b"PROXY TCP4 203", SIGNATURE, binary(0x21, 0x11, V4[:3], length=12)])
async def test_unfinished_headers(header: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that ends, or sends nothing more, before its header is there is given up."""
    ours, theirs = socket.socketpair()
    with ours:
        ours.setblocking(False)
        with theirs:
            theirs.sendall(header)
            monkeypatch.setattr(proxyprotocol, "HEADER_DEADLINE", 0.01)
            with pytest.raises(TimeoutError):
                await receive_header(ours, PROXY)
            theirs.sendall(header)
        monkeypatch.setattr(proxyprotocol, "HEADER_DEADLINE", PATIENCE)
        with pytest.raises(ConnectionError):
            await receive_header(ours, PROXY)


# On a listener


@pytest.fixture(params=[False, True], ids=["plain", "TLS"])
async def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    """A listener with room for forty connections, four of one client, on which one proxy is trusted."""
    async with serving(monkeypatch, tls=request.param, is_proxy=lambda address: address == PROXY) as served:
        yield served


async def ask(server: Server, header: bytes, address: str = PROXY) -> bytes:
    """The body of the answer to a request behind *header*; nothing if there is no answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, local_addr=(address, 0))
    try:
        writer.write(header)
        if server.tls:
            await writer.start_tls(TRUSTING)
        writer.write(REQUEST)
        answer = await asyncio.wait_for(reader.read(), PATIENCE)
    except OSError:
        return b""
    finally:
        writer.transport.abort()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert not head or head.startswith(b"HTTP/1.1 200 OK")
    return body


@pytest.mark.parametrize(("header", "expected"), HEADERS)
async def test_clients_behind_the_proxy(server: Server, header: bytes, expected: str) -> None:
    """The application sees the client of the proxy, with and without TLS behind the header."""
    assert expected.encode() == await ask(server, header)


async def test_who_may_connect(server: Server) -> None:
    """Only the proxy may, and the machine itself, which sends no header; others are refused, counted and logged."""
    header, expected = HEADERS[0]
    assert b"" == await ask(server, header, "127.0.0.9")
    assert b"" == await ask(server, b"", "127.0.0.9")
    assert 2 == server.closed("not-a-proxy")
    (report,) = server.reports("only api.trusted_proxies may connect")
    assert "127.0.0.9" == report["client"]
    assert b"127.0.0.1" == await ask(server, b"", "127.0.0.1")
    assert b"" == await ask(server, header, "127.0.0.1") if server.tls else True
    assert expected.encode() == await ask(server, header)


async def test_a_proxy_without_a_header(server: Server) -> None:
    """A trusted proxy that does not speak the protocol is not served, and the log has the reason."""
    assert b"" == await ask(server, b"")
    await eventually(lambda: server.closed("proxy-header") == 1, "it is counted")
    (report,) = server.reports("did not begin with a header")
    assert PROXY == report["client"]


async def test_health_checks_are_silent(server: Server) -> None:
    """A proxy that connects and goes, to see whether the port is open, is counted, and not in the log."""
    server.connect(PROXY).close()
    await eventually(lambda: server.closed("handshake") == 1, "it is counted")
    assert [] == server.logs


async def test_each_client_counts_for_itself(server: Server) -> None:
    """A client behind the proxy that takes all it can leaves room for the others; the proxy has no share."""
    for _ in range(8):
        greedy = server.connect(PROXY)
        await server.send(greedy, b"PROXY TCP4 203.0.113.5 192.0.2.1 1 2\r\n")
    await eventually(lambda: server.closed("evicted") == 4, "it has its share")
    waiting = [server.connect(PROXY) for _ in range(20)]
    await eventually(lambda: len(server.runner.places) == 24, "connections without a header yet are not a client's")
    for number in range(6, 16):
        header = b"PROXY TCP4 198.51.100.%d 192.0.2.1 1 2\r\n" % number
        assert b"198.51.100.%d" % number == await ask(server, header)
    (report,) = server.reports("closed to make room")
    assert ("203.0.113.5", 4) == (report["client"], report["connections"])
    for sock in waiting:
        sock.close()


async def test_stopping_with_headers_to_come(server: Server) -> None:
    """The end of the service does not wait for headers."""
    waiting = [server.connect(PROXY) for _ in range(5)]
    await eventually(lambda: len(server.runner.places) == 5, "they are accepted")
    await server.runner.cleanup()
    assert 0 == len(server.runner.places)
    assert [b""] * 5 == [await server.read(sock) for sock in waiting]
