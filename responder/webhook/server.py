"""
The routes of the aggregated API server. All but the health paths are only for callers that the gate admits.
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
from responder.webhook.solver import WebhookSolver
from responder.webhook.statuses import respond_with_statuses

MAX_BODY = 1 << 20
"""Octets of a ChallengePayload. It holds the config of an issuer, and Kubernetes stores no larger objects."""

MAX_AT_ONCE = 100
"""Challenges at the same time. cert-manager has 5 workers, and at most 60 challenges."""

HEALTH = frozenset({"/healthz", "/livez", "/readyz"})
"""Paths for the kubelet, which has no client certificate."""

_log = structlog.get_logger("webhook")


class WebhookRoutes:
    """The handlers of the webhook's routes."""

    def __init__(self, gate: Gate, solver: WebhookSolver) -> None:
        self._gate = gate
        self._solver = solver
        self._places = asyncio.Semaphore(MAX_AT_ONCE)

    @web.middleware
    async def admit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check the caller first, even before a response shows whether the path exists."""
        if request.path not in HEALTH:
            await self._gate.admit(request)
        return await handler(request)

    async def alive(self, _: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def ready(self, _: web.Request) -> web.Response:
        """
        Whether callers can be authenticated. It must not depend on anything that may fail later, such as a responder or
        DNS: while no webhook is ready, Kubernetes deletes no namespace.
        """
        if self._gate.front_proxy is None:
            return web.Response(status=503, text=self._gate.waiting_for)
        return web.Response(text="ok")

    async def solve(self, request: web.Request) -> web.Response:
        """Respond with 201 to success and failure of the solver, as cert-manager expects; `statuses` has the rest."""
        coded = {*request.headers.getall(hdrs.CONTENT_ENCODING, ())} - {"identity"}
        if coded or request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType
        challenge = payload.parse(await request.read())
        try:
            await self._solve(challenge)
        except ResponderError as error:
            _log.warning(
                "challenge not solved",
                action=challenge.action,
                hostname=challenge.dns_name,
                namespace=challenge.namespace,
                reason=str(error),
            )
            return web.json_response(payload.failed(challenge, str(error)), status=201)
        return web.json_response(payload.succeeded(challenge), status=201)

    async def _solve(self, challenge: payload.ChallengeRequest) -> None:
        if self._places.locked():
            raise ApiUnavailable("the webhook is busy with too many challenges: cert-manager will try again")
        async with self._places:
            await self._solver.solve(challenge)


def build_webhook(gate: Gate, solver: WebhookSolver, *, group: str, name: str) -> web.Application:
    """The application. *name* is the name of the solver in the API *group*."""
    routes = WebhookRoutes(gate, solver)
    app = web.Application(client_max_size=MAX_BODY, middlewares=[respond_with_statuses, routes.admit])
    app.router.add_routes(Discovery(group, name).routes())
    app.router.add_get("/healthz", routes.alive)
    app.router.add_get("/livez", routes.alive)
    app.router.add_get("/readyz", routes.ready)
    app.router.add_post(f"/apis/{group}/{VERSION}/{name}", routes.solve)
    return app
