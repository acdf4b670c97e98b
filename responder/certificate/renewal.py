"""When to renew a certificate, and when to try again after a failure. Pure: no clock, no random numbers, no network."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from responder.errors import CertificateRefused, ResponderError
from responder.tls.keypair import KeyPair

FRACTION = 2 / 3
"""Part of the lifetime after which a certificate is due without renewal information: of three months, one is left."""

SPREAD = 1 / 30
"""Part of the lifetime by which it may be due earlier, so that renewals do not all happen at the same time."""

MIN_LIFETIME = timedelta(seconds=30)
"""The least lifetime to assume."""

MAX_REST = timedelta(hours=1)
"""The least time between two certificates, if the first seems to be due at once."""

LAST_TENTH = 9 / 10
"""Part of the lifetime after which it is due, even if its CA suggests a later time."""

FIRST_PAUSE = timedelta(seconds=15)
"""Pause after a first attempt that failed because the CA was unavailable, which no limit of the CA counts."""

FIRST_PAUSE_REFUSED = timedelta(minutes=5)
"""Pause after a first attempt that the CA refused: CAs count those (Let's Encrypt takes five in an hour)."""

MAX_PAUSE = timedelta(hours=6)
"""Between two attempts, unless the CA asks for more."""

MAX_RETRY_AFTER = timedelta(days=1)
"""The longest pause that a CA may ask for: it may be wrong, and certificates expire."""

PAUSE_SPREAD = 0.25
"""Part of a pause by which it may be longer, so that attempts do not all happen at the same time."""


def due(pair: KeyPair, window: tuple[datetime, datetime] | None, *, obtained_at: datetime | None) -> datetime:
    """
    When *pair* is to be renewed: within the *window* that its CA suggests (RFC 9773, section 4.2), if it does.

    The result is the same on all nodes and in all calls: the point in the window is derived from the certificate. A
    pair that was just *obtained_at* stays a while in any case, because the clock of the CA or our own may be wrong.
    """
    lifetime = max(pair.not_after - pair.not_before, MIN_LIFETIME)
    if window is None:
        at = pair.not_before + lifetime * (FRACTION - SPREAD * _draw(pair))
    else:
        start, end = window
        at = min(start + (end - start) * _draw(pair), pair.not_before + lifetime * LAST_TENTH)
    return at if obtained_at is None else max(at, obtained_at + min(lifetime * SPREAD, MAX_REST))


def pause(failures: int, fault: ResponderError, draw: float) -> timedelta:
    """How long to wait after *failures* in a row, the last of which was *fault*; *draw* is from 0 to 1."""
    first = FIRST_PAUSE_REFUSED if isinstance(fault, CertificateRefused) else FIRST_PAUSE
    doubled = min(first * 2 ** min(failures - 1, 20), MAX_PAUSE)
    asked = min(timedelta(seconds=getattr(fault, "retry_after", None) or 0.0), MAX_RETRY_AFTER)
    wait: timedelta = max(doubled, asked) * (1 + PAUSE_SPREAD * draw)
    return wait


def _draw(pair: KeyPair) -> float:
    """A number from 0 to 1 that is derived from the certificate."""
    serial = pair.leaf.serial_number
    digest = hashlib.sha256(serial.to_bytes(serial.bit_length() // 8 + 1, "big")).digest()
    return float(int.from_bytes(digest[:8], "big") / 2**64)
