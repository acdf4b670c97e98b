"""The API of a responder, whose answers are at a test's will: what the real one does is tested with that."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.support.kubernetes.api import load_pair
from tests.support.kubernetes.certificates import Pair
from tests.support.kubernetes.cluster import SECRET

TOKEN = "rsp_" + "t" * 43
"""A token as issuers' Secrets hold it."""


def problem(status: int, kind: str, detail: str) -> web.Response:
    """An error as the API of a responder has it."""
    document = {"type": f"urn:responder:problem:{kind}", "title": "No", "status": status, "detail": detail}
    return web.json_response(document, status=status, content_type="application/problem+json")


@dataclass
class FakeResponder:
    """The API of a responder, as far as the webhook asks it."""

    answer: Callable[[Mapping[str, str]], web.Response] | None = None
    """Makes an answer from the body of a request; without, everything succeeds."""

    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """Path, Authorization and body of each."""

    pause: Callable[[], Awaitable[None]] | None = None
    """Comes before an answer."""

    port: int = 0
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.json()
        self.requests.append((request.path, request.headers["Authorization"], body))
        if self.pause is not None:
            await self.pause()
        if self.answer is not None:
            return self.answer(body)
        return web.json_response({"fqdn": body["fqdn"], "value": body["value"], "serial": 1, "expires_at": None})

    @property
    def config(self) -> dict[str, Any]:
        """What an issuer says to use it."""
        return {"url": self.url, "tokenSecretRef": {"name": SECRET, "key": "token"}}

    @asynccontextmanager
    async def listening(self, pair: Pair | None = None) -> AsyncIterator[None]:
        context = None
        if pair is not None:
            self.scheme, context = "https", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            load_pair(context, pair)
        runner = web.ServerRunner(web.Server(self.handle), shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
            self.port = runner.addresses[0][1]
            yield
        finally:
            await runner.cleanup()
