"""
Random keys that all processes of all nodes share. Made when first asked for; no credential of anybody is among them.
"""

from __future__ import annotations

import secrets
from contextlib import suppress

from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import IntegrityError

from responder.store.schema import keys

KEY_OCTETS = 32


def key(connection: Connection, name: str) -> bytes:
    """The key of that *name*."""
    with suppress(IntegrityError), connection.begin_nested():  # most often it is there, perhaps since a moment ago
        if _find(connection, name) is None:
            connection.execute(insert(keys), {"name": name, "octets": secrets.token_bytes(KEY_OCTETS)})
    found = _find(connection, name)
    assert found is not None  # noqa: S101  # if not by us, then inserted by who was quicker
    return found


def _find(connection: Connection, name: str) -> bytes | None:
    return connection.scalar(select(keys.c.octets).where(keys.c.name == name))
