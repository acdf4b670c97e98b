"""
The database of the service under test, filled through the store before the service starts.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from responder.names import Name
from responder.store import NewToken, Present, Store
from responder.tokens.hostname import challenge_name
from responder.tokens.secret import Secret, digest, mint_secret
from responder.tokens.serving import Serving
from responder.tokens.token import Grant
from tests.e2e.service import ZONE

_APEX = Name.parse(ZONE)
_SERVING = Serving(apexes=frozenset([_APEX]))
_BATCH = 500
"""Values in one transaction."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Somebody with a token, and the challenge names that it covers."""

    token_id: UUID
    secret: Secret
    challenge_names: tuple[Name, ...]


def fill(path: Path, *, tokens: int, hostnames: int, with_values: bool) -> list[Holder]:
    """Make a database with *tokens*, each for so many *hostnames*, with one random value at each name or none."""
    return asyncio.run(_fill(path, tokens, hostnames, with_values))


def random_value() -> str:
    """43 base64url characters, as every dns-01 value is."""
    return secrets.token_urlsafe(32)


async def _fill(path: Path, tokens: int, hostnames: int, with_values: bool) -> list[Holder]:  # noqa: FBT001
    now = datetime.now(UTC)
    holders = []
    async with _store(path) as store:
        await store.register_zones({_APEX: None}, now=now)
        for number in range(tokens):
            grants = [_grant(f"host{number}-{n}.example.com") for n in range(hostnames)]
            secret = mint_secret()
            new = NewToken(digest=digest(secret), grants=tuple(grants), created_at=now)
            await store.mint(new)
            holders.append(Holder(new.id, secret, tuple(grant.challenge_name for grant in grants)))
            if with_values:
                await _present(store, new, now)
    return holders


async def _present(store: Store, token: NewToken, now: datetime) -> None:
    operations: Sequence[Present] = [
        Present(
            token_id=token.id,
            challenge_name=grant.challenge_name,
            value=random_value(),
            expires_at=now + timedelta(days=1),
            client="127.0.0.1",
        )
        for grant in token.grants
    ]
    for at in range(0, len(operations), _BATCH):
        await store.apply(operations[at : at + _BATCH], serving=_SERVING, now=now)


@asynccontextmanager
async def _store(path: Path) -> AsyncIterator[Store]:
    store = await Store.open(f"sqlite+aiosqlite:///{path}")
    try:
        yield store
    finally:
        await store.close()


def _grant(hostname: str) -> Grant:
    name = Name.parse(hostname)
    return Grant(hostname=name, challenge_name=challenge_name(name, _APEX), apex=_APEX)
