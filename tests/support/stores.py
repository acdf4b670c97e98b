"""Short ways to write tokens, presents and cleanups, and to read what a store shows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from alembic import command

from responder.names import Name
from responder.store import Cleanup, NewToken, Present, Store, migration, opening
from responder.tokens.hostname import challenge_name
from responder.tokens.secret import digest
from responder.tokens.serving import Serving
from responder.tokens.token import Grant, Token

APEX = Name.parse("acme.example.com")
OTHER_APEX = Name.parse("acme.example.net")
NOW = datetime(2030, 1, 1, tzinfo=UTC)
SERVING = Serving(apexes=frozenset([APEX, OTHER_APEX]))
START = int(NOW.timestamp())
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    """A new store with two zones."""
    store = await Store.open(database_url)
    await store.register_zones({APEX: None, OTHER_APEX: None}, now=NOW)
    yield store
    await store.close()


def grant(label: str, apex: Name = APEX) -> Grant:
    """The usual grant for `label` beside a zone."""
    hostname = Name.parse(f"{label}.{apex.parent}")
    return Grant(hostname=hostname, challenge_name=challenge_name(hostname, apex), apex=apex)


def new_token(*labels: str, at: datetime = NOW) -> NewToken:
    """A token for hostnames beside the first zone."""
    secret = digest(str(uuid4()))
    return NewToken(digest=secret, grants=tuple(grant(label) for label in labels), created_at=at)


def name(label: str) -> Name:
    """The challenge name of a hostname beside the first zone."""
    return grant(label).challenge_name


def present(token: Token, label: str, value: str, *, until: datetime = NOW + DAY, evict: bool = False) -> Present:
    """Present *value* for a hostname."""
    return Present(
        token_id=token.id,
        challenge_name=name(label),
        value=value,
        expires_at=until,
        client="192.0.2.1",
        evict_oldest=evict,
    )


def cleanup(token: Token, label: str, value: str) -> Cleanup:
    """Clean *value* up for a hostname."""
    return Cleanup(token_id=token.id, challenge_name=name(label), value=value, client="192.0.2.1")


async def shown(store: Store) -> dict[Name, tuple[str, ...]]:
    """Every name that exists, with its values, as a snapshot tells it."""
    names: dict[Name, tuple[str, ...]] = {}
    async for change in store.snapshot():
        names |= {name: values or () for name, values in change.names.items()}
    return names


async def downgrade(url: str, revision: str) -> None:
    """Bring the schema of the database at *url* back to *revision*."""
    database = opening.connect(url)
    await database.migrate(lambda connection: command.downgrade(migration._config(connection), revision))
    await database.close()
