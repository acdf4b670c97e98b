"""
What is counted and measured, under the names that Prometheus sees. All of it is in the control process: nameservers
send what they count over the feed.

Labels are bounded: routes, kinds of problems, zones, types of our own choice. No hostname and no token is among them.
"""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which nobody asks for

REGISTRY = CollectorRegistry(auto_describe=True)
"""A registry of our own: the library's global one is everybody's."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""https://prometheus.io/docs/instrumenting/exposition_formats/"""

_FAST = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
"""Seconds, around what a transaction takes on a good and on a bad disk."""

REQUESTS = Counter(
    "responder_requests",
    "Requests by route (DNS updates as UPDATE) and what came of them: ok, or the kind of the problem",
    ["route", "outcome"],
    registry=REGISTRY,
)
COMMIT = Histogram(
    "responder_commit_seconds", "Time of a transaction that writes changes", buckets=_FAST, registry=REGISTRY
)
PUBLISH = Histogram(
    "responder_publish_seconds",
    "Time from a commit until every nameserver has acknowledged it",
    buckets=_FAST,
    registry=REGISTRY,
)
PROPAGATION = Histogram(
    "responder_propagation_seconds",
    "Time from publishing a change on this node until all other nodes confirmed it, or until the deadline",
    buckets=_FAST,
    registry=REGISTRY,
)
BATCH = Histogram(
    "responder_batch_changes", "Changes that share a transaction", buckets=(1, 2, 5, 10, 20, 50, 100, 200, 512),
    registry=REGISTRY,
)  # fmt: skip
QUERIES = Counter("responder_dns_queries", "DNS queries that are well-formed, by type", ["type"], registry=REGISTRY)
REPLIES = Counter(
    "responder_dns_replies",
    "DNS replies by zone and rcode; zone none: those that no zone answers, such as refusals and replies to updates",
    ["zone", "rcode"],
    registry=REGISTRY,
)
MESSAGES = Counter("responder_dns_messages", "DNS messages received, by transport", ["transport"], registry=REGISTRY)
EVENTS = Counter(
    "responder_dns_events",
    "ignored and malformed messages; truncated replies; replies that are limited: cut to the question, or dropped",
    ["event"],
    registry=REGISTRY,
)
DATABASE = Gauge("responder_database_up", "1 if the database answered just now, or else 0", registry=REGISTRY)
CONDITION = Gauge(
    "responder_condition_ok",
    "1 if that condition of the readiness check is ok, or else 0",
    ["condition"],
    registry=REGISTRY,
)
VALUES = Gauge("responder_values", "Challenge values in place", registry=REGISTRY)
OLDEST = Gauge("responder_oldest_value_age_seconds", "Age of the oldest value in place; 0 if none", registry=REGISTRY)
TOKENS = Gauge(
    "responder_tokens",
    "Tokens in use, by the time until they expire: 1d, 7d, 30d, later, never; and those expired",
    ["expires"],
    registry=REGISTRY,
)
NAMESERVERS = Gauge("responder_nameservers", "Nameserver processes that answer queries", registry=REGISTRY)
LAG = Gauge(
    "responder_feed_unacknowledged", "Frames that the slowest nameserver has yet to acknowledge", registry=REGISTRY
)
RESTARTS = Counter(
    "responder_child_restarts", "Processes that died and were started again", ["process"], registry=REGISTRY
)
CONNECTIONS = Gauge(
    "responder_http_connections",
    "HTTP connections by listener, TLS handshakes included",
    ["listener"],
    registry=REGISTRY,
)
CONNECTIONS_CLOSED = Counter(
    "responder_http_connections_closed",
    "HTTP connections that were not left to their clients, by listener: refused (no room), evicted (made room), "
    "handshake (not finished or failed), no-request (none in time), unread (the answer was not read in time)",
    ["listener", "reason"],
    registry=REGISTRY,
)
CERTIFICATE = Gauge(
    "responder_certificate_expiry_timestamp_seconds",
    "When the API's own certificate expires; kind is issued, or self-signed while there is no better one",
    ["kind"],
    registry=REGISTRY,
)


def expose() -> bytes:
    """Everything in Prometheus's text format."""
    return generate_latest(REGISTRY)


def count(family: str, labels: Sequence[str], number: int) -> None:
    """Add what a nameserver has counted, by the families of `responder.dns.counts`."""
    _COUNTS[family].labels(*labels).inc(number)


_COUNTS = {"queries": QUERIES, "replies": REPLIES, "messages": MESSAGES, "events": EVENTS}
