"""The process of the webhook: its parts, its listeners, and the files and settings that it follows."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import dns.asyncresolver
import structlog

from responder.addresses import host_text
from responder.connections import Runner
from responder.errors import CannotStart, ResponderError
from responder.logs import Outage
from responder.webhook.callers import CONFIG_MAP, FrontProxy, Gate
from responder.webhook.cluster import Cluster
from responder.webhook.discovery import VERSION
from responder.webhook.handshake import Handshake
from responder.webhook.issuer import PlainHttp
from responder.webhook.server import build_webhook
from responder.webhook.service import ApiClient
from responder.webhook.solver import WebhookSolver
from responder.webhook.statuses import FALLBACK, RESPONSE_DEADLINE

KEEPALIVE = 120.0
"""Seconds. kube-apiserver must close an idle connection first, after 90 s, because it does not repeat a POST."""

HANDSHAKE_DEADLINE = 10.0
"""Seconds for a TLS handshake."""

DRAIN = RESPONSE_DEADLINE
"""Seconds that requests in progress get when the process stops: the longest that a request may take."""

FILES_INTERVAL = 10.0
"""Seconds between two checks whether the serving certificate has changed."""

TRUST_INTERVAL = 30.0
"""Seconds between two checks whether the front proxy has changed."""

TRUST_RETRY = 2.0
"""Seconds between two of these checks until the front proxy is known; until then, all requests are rejected."""

_log = structlog.get_logger("webhook")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of the command line."""

    listen: Sequence[tuple[str, int]]
    certificate: Path
    key: Path
    group: str
    solver: str
    service_account: Path
    reads_challenges: bool
    plain_http: PlainHttp


async def main(options: Options, environ: Mapping[str, str]) -> None:
    """Serve until SIGTERM or SIGINT. Raises `CannotStart`."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    sockets = [_bind(host, port) for host, port in options.listen]
    await serve(options, environ, sockets, stop)


async def serve(
    options: Options,
    environ: Mapping[str, str],
    sockets: Sequence[socket.socket],
    stop: asyncio.Event,
    *,
    resolver: dns.asyncresolver.Resolver | None = None,
) -> None:
    """Serve on *sockets* until *stop* is set, and close them. Without *resolver*, the one of the system is used."""
    async with AsyncExitStack() as stack:
        for sock in sockets:
            stack.callback(sock.close)
        handshake = Handshake(options.certificate, options.key)
        cluster = await stack.enter_async_context(Cluster.around(environ, options.service_account))
        api_client = ApiClient(await stack.enter_async_context(ApiClient.session()))
        solver = WebhookSolver(
            cluster,
            api_client,
            plain_http=options.plain_http,
            reads_challenges=options.reads_challenges,
            resolver=resolver,
        )
        gate = Gate(cluster, group=options.group, version=VERSION)
        app = build_webhook(gate, solver, group=options.group, name=options.solver)
        runner = Runner(app, FALLBACK, name="webhook", keepalive=KEEPALIVE, drain=DRAIN)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        for sock in sockets:
            await runner.listen(sock, handshake.context, deadline=HANDSHAKE_DEADLINE)
        async with asyncio.TaskGroup() as following:
            tasks = [
                following.create_task(_follow_files(handshake)),
                following.create_task(_follow_front_proxy(cluster, gate, handshake, runner)),
            ]
            _log.info("serving", group=options.group, solver=options.solver, listen=[_name(s) for s in sockets])
            await stop.wait()
            for task in tasks:
                task.cancel()
        _log.info("stopping")


async def _follow_files(handshake: Handshake) -> None:
    while True:
        await asyncio.sleep(FILES_INTERVAL)
        handshake.reload()


async def _follow_front_proxy(cluster: Cluster, gate: Gate, handshake: Handshake, runner: Runner) -> None:
    """Read again and again who the front proxy is. After an error, the last known front proxy stays in use."""
    outage = Outage(_log, "cannot find out who the front proxy is", "the front proxy is known again")
    while True:
        try:
            front_proxy = FrontProxy.parse(await cluster.config_map(*CONFIG_MAP))
            distrusted = handshake.trust(front_proxy.ca)
        except ResponderError as fault:
            outage.goes_on(str(fault), ready=gate.front_proxy is not None)
            gate.waiting_for = f"cannot find out who the front proxy is: {fault}"
        else:
            outage.is_over()
            gate.front_proxy, gate.waiting_for = front_proxy, ""
            if distrusted:
                runner.close_when_idle()  # a client is authenticated only when it connects
        await asyncio.sleep(TRUST_INTERVAL if gate.front_proxy is not None else TRUST_RETRY)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # [::] accepts IPv4, too, so that the default is right for every cluster.
        return socket.create_server((host, port), family=family, dualstack_ipv6=host == "::")
    except OSError as fault:
        raise CannotStart(f"cannot listen on {host} port {port}: {fault.strerror}") from None


def _name(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"{host_text(host)}:{port}"
