"""
Random keys that all processes of all nodes share. They are made when they are first needed. None of them is a
credential of a client.
"""

from __future__ import annotations

import secrets

from sqlalchemy import Connection, select

from responder.store.schema import keys
from responder.store.upsert import insert_if_absent

KEY_OCTETS = 32


def key(connection: Connection, name: str) -> bytes:
    found = _find(connection, name)
    if found is None:
        insert_if_absent(connection, keys, {"name": name, "octets": secrets.token_bytes(KEY_OCTETS)})
        found = _find(connection, name)
    assert found is not None  # noqa: S101  # inserted just now, by this process or by another one
    return found


def _find(connection: Connection, name: str) -> bytes | None:
    return connection.scalar(select(keys.c.octets).where(keys.c.name == name))
