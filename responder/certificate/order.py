"""
One certificate from one CA: order, publish what it asks for, have it look, and take everything back again.

Who publishes is the caller's: the control process asks `challenges`, a command asks the HTTP API.
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
"""Told of each step that is done, in words for a person."""

_log = structlog.get_logger("certificate")


class Solver(Protocol):
    """Puts challenge values into the DNS, and takes them out."""

    async def present(self, challenge: Challenge) -> str:
        """Publish the value; returns where, once it is being served. Raises `ResponderError`."""

    async def cleanup(self, challenge: Challenge) -> None:
        """Take the value back, wherever it is by now. Raises `ResponderError`."""


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

    The CA's resolver may remember for *absence_ttl* seconds that there was no value, so that is how long it is given.
    Whatever happens, cancellation included, every value that was presented is cleaned up. Raises `CertificateRefused`,
    `AuthorityUnavailable`, and what the *solver* raises.
    """
    key = key_pem(new_key())
    order = await authority.place(names, replaces=replaces)
    progress(f"ordered a certificate for {', '.join(names)}")
    asked = [await authority.challenge(url) for url in order.authorizations]
    challenges = [challenge for challenge in asked if challenge is not None]
    if len(challenges) < len(asked):
        progress(f"the CA still believes in {len(asked) - len(challenges)} of them from before")
    await _prove(authority, challenges, solver, progress, absence_ttl)
    if dry_run:
        progress("stopping here: nothing was issued")
        return None
    chain = await authority.finalise(order, make_csr(key, list(names)))
    return _accepted(chain, key)


async def _prove(
    authority: Authority, challenges: Sequence[Challenge], solver: Solver, progress: Progress, absence_ttl: float
) -> None:
    """Have the CA see every value. All are published before it looks: several may share one name."""
    presented: list[Challenge] = []
    try:
        for challenge in challenges:
            presented.append(challenge)  # first: it may be there even if we never hear of it
            where = await solver.present(challenge)
            progress(f"{challenge.hostname}: the value is being served at {where}")
        await asyncio.sleep(absence_ttl if challenges else 0.0)
        for challenge in challenges:
            await authority.answer(challenge)
            progress(f"{challenge.hostname}: the CA has seen it")
    finally:
        await asyncio.shield(asyncio.gather(*(_withdraw(challenge, solver) for challenge in presented)))


async def _withdraw(challenge: Challenge, solver: Solver) -> None:
    """What cannot be cleaned up goes by itself after a while, and must not hide how the order ended."""
    try:
        await solver.cleanup(challenge)
    except ResponderError as fault:
        _log.warning("a challenge value could not be cleaned up", hostname=challenge.hostname, reason=str(fault))


def _accepted(chain: bytes, key: bytes) -> KeyPair:
    try:
        return KeyPair.parse(chain, key)
    except Invalid as fault:
        raise Invalid(f"what the CA issued is not what was asked for: {fault}") from None
