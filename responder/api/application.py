"""The application on the API listener: our own routes, and how all routes are put together."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from responder.api.acmedns import AcmeDns, respond_as_acme_dns
from responder.api.authentication import Authenticator
from responder.api.bodies import Body, read_body
from responder.api.clients import trust_proxies
from responder.api.problems import (
    FALLBACK,
    ROUTES_HINT,
    SLASHES,
    json_response,
    note_hostname,
    respond_with_problems,
)
from responder.api.tls import require_https
from responder.challenges import Challenges
from responder.config import ApiSettings
from responder.connections import Runner
from responder.errors import Refused
from responder.limits import Limits
from responder.names import Name
from responder.store import AuditAction, Outcome, Store
from responder.tokens.serving import Serving
from responder.tokens.token import Grant, Token, describe

MAX_BODY = 16 << 10
"""Octets of a request body. A legitimate body is far smaller than 1 KiB."""

KEEPALIVE = 60.0
"""Seconds that a connection may stay open without another request."""


class Routes:
    """The handlers of our own routes."""

    def __init__(
        self,
        store: Store,
        challenges: Challenges,
        authenticator: Authenticator,
        *,
        serving: Serving,
        max_lifetime: timedelta,
    ) -> None:
        self._store = store
        self._challenges = challenges
        self._authenticator = authenticator
        self._serving = serving
        self._max_lifetime = max_lifetime

    async def present(self, request: web.Request) -> web.Response:
        token, grant, body = await self._permit(request, AuditAction.PRESENT)
        outcome = await self._challenges.present(
            token,
            grant,
            body.value,
            client=request.remote or "",
            lifetime=body.lifetime,
            acme_token=body.acme_token,
        )
        return _challenge_response(grant, body, outcome)

    async def cleanup(self, request: web.Request) -> web.Response:
        token, grant, body = await self._permit(request, AuditAction.CLEANUP)
        outcome = await self._challenges.cleanup(token, grant, body.value, client=request.remote or "")
        return _challenge_response(grant, body, outcome)

    async def token(self, request: web.Request) -> web.Response:
        token = await self._authenticator.admit(request, AuditAction.AUTHENTICATE)
        values = [
            {"hostname": str(hostname), "value": v.value, "expires_at": v.expires_at.isoformat()}
            for v in await self._store.values(token.id)
            if v.is_served(self._serving)
            for hostname in v.hostnames
        ]
        return json_response(describe(token, self._serving) | {"values": values})

    async def _permit(self, request: web.Request, action: AuditAction) -> tuple[Token, Grant, Body]:
        """The token, its grant and the body of the request. A refusal of a known token is written to the audit."""
        token = await self._authenticator.admit(request, action)
        body = await read_body(request, max_lifetime=self._max_lifetime)
        try:
            return token, token.grant_for(body.name), body
        except Refused as refusal:
            self._challenges.note_refusal(token, action, refusal, client=request.remote or "")
            raise


def build_api(
    store: Store,
    challenges: Challenges,
    limits: Limits,
    settings: ApiSettings,
    *,
    apex: Name,
    serving: Serving,
    max_lifetime: timedelta,
) -> web.Application:
    """The application on the API listener, for the zones of *serving*; new accounts are made in the zone of *apex*."""
    authenticator = Authenticator(store, challenges, limits)
    routes = Routes(store, challenges, authenticator, serving=serving, max_lifetime=max_lifetime)
    acme_dns = AcmeDns(store, challenges, authenticator, limits, apex=apex, registration=settings.registration)
    app = web.Application(
        client_max_size=MAX_BODY,
        middlewares=[
            trust_proxies(settings.trusted_proxies, settings.forwarded_header),
            respond_with_problems,
            respond_as_acme_dns,
            _count_with(limits),
        ],
    )
    app[ROUTES_HINT] = "see /openapi.json"
    for slash in SLASHES:
        app.router.add_post(f"{slash}present", routes.present)
        app.router.add_post(f"{slash}cleanup", routes.cleanup)
    app.router.add_get("/v1/token", routes.token)
    acme_dns.add_routes(app.router)
    app.router.add_get("/openapi.json", _describe(app.router, max_lifetime))
    if settings.hsts:
        app.on_response_prepare.append(require_https(settings.hsts))
    return app


def _count_with(limits: Limits) -> Middleware:
    @web.middleware
    async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
        limits.count_request(request.remote or "")
        return await handler(request)

    return count


def build_runner(app: web.Application, *, name: str, drain: float) -> Runner:
    """
    A runner that serves *app* on its listeners, which the metrics call *name*.

    When the runner is stopped, requests in progress get *drain* seconds to finish.
    """
    return Runner(app, FALLBACK, name=name, keepalive=KEEPALIVE, drain=drain)


def _describe(router: web.UrlDispatcher, max_lifetime: timedelta) -> Callable[[web.Request], Awaitable[web.Response]]:
    """A handler that serves the OpenAPI description of the routes of *router*, with the configured limits."""
    description = json.loads(Path(__file__).with_name("openapi.json").read_bytes())
    there = {"/openapi.json", *(resource.canonical for resource in router.resources())}
    description["paths"] = {path: routes for path, routes in description["paths"].items() if path in there}
    description["components"]["schemas"]["Lifetime"]["maximum"] = int(max_lifetime.total_seconds())

    rendered = json.dumps(description).encode() + b"\n"  # once, so that a request is cheap

    async def openapi(_: web.Request) -> web.Response:
        return web.Response(body=rendered, content_type="application/json")

    return openapi


def _challenge_response(grant: Grant, body: Body, outcome: Outcome) -> web.Response:
    note_hostname(grant, outcome)
    return json_response(
        {
            "fqdn": body.fqdn,
            "challenge_name": grant.challenge_name.fqdn,
            "value": body.value,
            "serial": outcome.serial,
            "expires_at": outcome.expires_at.isoformat() if outcome.expires_at else None,
            "confirmed": outcome.confirmed,
            "unconfirmed": outcome.unconfirmed,
        }
    )
