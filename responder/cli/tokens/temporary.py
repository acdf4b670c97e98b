"""A token that a command mints for itself, and revokes when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Literal
from uuid import UUID

from responder.errors import NotFound
from responder.store import NewToken, Store
from responder.tokens.secret import Secret, digest, mint_secret
from responder.tokens.token import Grant


@asynccontextmanager
async def temporary_token(
    store: Store,
    grants: Sequence[Grant],
    *,
    description: Literal["responder issue", "responder check"],
    lifetime: timedelta,
) -> AsyncIterator[tuple[UUID, Secret]]:
    """
    A token with *grants*, which is revoked at the end of the block, also after an error. That removes its values.

    The service deletes it a day later, which it knows by the description (see `responder.tokens.token.TEMPORARY`).
    """
    secret, now = mint_secret(), datetime.now(UTC)
    new = NewToken(
        digest=digest(secret),
        description=description,
        grants=tuple(grants),
        created_at=now,
        expires_at=now + lifetime,
    )
    try:
        await store.mint(new)
        yield new.id, secret
    finally:
        with suppress(NotFound):  # minting had failed
            await asyncio.shield(store.revoke(new.id, at=datetime.now(UTC)))
