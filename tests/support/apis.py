"""A server in the place of the API, for tests of whoever only asks it for `/health`."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from responder.api.tls import ServerTls
from responder.tls.keypair import KeyPair


@asynccontextmanager
async def serving(pair: KeyPair | None = None, *, status: int = 200) -> AsyncIterator[int]:
    """Answers `/health`, with TLS if there is a *pair*; yields its port on 127.0.0.1."""

    async def health(_: web.Request) -> web.Response:
        return web.Response(status=status)

    app = web.Application()
    app.router.add_get("/health", health)
    runner = web.AppRunner(app)
    await runner.setup()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        await web.SockSite(runner, listener, ssl_context=ServerTls(pair).context if pair else None).start()
        yield listener.getsockname()[1]
        await runner.cleanup()
