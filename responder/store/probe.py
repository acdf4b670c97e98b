"""
Whether the database takes changes. A disk that is full, or a file that has become read-only, can still be read.
"""

from __future__ import annotations

import secrets

from sqlalchemy import Connection, update

from responder.store.schema import probe

PROBE_OCTETS = 32_768
"""Octets written: as many as a present writes to an SQLite file, and random, so that no database compresses them."""


def prove(connection: Connection) -> None:
    """Write as much as a present does, in the place of what the last call wrote."""
    connection.execute(update(probe).values(octets=secrets.token_bytes(PROBE_OCTETS)))
