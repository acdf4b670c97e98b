"""
The labels of what a nameserver counts, and how the control process reads its counts. `exchange` does the counting.
"""

from __future__ import annotations

from collections.abc import Collection

from responder.dns.rrset import RRType
from responder.dns.wire import Rcode

Count = tuple[str, tuple[str, ...], int]
"""A family of counts, the labels of one count, and its number since the last message."""

EVENTS = ("ignored", "malformed", "truncated", "cut", "dropped")
"""Messages that get no reply; malformed messages; replies that were too long; replies cut, or dropped, by the limit."""

MAX_COUNTS = 100
"""Counts in one message. It then fits into a message of the feed, even if all zones have the longest names."""

OTHER = "other"
"""The label of types and rcodes without a name here. Questions and records may have any type (RFC 3597)."""

NO_ZONE = "none"
"""The label of replies that belong to no zone, or to a zone that is no longer served."""

_TYPES = {int(rrtype): rrtype.name for rrtype in RRType}
_RCODES = {int(rcode): rcode.name for rcode in Rcode}
_TYPE_LABELS, _RCODE_LABELS = {*_TYPES.values(), OTHER}, {*_RCODES.values(), OTHER}


def type_label(rrtype: int) -> str:
    """The label of queries for the type *rrtype*."""
    return _TYPES.get(rrtype, OTHER)


def rcode_label(rcode: int) -> str:
    """The label of replies with that *rcode*."""
    return _RCODES.get(rcode, OTHER)


def parse_counts(counts: object, zones: Collection[str]) -> list[Count]:
    """
    The counts in a message of a nameserver. *zones* are the apexes of the zones in the configuration.

    Raises `ValueError` for labels that a nameserver does not use: each label needs memory for ever, and an attacker may
    control the nameserver.
    """
    if not isinstance(counts, list) or len(counts) > MAX_COUNTS:
        raise ValueError("not counts")
    return [_parse_count(count, zones) for count in counts]


def _parse_count(count: object, zones: Collection[str]) -> Count:
    match count:
        case ["queries", [str(qtype)], int(number)] if qtype in _TYPE_LABELS:
            parsed: Count = "queries", (qtype,), number
        case ["replies", [str(zone), str(rcode)], int(number)] if rcode in _RCODE_LABELS:
            parsed = "replies", (zone if zone in zones else NO_ZONE, rcode), number
        case ["messages", ["udp" | "tcp" as transport], int(number)]:
            parsed = "messages", (transport,), number
        case ["events", [str(event)], int(number)] if event in EVENTS:
            parsed = "events", (event,), number
        case _:
            raise ValueError("not a count")
    if not 0 <= number < 2**48:
        raise ValueError("not a number that could be counted")
    return parsed
