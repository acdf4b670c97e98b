"""When a certificate is due to be renewed, and when to try again if that fails. Pure: no clock, no dice, no network."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from responder.errors import CertificateRefused, ResponderError
from responder.tls.keypair import KeyPair

FRACTION = 2 / 3
"""Of its lifetime, when a certificate is due if its CA does not say: there is a month left of three."""

SPREAD = 1 / 30
"""Of its lifetime, by which it is due earlier: not all that began together are to come back together."""

MIN_LIFETIME = timedelta(seconds=30)
"""That any certificate is taken to have."""

MAX_REST = timedelta(hours=1)
"""Between two certificates, if the first seems to be due at once."""

LAST_TENTH = 9 / 10
"""Of its lifetime, when it is due whatever its CA suggests."""

FIRST_PAUSE = timedelta(seconds=15)
"""After a first attempt that failed because the CA could not be used: nothing was asked of it."""

FIRST_PAUSE_REFUSED = timedelta(minutes=5)
"""After a first attempt that the CA refused: CAs count those (Let's Encrypt takes five in an hour)."""

MAX_PAUSE = timedelta(hours=6)
"""Between two attempts, unless the CA asks for more."""

MAX_RETRY_AFTER = timedelta(days=1)
"""As long as a CA may put us off: it may be mistaken, and certificates end."""

PAUSE_SPREAD = 0.25
"""Of a pause, by which it is longer: not all that failed together are to come back together."""


def due(pair: KeyPair, window: tuple[datetime, datetime] | None, *, obtained_at: datetime | None) -> datetime:
    """
    When *pair* is to be renewed: within the *window* that its CA suggests (RFC 9773, section 4.2), if it does.

    The same for everybody who asks, however often: the point within it is drawn from the certificate itself. A pair
    that was only just *obtained_at* stays a while, whatever its dates: clocks may be wrong, the CA's or ours.
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
    """A number from 0 to 1 that a certificate has for good."""
    serial = pair.leaf.serial_number
    digest = hashlib.sha256(serial.to_bytes(serial.bit_length() // 8 + 1, "big")).digest()
    return float(int.from_bytes(digest[:8], "big") / 2**64)
