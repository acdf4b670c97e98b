"""Counts of values and tokens, for the metrics."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select

from responder.store.schema import challenge_values, tokens

HORIZONS = {"1d": timedelta(days=1), "7d": timedelta(days=7), "30d": timedelta(days=30)}
"""Times until a token expires, by which tokens are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """
    The number of stored values, when the oldest of them was presented, and the number of tokens by when they expire
    (see `HORIZONS`).
    """

    values: int
    oldest: datetime | None
    tokens: dict[str, int]


def take(connection: Connection, now: datetime) -> Statistics:
    values, oldest = connection.execute(
        select(func.count(), func.min(challenge_values.c.presented_at)).select_from(challenge_values)
    ).one()
    in_use = select(func.count()).where(tokens.c.revoked_at.is_(None))
    counts = {"expired": connection.scalar(in_use.where(tokens.c.expires_at <= now)) or 0}
    since = now
    for horizon, length in HORIZONS.items():
        until = now + length
        within = (tokens.c.expires_at > since) & (tokens.c.expires_at <= until)
        counts[horizon] = connection.scalar(in_use.where(within)) or 0
        since = until
    counts["later"] = connection.scalar(in_use.where(tokens.c.expires_at > since)) or 0
    counts["never"] = connection.scalar(in_use.where(tokens.c.expires_at.is_(None))) or 0
    return Statistics(values=values, oldest=oldest, tokens=counts)
