"""
Proofs that the database can be used. A database with a full disk, or with a file that has become read-only, can still
be read, so there is one proof for reading and one for writing.
"""

from __future__ import annotations

import secrets

from sqlalchemy import Connection, select, update

from responder.store.schema import probe, zones

PROBE_OCTETS = 32_768
"""Octets that are written: as many as a present writes to an SQLite file. They are random, so they do not compress."""


def ping(connection: Connection) -> None:
    connection.execute(select(zones.c.id).limit(1))


def prove(connection: Connection) -> None:
    # Each call overwrites what the last one wrote.
    connection.execute(update(probe).values(octets=secrets.token_bytes(PROBE_OCTETS)))
