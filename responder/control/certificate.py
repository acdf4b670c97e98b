"""
TLS of the API: where its certificate comes from, and what renews it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from responder.api.tls import ServerTls
from responder.certificate.files import Files
from responder.challenges import Challenges
from responder.config import Settings, ZoneSettings
from responder.control.tasks import now, running
from responder.errors import CannotExamine
from responder.store import Store
from responder.tls.keypair import KeyPair

if TYPE_CHECKING:
    from responder.certificate.own import OwnCertificateKeeper


async def start_tls(
    settings: Settings, store: Store, challenges: Challenges, stack: AsyncExitStack
) -> ServerTls | None:
    """Start TLS of the API and what renews its certificate; None without TLS. There may be no issued one yet."""
    if settings.api.tls == "off":
        return None
    tls = ServerTls(KeyPair.self_signed(settings.api.hostname, now=now()), settings.api.hostname)
    keeper: Files | OwnCertificateKeeper
    if settings.api.tls == "files":
        keeper = Files(settings.api, tls.use)
    else:
        from responder.certificate.own import OwnCertificateKeeper

        look = _look_at_delegation(settings.api.acme.resolver)
        keeper = OwnCertificateKeeper(store, challenges, settings, tls.use, clock=now, undelegated=look)
    await keeper.load()
    await stack.enter_async_context(running(keeper.run()))
    await stack.enter_async_context(running(tls.watch(now)))
    return tls


def _look_at_delegation(resolver: str) -> Callable[[ZoneSettings], Awaitable[str]] | None:
    """What reports why a zone is certainly not delegated, according to *resolver*; None if nothing may be asked."""
    if resolver == "none":
        return None

    async def look(zone: ZoneSettings) -> str:
        from responder.doctor import system_resolvers, undelegated

        try:
            return await undelegated([resolver] if resolver else system_resolvers(), zone)
        except CannotExamine:
            return ""

    return look
