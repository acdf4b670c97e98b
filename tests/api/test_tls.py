"""The API over TLS: what is spoken, what is cut off, and certificates that change while connections stand."""

from __future__ import annotations

import asyncio
import socket
import ssl
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
import structlog
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from responder import metrics
from responder.api import build_runner, tls
from responder.api.tls import ServerTls, require_https
from responder.connections import Runner, connection, listener, runner
from responder.errors import Invalid
from responder.names import Name
from responder.tls.keypair import KeyPair
from tests.support.keypairs import key_pair
from tests.support.networks import network
from tests.support.processes import PATIENCE, eventually

HOST = "api.acme.example.com"
DAY = timedelta(days=1)
RSA = rsa.generate_private_key(65537, 2048)


@dataclass(frozen=True)
class Client:
    """A connection, and what came of its handshake."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def shown(self) -> x509.Certificate:
        return x509.load_der_x509_certificate(self.writer.get_extra_info("ssl_object").getpeercert(binary_form=True))

    async def get(self) -> list[str]:
        """The head of the answer to one request; the connection stays."""
        self.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), PATIENCE)).decode().splitlines()
        await self.reader.readexactly(2)
        return head

    async def close(self) -> None:
        self.writer.transport.abort()
        await asyncio.gather(self.writer.wait_closed(), return_exceptions=True)


def trusting_context() -> ssl.SSLContext:
    """For a client that does not ask who signed what it is shown."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@dataclass
class Server:
    """An application that answers "ok", over TLS and, on another port, without."""

    tls: ServerTls
    port: int
    plain_port: int
    runner: Runner

    def held(self) -> int:
        """How many connections there are."""
        return len(self.runner.places)

    @asynccontextmanager
    async def client(self, *, hostname: str = HOST, version: ssl.TLSVersion | None = None) -> AsyncIterator[Client]:
        """A client that trusts anybody, and speaks only *version* if that is given."""
        context = trusting_context()
        if version is not None:
            context.minimum_version = context.maximum_version = version
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port, ssl=context, server_hostname=hostname))
        try:
            yield client
        finally:
            await client.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    app = web.Application()
    app.router.add_get("/", answer)
    app.on_response_prepare.append(require_https(600))
    runner = build_runner(app, name="api", drain=0.1)
    await runner.setup()
    tls = ServerTls(key_pair(HOST))
    with socket.create_server(("127.0.0.1", 0)) as sock, socket.create_server(("127.0.0.1", 0)) as plain:
        await runner.listen(sock, tls.context)
        await runner.listen(plain)
        yield Server(tls, sock.getsockname()[1], plain.getsockname()[1], runner)
        await runner.cleanup()


# What is spoken


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("hostname", [HOST, "other.example.com", ""], ids=["our name", "another name", "no name"])
async def test_versions(server: Server, version: ssl.TLSVersion, hostname: str) -> None:
    """TLS 1.2 and 1.3 are spoken, whatever name the client asks for, with ciphers that keep the past a secret."""
    async with server.client(hostname=hostname, version=version) as client:
        cipher, _, _ = client.writer.get_extra_info("cipher")

        assert "HTTP/1.1 200 OK" == (await client.get())[0]
        assert server.tls.pair.leaf == client.shown
        assert cipher.startswith("TLS_" if version == ssl.TLSVersion.TLSv1_3 else "ECDHE-")
        assert cipher.endswith(("GCM-SHA384", "GCM_SHA384", "GCM-SHA256", "GCM_SHA256", "POLY1305_SHA256"))


