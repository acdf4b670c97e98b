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

_TYPES = {*(rrtype.name for rrtype in RRType), "other"}
_RCODES = {rcode.name for rcode in Rcode}


def parse_counts(counts: object, zones: Collection[str]) -> list[Count]:
    """
    What a nameserver has counted about *zones* (their apexes). Raises `ValueError` for anything that it does not count:
    labels cost memory for ever, and the nameserver may not be itself any more.
    """
    if not isinstance(counts, list) or len(counts) > MAX_COUNTS:
        raise ValueError("not counts")
    return [_parse_count(count, zones) for count in counts]


def _parse_count(count: object, zones: Collection[str]) -> Count:
    match count:
        case ["queries", [str(qtype)], int(number)] if qtype in _TYPES:
            parsed: Count = "queries", (qtype,), number
        case ["replies", [str(zone), str(rcode)], int(number)] if zone in ("none", *zones) and rcode in _RCODES:
            parsed = "replies", (zone, rcode), number
        case ["messages", ["udp" | "tcp" as transport], int(number)]:
            parsed = "messages", (transport,), number
        case ["events", [str(event)], int(number)] if event in EVENTS:
            parsed = "events", (event,), number
        case _:
            raise ValueError("not a count")
    if not 0 <= number < 2**48:
        raise ValueError("not a number that could be counted")
    return parsed
