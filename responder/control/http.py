"""
The HTTP servers of the control process, and the conditions that its readiness check reports.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack

from responder.api import Health, Probed, Runner, build_admin, build_runner
from responder.config import ApiSettings, DnsSettings, Endpoint, Settings
from responder.process.listeners import is_here
from responder.tokens.network import is_within

DRAIN = 2.0
"""Seconds that open requests have to finish when the process stops."""


def admin_runner(
    settings: Settings, store: Health, lag: Callable[[], tuple[int, int]], conditions: Mapping[str, Callable[[], str]]
) -> Runner:
    scheme = "http" if settings.api.tls == "off" else "https"
    probed = Probed(
        lambda: [(endpoint.host, endpoint.port) for endpoint in _here(settings.dns)],
        lambda: [f"{scheme}://{endpoint}" for endpoint in _here(settings.api)],
        recognition(settings.api) or (lambda _: False),
    )
    admin = build_admin(store, settings.statics[0].apex, probed, lag=lag, conditions=conditions)
    return build_runner(admin, name="admin", drain=DRAIN)


def _here(section: DnsSettings | ApiSettings) -> list[Endpoint]:
    """Return the endpoints of *section* as this machine reaches them, without addresses that it does not have yet."""
    return [each.reachable for each in section.listen if not section.free_bind or is_here(each.host)]


def configuration(faults: Sequence[str]) -> str:
    """Return the condition of the configuration for the readiness check."""
    return f"it has faults, so that of an earlier start is in use: {'; '.join(faults)}" if faults else "ok"


async def listen(
    runner: Runner,
    sockets: list[socket.socket],
    tls: ssl.SSLContext | None,
    stack: AsyncExitStack,
    *,
    is_proxy: Callable[[str], bool] | None = None,
) -> None:
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    for sock in sockets:
        await runner.listen(sock, tls, is_proxy=is_proxy)


def recognition(api: ApiSettings) -> Callable[[str], bool] | None:
    """What recognizes the proxies that speak the PROXY protocol; None if it is not spoken."""
    return (lambda address: is_within(address, api.trusted_proxies)) if api.proxy_protocol else None