@pytest.mark.parametrize(
    ("version", "ciphers"),
    [
        (ssl.TLSVersion.TLSv1_1, "ALL:@SECLEVEL=0"),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES128-SHA"),
        (ssl.TLSVersion.TLSv1_2, "AES128-GCM-SHA256"),
    ],
    ids=["old version", "no authenticated encryption", "no forward secrecy"],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
async def test_what_is_not_spoken(server: Server, version: ssl.TLSVersion, ciphers: str) -> None:
    """Old versions and ciphers are refused; the next client is served."""
    context = trusting_context()
    context.set_ciphers(ciphers)
    context.minimum_version = context.maximum_version = version
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", server.port, ssl=context)

    async with server.client() as client:
        assert "HTTP/1.1 200 OK" == (await client.get())[0]


async def test_keep_alive_and_hsts(server: Server) -> None:
    """A connection serves many requests. Over TLS they are told to stay with it, without TLS they are not."""
    async with server.client() as client:
        for _ in range(3):
            assert "Strict-Transport-Security: max-age=600" in await client.get()
    plain = Client(*await asyncio.open_connection("127.0.0.1", server.plain_port))
    head = await plain.get()
    await plain.close()

    assert "HTTP/1.1 200 OK" == head[0]
    assert "Strict-Transport-Security" not in str(head)


# A certificate that changes


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_another_certificate(server: Server, version: ssl.TLSVersion) -> None:
    """New handshakes show the new certificate, also one with another kind of key; what stands goes on."""
    async with server.client(version=version) as old:
        await old.get()
        for replacement in (key_pair(HOST), key_pair(HOST, key=RSA), key_pair(HOST)):
            before = server.tls.pair.leaf
            server.tls.use(replacement)
            async with server.client(version=version) as new:
                assert "HTTP/1.1 200 OK" == (await new.get())[0]
                assert before != replacement.leaf == new.shown
        assert "HTTP/1.1 200 OK" == (await old.get())[0]


async def test_a_certificate_that_tls_refuses(server: Server) -> None:
    """A pair that is one, but too weak for TLS, is refused in one line; the old one goes on."""
    before = server.tls.pair
    weak = key_pair(HOST, key=rsa.generate_private_key(65537, 1024))

    with pytest.raises(Invalid, match=r"^TLS cannot use the certificate: ee key too small$"):
        server.tls.use(weak)

    async with server.client() as client:
        assert before.leaf == server.tls.pair.leaf == client.shown


async def test_expiry_is_shown(server: Server) -> None:
    """The metrics tell when the certificate in use expires."""
    server.tls.use(pair := key_pair(HOST))

    (line,) = (line for line in metrics.expose().decode().splitlines() if line.startswith("responder_certificate_"))

    name, _, value = line.partition(" ")
    assert 'responder_certificate_expiry_timestamp_seconds{kind="self-signed"}' == name
    assert pair.not_after.timestamp() == float(value)


# What is cut off


async def test_slow_handshakes(server: Server) -> None:
    """Who does not finish a handshake is cut off, whether nothing came or half of it."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        await server.runner.listen(sock, server.tls.context, deadline=0.05)
        for sent in (b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"):
            reader, writer = await asyncio.open_connection(*sock.getsockname())
            writer.write(sent)
            assert b"" == await asyncio.wait_for(reader.read(), PATIENCE)
            writer.close()
            await writer.wait_closed()


async def test_memory_of_handshakes(server: Server) -> None:
    """They are anybody's to begin, many at once: each takes little more than a record has."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(20)]
        await eventually(lambda: server.held() == 20, "all are there")
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    for _, writer in held:
        writer.transport.abort()
    await eventually(lambda: server.held() == 0, "all are gone")

    assert (after - before) / 20 < 64 << 10


async def test_no_request_after_the_handshake(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline for the first request holds over TLS as it does without."""
    monkeypatch.setattr(connection, "HEAD_DEADLINE", 0.05)
    async with server.client() as client:
        client.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX")
        assert b"" == await asyncio.wait_for(client.reader.read(), PATIENCE)


async def test_no_goodbye(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that takes no notice of the end of its connection is cut off."""
    monkeypatch.setattr(connection, "HEAD_DEADLINE", 0.05)
    monkeypatch.setattr(listener, "FAREWELL_DEADLINE", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        await server.runner.listen(sock, server.tls.context)
        raw = socket.create_connection(sock.getsockname())
        raw.setblocking(True)
        silent = await asyncio.to_thread(trusting_context().wrap_socket, raw)
        with silent:
            await eventually(lambda: server.held() == 0, "the connection is closed")


async def test_plain_http_on_the_tls_port(server: Server) -> None:
    """Who speaks plain HTTP, or nonsense, is hung up on at once; everybody else is served."""
    async with server.client() as standing:
        for sent in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\0" * 5_000, b"SSH-2.0-x\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(sent)
            await asyncio.gather(asyncio.wait_for(reader.read(), PATIENCE), return_exceptions=True)
            assert reader.at_eof() or reader.exception() is not None
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)
        assert "HTTP/1.1 200 OK" == (await standing.get())[0]
    await eventually(lambda: server.held() == 0, "nobody is counted any more")


async def test_unfinished_handshakes_count(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address has a number of handshakes under way; for one more, the oldest is ended, and not counted any more."""
    monkeypatch.setattr(runner, "MAX_CONNECTIONS", 30)
    held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
    await eventually(lambda: server.held() == 3, "all three are there")
    async with server.client() as one_more:
        assert b"" == await asyncio.wait_for(held[0][0].read(), PATIENCE)
        assert "HTTP/1.1 200 OK" == (await one_more.get())[0]
        assert server.held() == 3
    for _, writer in held:
        writer.close()
        await writer.wait_closed()
    await eventually(lambda: server.held() == 0, "all are gone")
    monkeypatch.setattr(runner, "MAX_CONNECTIONS", 60)

    async with AsyncExitStack() as stack:
        for number in range(1, 6):
            client = await stack.enter_async_context(server.client())
            assert "HTTP/1.1 200 OK" == (await client.get())[0]
            assert number == server.held()


async def test_an_ipv6_network_is_one_client(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that has a /64 has no more handshakes or connections than one with one address."""
    own = [f"2001:db8::{number}:1" for number in range(4)]
    async with AsyncExitStack() as stack:
        elsewhere = stack.enter_context(network(["2001:db8:ffff::1", "2001:db8:0:1::1", *own]))

        async def client(source: str, address: tuple[str, int], context: ssl.SSLContext | None = None) -> Client:
            sock = elsewhere.socket(source)
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, address)
            hostname = HOST if context else None
            made = Client(*await asyncio.open_connection(sock=sock, ssl=context, server_hostname=hostname))
            stack.push_async_callback(made.close)
            return made

        for tls in (server.tls.context, None):
            with monkeypatch.context() as patch:
                patch.setattr(runner, "MAX_CONNECTIONS", 30)
                patch.setattr(connection, "HEAD_DEADLINE", 2 * PATIENCE)
                sock = elsewhere.socket("2001:db8:ffff::1")
                sock.listen()
                await server.runner.listen(sock, tls, deadline=2 * PATIENCE)
                clients = [await client(source, sock.getsockname()[:2]) for source in own]
                assert b"" == await asyncio.wait_for(clients[0].reader.read(), PATIENCE)
                neighbour = await client("2001:db8:0:1::1", sock.getsockname()[:2], tls and trusting_context())
                assert "HTTP/1.1 200 OK" == (await neighbour.get())[0]


async def test_connections_count_after_their_handshakes(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit for connections holds over TLS as it does without."""
    monkeypatch.setattr(runner, "MAX_CONNECTIONS", 10)
    async with server.client() as client:
        await client.get()
        async with server.client() as one_more:
            assert "HTTP/1.1 200 OK" == (await one_more.get())[0]
            assert b"" == await asyncio.wait_for(client.reader.read(), PATIENCE)


async def test_what_clients_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A certificate that clients refuse is logged for as long as it is shown: one of our own making, one that has expired
    or is not valid yet, one for another name.
    """
    monkeypatch.setattr(tls, "CERTIFICATE_INTERVAL", 0.001)
    now = datetime.now(UTC)
    server = ServerTls(KeyPair.self_signed(Name.parse(HOST), now=now), Name.parse(HOST))
    good = key_pair(HOST, begins=now - DAY, lifetime=90 * DAY)
    watching = asyncio.create_task(server.watch(lambda: now))
    with structlog.testing.capture_logs() as logged:
        for shown, count in (
            (None, 1),
            (key_pair(HOST, begins=now - 6 * 365 * DAY), 2),
            (key_pair(HOST, begins=now + DAY), 3),
            (key_pair("other.example.com"), 4),
            (good, 5),
        ):
            if shown is not None:
                server.use(shown)
            await eventually(lambda count=count: len(logged) == count, "it is logged")  # type: ignore[misc]
        now += 90 * DAY
        await eventually(lambda: len(logged) == 6, "it has expired while it was shown")
    watching.cancel()

    refused, accepted = "clients reject the API's certificate", "clients accept the API's certificate again"
    assert [
        (refused, "error", "it is self-signed, because no certificate has been issued yet"),
        (refused, "error", "it has expired"),
        (refused, "error", "it is not valid yet, or the clock of this machine is behind"),
        (refused, "error", f"it is not for {HOST}"),
        (accepted, "warning", None),
        (refused, "error", "it has expired"),
    ] == [(event["event"], event["log_level"], event.get("reason")) for event in logged]


def test_without_a_name() -> None:
    """Where nobody says which name clients use, any is right."""
    server = ServerTls(KeyPair.self_signed(None, now=datetime.now(UTC)))
    server.use(key_pair("other.example.com"))

    assert "" == server.refusal(now=datetime.now(UTC))
