"""
The key file, and what is made from it: signatures of DNS updates, and the encryption of private keys.
"""

from __future__ import annotations

import structlog

from responder.config import Settings
from responder.control.tasks import now
from responder.errors import CannotStart
from responder.files.keyfile import NEW_KEY_FILE, read_key
from responder.store import Sealer
from responder.update import Keyring, Signatures

_log = structlog.get_logger("control")


def signatures(settings: Settings) -> Signatures | None:
    """Return what checks the signatures of DNS updates; None without updates or without a key file."""
    # Without its key file, the service goes on: only DNS updates fail, with SERVFAIL.
    missing = "DNS updates are disabled until the next start"
    master = _master(settings, missing) if settings.dns.update.enabled else None
    return None if master is None else Signatures(Keyring(master, settings.dns.update.algorithms), clock=now)


def sealer(settings: Settings) -> Sealer | None:
    """Return what encrypts our private keys in the database; None without such keys or without a key file."""
    missing = "private keys in the database can be neither encrypted nor decrypted"
    master = _master(settings, missing) if settings.api.tls == "acme" else None
    return None if master is None else Sealer(master)


def _master(settings: Settings, missing: str) -> bytes | None:
    """Return the content of the key file; None if none is configured, or if it cannot be read, which logs *missing*."""
    if (path := settings.tsig_key_file) is None:
        return None
    try:
        return read_key(path, on_new=lambda: _log.warning("the key file is new", path=str(path), reason=NEW_KEY_FILE))
    except CannotStart as fault:
        _log.error(missing, reason=str(fault))
        return None
