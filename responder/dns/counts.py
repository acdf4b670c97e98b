"""
What a nameserver counts, and how the control process reads that: the words of both. Who counts is `exchange`.
"""

from __future__ import annotations

from collections.abc import Collection

from responder.dns.rrset import RRType
from responder.dns.wire import Rcode

Count = tuple[str, tuple[str, ...], int]
"""A family of counts, the labels of one of them, and its number since the last time."""

EVENTS = ("ignored", "malformed", "truncated", "cut", "dropped")
"""Messages that earn silence, or a bare refusal; replies that do not fit; replies that are limited, in either way."""

MAX_COUNTS = 100
"""Counts in one message, which is as long as it may be if all of them are of zones with the longest of names."""

OTHER = "other"
"""The label of types and rcodes that have no name here. Questions and records may be of any type (RFC 3597)."""

NO_ZONE = "none"
"""The label of replies that no zone gives, or one that is not served any more."""

_TYPES = {int(rrtype): rrtype.name for rrtype in RRType}
_RCODES = {int(rcode): rcode.name for rcode in Rcode}
_TYPE_LABELS, _RCODE_LABELS = {*_TYPES.values(), OTHER}, {*_RCODES.values(), OTHER}


def type_label(rrtype: int) -> str:
    """What queries for the type *rrtype* are counted under."""
    return _TYPES.get(rrtype, OTHER)


def rcode_label(rcode: int) -> str:
    """What replies with that *rcode* are counted under."""
    return _RCODES.get(rcode, OTHER)


def parse_counts(counts: object, zones: Collection[str]) -> list[Count]:
    """
    What a nameserver has counted about *zones* (their apexes), or about zones of an earlier configuration.

    Raises `ValueError` for anything that it does not count: each label costs memory for ever, and the nameserver may
    have been taken over.
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
