"""
The metrics, with their names in Prometheus. All of them are in the control process: nameservers send their counts over
the feed.

Labels have a bounded number of values: routes, kinds of problems, zones, and record types from a fixed list. No label
is a hostname or a token.
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

disable_created_metrics()  # type: ignore[no-untyped-call]  # they would add a second series to each counter

REGISTRY = CollectorRegistry(auto_describe=True)
"""Our own registry: other libraries may use the global one."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""https://prometheus.io/docs/instrumenting/exposition_formats/"""

_FAST = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
"""Buckets in seconds, for the time of a transaction on fast and on slow disks."""

REQUESTS = Counter(
    "responder_requests",
    "Requests by route (DNS updates as UPDATE) and outcome: ok, or the kind of the problem",
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
    "responder_batch_changes", "Number of changes in a transaction", buckets=(1, 2, 5, 10, 20, 50, 100, 200, 512),
    registry=REGISTRY,
)  # fmt: skip
QUERIES = Counter("responder_dns_queries", "Well-formed DNS queries, by type", ["type"], registry=REGISTRY)
REPLIES = Counter(
    "responder_dns_replies",
    "DNS replies by zone and rcode; zone none has the replies of no zone, such as refusals and replies to updates",
    ["zone", "rcode"],
    registry=REGISTRY,
)
MESSAGES = Counter("responder_dns_messages", "DNS messages received, by transport", ["transport"], registry=REGISTRY)
EVENTS = Counter(
    "responder_dns_events",
    "DNS events: ignored and malformed messages, truncated replies, and replies that the rate limit cut or dropped",
    ["event"],
    registry=REGISTRY,
)
LEASE = Gauge(
    "responder_node_lease_seconds",
    "Seconds until the lease of each node ends, as of the last look; negative if it has ended",
    ["node"],
    registry=REGISTRY,
)
SERIAL = Gauge("responder_node_serial", "Serial that each node serves of a zone", ["node", "zone"], registry=REGISTRY)
CLOCK = Gauge(
    "responder_clock_ahead_seconds",
    "Seconds by which the clock of this node is ahead of the database's; negative if it is behind",
    registry=REGISTRY,
)
DATABASE = Gauge("responder_database_up", "1 if the database answers, otherwise 0", registry=REGISTRY)
CONDITION = Gauge(
    "responder_condition_ok",
    "1 if that condition of the readiness check is ok, otherwise 0",
    ["condition"],
    registry=REGISTRY,
)
VALUES = Gauge("responder_values", "Number of stored challenge values", registry=REGISTRY)
OLDEST = Gauge(
    "responder_oldest_value_age_seconds", "Age of the oldest stored challenge value; 0 without one", registry=REGISTRY
)
TOKENS = Gauge(
    "responder_tokens",
    "Tokens that are not revoked, by when they expire: within 1d, 7d or 30d, later, never, or expired already",
    ["expires"],
    registry=REGISTRY,
)
NAMESERVERS = Gauge("responder_nameservers", "Nameserver processes that answer queries", registry=REGISTRY)
LAG = Gauge(
    "responder_feed_unacknowledged", "Frames that the slowest nameserver has not acknowledged yet", registry=REGISTRY
)
RESTARTS = Counter("responder_child_restarts", "Restarts of processes that died", ["process"], registry=REGISTRY)
CONNECTIONS = Gauge(
    "responder_http_connections",
    "HTTP connections by listener, TLS handshakes included",
    ["listener"],
    registry=REGISTRY,
)
CONNECTIONS_CLOSED = Counter(
    "responder_http_connections_closed",
    "HTTP connections that the service closed, by listener and reason: refused (no room), evicted (to make room), "
    "handshake (failed or not finished), not-a-proxy (refused by api.proxy_protocol), proxy-header (the header of a "
    "trusted proxy is malformed), no-request (no request in time), unread (the reply was not read in time)",
    ["listener", "reason"],
    registry=REGISTRY,
)
CERTIFICATE = Gauge(
    "responder_certificate_expiry_timestamp_seconds",
    "When the API's own certificate expires; kind is issued, or self-signed while there is no issued one",
    ["kind"],
    registry=REGISTRY,
)


def expose() -> bytes:
    """Return all metrics in the text format of Prometheus."""
    return generate_latest(REGISTRY)


def count(family: str, labels: Sequence[str], number: int) -> None:
    """Add *number*, which a nameserver has counted, to a metric; *family* is one of `responder.dns.counts`."""
    _COUNTS[family].labels(*labels).inc(number)


_COUNTS = {"queries": QUERIES, "replies": REPLIES, "messages": MESSAGES, "events": EVENTS}
