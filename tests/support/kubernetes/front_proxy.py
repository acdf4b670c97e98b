"""
kube-apiserver's aggregator, as an aggregated API server sees it: a TLS client with the front proxy's certificate, whose
headers say for whom it speaks. It keeps connections and uses them again, as Go's client does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.kubernetes.api import load_pair
from tests.support.kubernetes.certificates import Pair

Headers = Sequence[tuple[str, str]]

AGGREGATED = ",".join(
    f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList" for version in ("v2", "v2beta1")
)
"""What aggregated discovery accepts."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Identity:
    """For whom a request is made, as kube-apiserver tells it in its headers."""

    user: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: tuple[tuple[str, str], ...] = ()
    """Keys percent-encoded, in the letter case that Go gives to headers."""

    def headers(self) -> Headers:
        return [
            ("X-Remote-User", self.user),
            *(("X-Remote-Group", group) for group in self.groups),
            *([("X-Remote-Uid", self.uid)] if self.uid else []),
            *((f"X-Remote-Extra-{key}", value) for key, value in self.extra),
        ]


AVAILABILITY = Identity("system:kube-aggregator", ("system:masters",))
DISCOVERY = Identity("system:kube-aggregator")
OPENAPI = Identity("system:aggregator")


@dataclass
class FrontProxy:
    """A client of the API server at *port*, whose certificate *trusted* (PEM) has signed; without *pair*, nobody's."""

    port: int
    trusted: str
    pair: Pair | None
    server_name: str = "responder-webhook.responder.svc"
    host: str = "127.0.0.1"
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)

    async def send(self, method: str, path: str, headers: Headers = (), body: bytes = b"") -> Reply:
        """One request, on a connection that is idle, or else on a new one. Raises `OSError` and `EOFError`."""
        reader, writer = self.idle.pop() if self.idle else await self._connect()
        try:
            lines = [
                f"{method} {path} HTTP/1.1",
                "Host: 10.0.0.7:8443",
                *(f"{name}: {value}" for name, value in headers),
            ]
            if body:
                lines.append(f"Content-Length: {len(body)}")
            writer.write("\r\n".join([*lines, "", ""]).encode() + body)
            reply = await _receive(reader)
        except BaseException:
            await _close(writer)
            raise
        if reply.headers.get("connection") == "close":
            await _close(writer)
        else:
            self.idle.append((reader, writer))
        return reply

    async def get(self, path: str, identity: Identity, *headers: tuple[str, str]) -> Reply:
        """A GET for *identity*."""
        return await self.send("GET", path, [*headers, *identity.headers(), ("X-Forwarded-For", "10.0.0.1")])

    async def is_available(self, path: str) -> bool:
        """The availability check: one 2xx out of five parallel requests will do."""
        replies = await asyncio.gather(*(self.get(path, AVAILABILITY) for _ in range(5)), return_exceptions=True)
        return any(isinstance(reply, Reply) and 200 <= reply.status < 300 for reply in replies)

    async def close(self) -> None:
        while self.idle:
            await _close(self.idle.pop()[1])

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = ssl.create_default_context(cadata=self.trusted)
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # as Go, and Python before 3.13
        context.set_alpn_protocols(["h2", "http/1.1"])
        if self.pair is not None:
            load_pair(context, self.pair)
        return await asyncio.open_connection(self.host, self.port, ssl=context, server_hostname=self.server_name)


@contextlib.asynccontextmanager
async def front_proxy(port: int, trusted: str, pair: Pair | None, **options: Any) -> AsyncIterator[FrontProxy]:
    """A front proxy whose connections are closed in the end."""
    proxy = FrontProxy(port, trusted, pair, **options)
    try:
        yield proxy
    finally:
        await proxy.close()


async def _receive(reader: asyncio.StreamReader) -> Reply:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode().rstrip().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Reply(int(first.split()[1]), headers, body)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):  # the other end may be quicker
        await writer.wait_closed()
