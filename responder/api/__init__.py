"""
The HTTP edge: what ACME clients call, and, on its own listener, what orchestrators ask.

It authenticates, reads the request, and asks `challenges`. `bodies` reads what clients send, `problems` turns errors
into problem documents, `health` is the admin listener; nothing here decides what a token may do.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from math import inf
from pathlib import Path

import structlog
from aiohttp import web

from responder.access import Digest, Grant, Token, describe, digest
from responder.api.bodies import Body, read_body
from responder.api.connections import Runner
from responder.api.health import build_admin
from responder.api.problems import answer_with_problems
from responder.challenges import Challenges
from responder.errors import Refused, Unauthenticated
from responder.store import Action, Outcome, Store

__all__ = ["Authenticator", "Runner", "build_admin", "build_api"]

MAX_BODY = 16 << 10
"""Octets of a request body. The largest honest one is well below 1 KiB."""

TOKEN_MEMORY = 0.9
"""Seconds that a token is remembered: a revocation takes effect within them."""

TOKEN_FRESH = 0.4
"""Seconds after which a token that is used is looked up again, while the one remembered still serves."""

MAX_REMEMBERED_TOKENS = 10_000


class Authenticator:
    """
    Finds the token that a request presents.

    It remembers it for a moment and shares one look-up among all who wait for it, so that a burst costs one.
    """

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._remembered: OrderedDict[Digest, tuple[float, Token | None]] = OrderedDict()
        self._looking: dict[Digest, asyncio.Task[Token | None]] = {}

    async def find(self, request: web.Request) -> Token:
        """The token, whatever its state: `Token.admit` decides. Raises `Unauthenticated`, `StoreUnavailable`."""
        token = await self._find(digest(_presented_secret(request)))
        if token is None:
            raise Unauthenticated("this token is not known here: check that it was copied whole, with its rsp_ prefix")
        return token

    async def _find(self, key: Digest) -> Token | None:
        found_at, token = self._remembered.get(key, (-inf, None))
        age = self._clock() - found_at
        if age < TOKEN_FRESH:
            return token
        looking = self._looking.get(key)
        if looking is None:
            looking = self._looking[key] = asyncio.create_task(self._look_up(key))
        if age < TOKEN_MEMORY:
            looking.add_done_callback(_forgive)
            return token
        return await asyncio.shield(looking)  # others may wait for it when this client has gone

    async def _look_up(self, key: Digest) -> Token | None:
        started = self._clock()
        try:
            token = await self._store.find_token(key)
        finally:
            del self._looking[key]
        self._remembered[key] = (started, token)
        self._remembered.move_to_end(key)
        if len(self._remembered) > MAX_REMEMBERED_TOKENS:
            self._remembered.popitem(last=False)
        return token


class Routes:
    """The handlers of the API listener."""

    def __init__(self, store: Store, challenges: Challenges, *, max_lifetime: timedelta) -> None:
        self._store = store
        self._challenges = challenges
        self._authenticator = Authenticator(store)
        self._max_lifetime = max_lifetime

    async def present(self, request: web.Request) -> web.Response:
        token, grant, body = await self._permit(request, Action.PRESENT)
        outcome = await self._challenges.present(
            token,
            grant,
            body.value,
            client=_client(request),
            lifetime=body.lifetime,
            acme_token=body.acme_token,
        )
        return _challenge_response(grant, body.value, outcome)

    async def cleanup(self, request: web.Request) -> web.Response:
        token, grant, body = await self._permit(request, Action.CLEANUP)
        outcome = await self._challenges.cleanup(token, grant, body.value, client=_client(request))
        return _challenge_response(grant, body.value, outcome)

    async def token(self, request: web.Request) -> web.Response:
        token = await self._authenticator.find(request)
        self._admit(request, token, Action.AUTHENTICATE)
        values = [
            {"hostname": str(v.hostname), "value": v.value, "expires_at": v.expires_at.isoformat()}
            for v in await self._store.values(token.id)
        ]
        return web.json_response(describe(token) | {"values": values})

    async def _permit(self, request: web.Request, action: Action) -> tuple[Token, Grant, Body]:
        """Who wants what, and the grant that lets them. What a known token is refused is put on record."""
        token = await self._authenticator.find(request)
        self._admit(request, token, action)
        body = await read_body(request, max_lifetime=self._max_lifetime)
        try:
            return token, token.grant_for(body.name), body
        except Refused as refusal:
            self._challenges.note_refusal(token, action, refusal, client=_client(request))
            raise

    def _admit(self, request: web.Request, token: Token, action: Action) -> None:
        try:
            token.admit(_client(request), now=datetime.now(UTC))
        except Refused as refusal:
            self._challenges.note_refusal(token, action, refusal, client=_client(request))
            raise


def build_api(store: Store, challenges: Challenges, *, max_lifetime: timedelta) -> web.Application:
    """The application on the API listener."""
    routes = Routes(store, challenges, max_lifetime=max_lifetime)
    app = web.Application(client_max_size=MAX_BODY, middlewares=[answer_with_problems])
    app.router.add_post("/present", routes.present)
    app.router.add_post("/cleanup", routes.cleanup)
    app.router.add_get("/v1/token", routes.token)
    app.router.add_get("/openapi.json", _describe_routes())
    return app


def _describe_routes() -> Callable[[web.Request], Awaitable[web.Response]]:
    description = Path(__file__).with_name("openapi.json").read_bytes()

    async def openapi(_: web.Request) -> web.Response:
        return web.Response(body=description, content_type="application/json")

    return openapi


def _forgive(look_up: asyncio.Task[Token | None]) -> None:
    """A look-up ahead of time may fail: the next one, which somebody waits for, tells."""
    if not look_up.cancelled():
        look_up.exception()


def _client(request: web.Request) -> str:
    """The address of whoever holds the connection: headers such as X-Forwarded-For are anybody's to write."""
    return request.remote or ""


def _presented_secret(request: web.Request) -> str:
    """The secret in the request's headers: Bearer, the password of Basic, or acme-dns's X-Api-Key."""
    if len(request.headers.getall("Authorization", ())) > 1:
        raise Unauthenticated("there are several Authorization headers: send one")
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and credentials:
        return credentials.strip()
    if scheme.lower() == "basic":
        try:
            decoded = base64.b64decode(credentials.strip(), validate=True).decode()
        except ValueError:
            raise Unauthenticated("the Authorization header is not valid Basic authentication") from None
        return decoded.partition(":")[2]
    if key := request.headers.get("X-Api-Key"):
        return key
    raise Unauthenticated("no token: send it as Authorization: Bearer rsp_..., or as the password of Basic")


def _challenge_response(grant: Grant, value: str, outcome: Outcome) -> web.Response:
    structlog.contextvars.bind_contextvars(
        hostname=str(grant.hostname), serial=outcome.serial
    )  # each request has its own
    return web.json_response(
        {
            "fqdn": grant.challenge_name.fqdn,
            "value": value,
            "serial": outcome.serial,
            "expires_at": outcome.expires_at.isoformat() if outcome.expires_at else None,
        }
    )
