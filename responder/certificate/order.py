"""
Obtains one certificate from one CA: it orders, presents the values, lets the CA validate them, and cleans them up.

The caller decides how values are presented: the control process uses `challenges`, a command the HTTP API.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog
from acme.crypto_util import make_csr
from cryptography import x509

from responder.certificate.authority import Authority, Challenge
from responder.errors import Invalid, ResponderError
from responder.tls.keypair import KeyPair, key_pem, new_key

Progress = Callable[[str], None]
"""Called after each step, with a text for the user."""

_log = structlog.get_logger("certificate")


class Solver(Protocol):
    """Presents challenge values, and cleans them up."""

    async def present(self, challenge: Challenge) -> str:
        """Publish the value; returns where, once it is being served. Raises `ResponderError`."""

    async def cleanup(self, challenge: Challenge) -> None:
        """Remove the value. Raises `ResponderError`."""


async def obtain(
    authority: Authority,
    names: Sequence[str],
    solver: Solver,
    *,
    progress: Progress = lambda _: None,
    replaces: x509.Certificate | None = None,
    absence_ttl: float = 0.0,
    dry_run: bool = False,
) -> KeyPair | None:
    """
    Obtain a certificate for *names*, with an account that is logged in; None if a *dry_run* stopped before the end.

    The resolver of the CA may cache for *absence_ttl* seconds that there was no value, so validation starts that much
    later. Every value that was presented is cleaned up, also after an error or cancellation. Raises
    `CertificateRefused`, `AuthorityUnavailable`, and what the *solver* raises.
    """
    key = key_pem(new_key())
    order = await authority.place(names, replaces=replaces)
    progress(f"ordered a certificate for {', '.join(names)}")
    asked = [await authority.challenge(url) for url in order.authorizations]
    challenges = [challenge for challenge in asked if challenge is not None]
    if len(challenges) < len(asked):
        progress(f"the CA has already validated {len(asked) - len(challenges)} of them")
    await _prove(authority, challenges, solver, progress, absence_ttl)
    if dry_run:
        progress("dry run: no certificate was requested")
        return None
    chain = await authority.finalize(order, make_csr(key, list(names)))
    return _accepted(chain, key)


async def _prove(
    authority: Authority, challenges: Sequence[Challenge], solver: Solver, progress: Progress, absence_ttl: float
) -> None:
    """Let the CA validate all values. They are all presented first, because several may share one name."""
    presented: list[Challenge] = []
    try:
        for challenge in challenges:
            presented.append(challenge)  # first: it may be served even if the call fails
            where = await solver.present(challenge)
            progress(f"{challenge.hostname}: the value is being served at {where}")
        await asyncio.sleep(absence_ttl if challenges else 0.0)
        for challenge in challenges:
            await authority.begin_validation(challenge)
            progress(f"{challenge.hostname}: the CA has validated it")
    finally:
        await asyncio.shield(asyncio.gather(*(_withdraw(challenge, solver) for challenge in presented)))


async def _withdraw(challenge: Challenge, solver: Solver) -> None:
    """Clean up. A value that cannot be cleaned up expires, and the failure must not hide the result of the order."""
    try:
        await solver.cleanup(challenge)
    except ResponderError as fault:
        _log.warning("a challenge value could not be cleaned up", hostname=challenge.hostname, reason=str(fault))


def _accepted(chain: bytes, key: bytes) -> KeyPair:
    try:
        return KeyPair.parse(chain, key)
    except Invalid as fault:
        raise Invalid(f"the CA issued another certificate than requested: {fault}") from None
