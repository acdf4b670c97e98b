"""The keys of DNS cookies, which the control process sends to the nameservers every day."""

from __future__ import annotations

import asyncio
import time

from responder.dns.cookies import DAY, daily_keys
from responder.feed.publisher import Publisher

RENEWAL = 600.0
"""Seconds after which the keys are sent again at the latest: if the clock is set, a sleep does not end earlier."""


async def renew_cookie_keys(publisher: Publisher, master: bytes) -> None:
    """Derive the keys of each day from *master* and send them to all nameservers, until cancelled."""
    while True:
        now = time.time()
        publisher.rekey(daily_keys(master, now))
        await asyncio.sleep(min(DAY - now % DAY + 1, RENEWAL))
