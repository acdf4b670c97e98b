"""
The reasons that replies carry as extended errors (RFC 8914), and which messages are refused before a zone is asked.

The texts are for a person who looks for the cause. They give away nothing that the rcode does not.
"""

from __future__ import annotations

from responder.dns.rrset import CLASS_IN, RRType
from responder.dns.wire import ExtendedError, Opcode, Query, Rcode, extended_error
from responder.dns.zone import Zones

UNCOVERED = extended_error(ExtendedError.OTHER, "no token covers this name")
STALE = extended_error(ExtendedError.NOT_READY, "this server may be behind the others of the zone")
NOT_SERVED = extended_error(ExtendedError.NOT_AUTHORITATIVE)
PROHIBITED = extended_error(ExtendedError.PROHIBITED)
NOT_SUPPORTED = extended_error(ExtendedError.NOT_SUPPORTED)
NO_SUCH_QUESTION = extended_error(ExtendedError.INVALID_QUERY_TYPE)

_NO_SECONDARY = extended_error(ExtendedError.PROHIBITED, "this server is the primary of the zone")
_NO_UPDATES = extended_error(ExtendedError.NOT_SUPPORTED, "DNS updates are off")
_NO_ZONE_SECTION = extended_error(ExtendedError.OTHER, "the zone section of an update must ask for a SOA")
_NO_APEX = extended_error(ExtendedError.NOT_AUTHORITATIVE, "an update must name a zone that is served here")
_UNSIGNED = extended_error(ExtendedError.PROHIBITED, "an update must be signed with the key of a token")
_NO_KEYS = extended_error(ExtendedError.NOT_SUPPORTED, "no signature is checked, since DNS updates are off")
_NO_COOKIES = extended_error(ExtendedError.OTHER, "a query must have one question")


def refuse(query: Query, zones: Zones, *, updates: bool, cookies: bool) -> tuple[Rcode, bytes] | None:
    """
    The rcode and extended error of a message that is refused without a look at its answer; None for any other message.

    *updates* and *cookies* are whether DNS updates and DNS cookies are on. With *updates*, do not ask for a signed
    message: its reply must be signed, too (RFC 8945, section 5.3), which is left to the control process.
    """
    if query.edns.fault:
        return Rcode.FORMERR, extended_error(ExtendedError.OTHER, query.edns.fault)
    if query.opcode != Opcode.QUERY and query.edns.version:
        return Rcode.BADVERS, b""
    if query.opcode == Opcode.NOTIFY:  # this server is the primary: a NOTIFY has no news for it (RFC 1996, 3.10)
        return (Rcode.REFUSED, _NO_SECONDARY) if zones.find(query.qname) else (Rcode.NOTAUTH, NOT_SERVED)
    if query.opcode == Opcode.UPDATE:
        return _refuse_update(query, zones, updates=updates)
    if query.tsig:
        return Rcode.FORMERR, _NO_KEYS
    if not query.question and not cookies:
        return Rcode.FORMERR, _NO_COOKIES
    return None


def _refuse_update(query: Query, zones: Zones, *, updates: bool) -> tuple[Rcode, bytes]:
    """The same for an update without a signature, which is always refused (RFC 2136, section 3.1)."""
    if not updates:
        return Rcode.NOTIMP, _NO_UPDATES
    if query.qtype != RRType.SOA:
        return Rcode.FORMERR, _NO_ZONE_SECTION
    zone = zones.find(query.qname)
    if query.qclass != CLASS_IN or zone is None or zone.apex.wire != query.qname:
        return Rcode.NOTAUTH, _NO_APEX
    return Rcode.REFUSED, _UNSIGNED
