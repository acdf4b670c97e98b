"""
The aggregated API server's routes. Everything but the health paths is for whom the gate lets in.
"""

from __future__ import annotations

import asyncio

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from responder.errors import ApiUnavailable, ResponderError
from responder.webhook import payload
from responder.webhook.callers import Gate
from responder.webhook.discovery import VERSION, Discovery
from responder.webhook.solver import Solver
from responder.webhook.statuses import respond_with_statuses

MAX_BODY = 1 << 20
"""Octets of a ChallengePayload: Kubernetes keeps no larger object, and an issuer is within one."""

MAX_AT_ONCE = 100
"""Challenges that are worked on. cert-manager has 5 workers, and 60 challenges at most."""

HEALTH = frozenset({"/healthz", "/livez", "/readyz"})
"""For the kubelet, which has no client certificate."""

_log = structlog.get_logger("webhook")


class Routes:
    """The handlers."""

    def __init__(self, gate: Gate, solver: Solver) -> None:
        self._gate = gate
        self._solver = solver
        self._places = asyncio.Semaphore(MAX_AT_ONCE)

    @web.middleware
    async def admit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Before anything else, even before it is told whether the path exists."""
        if request.path not in HEALTH:
            await self._gate.admit(request)
        return await handler(request)

    async def alive(self, _: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def ready(self, _: web.Request) -> web.Response:
        """
        Whether callers can be told apart. It depends on nothing that may fail later, responder and DNS least of all:
        without a ready webhook Kubernetes deletes no namespace at all.
        """
        if self._gate.front_proxy is None:
            return web.Response(status=503, text=self._gate.waiting_for)
        return web.Response(text="ok")

    async def solve(self, request: web.Request) -> web.Response:
        """201 for whatever the solver decides, as cert-manager wants it; the rest is up to `statuses`."""
        coded = {*request.headers.getall(hdrs.CONTENT_ENCODING, ())} - {"identity"}
        if coded or request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType
        challenge = payload.parse(await request.read())
        try:
            await self._solve(challenge)
        except ResponderError as error:
            _log.warning(
                "not solved",
                action=challenge.action,
                hostname=challenge.dns_name,
                namespace=challenge.namespace,
                reason=str(error),
            )
            return web.json_response(payload.failed(challenge, str(error)), status=201)
        return web.json_response(payload.succeeded(challenge), status=201)

    async def _solve(self, challenge: payload.ChallengeRequest) -> None:
        if self._places.locked():
            raise ApiUnavailable("the webhook is at work on too many challenges: it will take this one later")
        async with self._places:
            await self._solver.solve(challenge)


def build_webhook(gate: Gate, solver: Solver, *, group: str, name: str) -> web.Application:
    """The application: *name* is the solver's, in the API *group*."""
    routes = Routes(gate, solver)
    app = web.Application(client_max_size=MAX_BODY, middlewares=[respond_with_statuses, routes.admit])
    app.router.add_routes(Discovery(group, name).routes())
    app.router.add_get("/healthz", routes.alive)
    app.router.add_get("/livez", routes.alive)
    app.router.add_get("/readyz", routes.ready)
    app.router.add_post(f"/apis/{group}/{VERSION}/{name}", routes.solve)
    return app
