"""How often a client may ask, and which client that is."""

from __future__ import annotations

import contextlib
from uuid import uuid4

import pytest

from responder import limits
from responder.config import ApiSettings
from responder.errors import TooManyRequests
from responder.limits import Limits

FEW = ApiSettings.model_validate(
    {
        "limits": {"per_token": "2/minute", "per_address": "3/minute", "failures": "1/minute"},
        "registration": {"limit": "1/hour", "limit_in_all": "8/day"},
    }
)


def test_each_counts_for_itself() -> None:
    """Tokens and addresses have as many as they are given; the next is refused, with the seconds to wait."""
    counted = Limits(FEW)
    one, other = uuid4(), uuid4()
    for token_id in (one, one, other, other):
        counted.count_use(token_id)
    with pytest.raises(
        TooManyRequests, match="too many requests with this token: 2 per 1 minute are allowed"
    ) as raised:
        counted.count_use(one)
    assert 0 < raised.value.retry_after <= 60
    for address in ("192.0.2.1", "192.0.2.2"):
        for _ in range(3):
            counted.count_request(address)
    with pytest.raises(TooManyRequests, match="from your address: 3 per 1 minute"):
        counted.count_request("192.0.2.1")


def test_changes_count() -> None:
    """An update of several changes counts as many; one that is refused for that uses up nothing."""
    counted, token_id = Limits(FEW), uuid4()
    with pytest.raises(TooManyRequests):
        counted.count_use(token_id, 3)
    counted.count_use(token_id, 2)
    with pytest.raises(TooManyRequests):
        counted.count_use(token_id, 0)


def test_failures_count_apart() -> None:
    """Unknown tokens count by address, refusals by token, guesses by both: none of them uses up another's number."""
    counted = Limits(FEW)
    one, other = uuid4(), uuid4()
    for token_id in (one, other):
        counted.count_refusal(token_id)
        for address in ("192.0.2.1", "192.0.2.2"):
            counted.count_guess(address, token_id)
    counted.count_failure("192.0.2.1")
    counted.count_failure("192.0.2.2")
    with pytest.raises(TooManyRequests, match="too many failed requests from your address"):
        counted.count_failure("192.0.2.1")
    with pytest.raises(TooManyRequests, match="too many refused requests with this token"):
        counted.count_refusal(one)
    with pytest.raises(TooManyRequests, match="too many passwords for this account"):
        counted.count_guess("192.0.2.1", one)


def test_an_ipv6_network_is_one_client() -> None:
    """Whoever has one address of a /64 has all; IPv4 in IPv6 is IPv4; what is no address counts as it is."""
    counted = Limits(FEW)
    counted.count_registration("2001:db8::1")
    with pytest.raises(TooManyRequests):
        counted.count_registration("2001:db8::ffff:1")
    counted.count_registration("2001:db8:0:1::1")
    counted.count_registration("::ffff:192.0.2.1")
    counted.count_registration("::ffff:192.0.2.2")
    counted.count_registration("")
    with pytest.raises(TooManyRequests):
        counted.count_registration("")


def test_windows_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time it names, a client starts afresh. A clock that is set back does not make that any longer."""
    now = [1000.0]
    monkeypatch.setattr("responder.limits.time.monotonic", lambda: now[0])
    set_back = iter(range(2_000_000_000, 0, -100_000_000))
    monkeypatch.setattr("responder.limits.time.time", lambda: float(next(set_back)))
    counted = Limits(FEW)
    counted.count_registration("192.0.2.1")
    with pytest.raises(TooManyRequests) as raised:
        counted.count_registration("192.0.2.1")
    assert 3600 == raised.value.retry_after
    now[0] += 3600
    counted.count_registration("192.0.2.1")


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of too many clients those counted longest are forgotten."""
    monkeypatch.setattr(limits, "MAX_COUNTED", 3)
    counted = Limits(FEW)
    for number in range(4):
        counted.count_registration(f"192.0.2.{number}")
    assert 3 == len(counted._windows.storage._counters)  # type: ignore[attr-defined]
    counted.count_registration("192.0.2.0")
    with pytest.raises(TooManyRequests):
        counted.count_registration("192.0.2.3")


def test_registrations_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many addresses ask, so many accounts are made and no more; the refused use nothing up."""
    monkeypatch.setattr(limits, "MAX_COUNTED", 3)  # nor can a flood of addresses have that forgotten
    counted = Limits(FEW)
    for _ in range(5):
        with contextlib.suppress(TooManyRequests):
            counted.count_registration("198.51.100.1")
    for number in range(7):
        counted.count_registration(f"192.0.2.{number}")
        counted.count_request(f"192.0.2.{number + 100}")
    with pytest.raises(TooManyRequests, match="registrations in all: 8 per 1 day are allowed") as raised:
        counted.count_registration("203.0.113.1")
    assert 3600 < raised.value.retry_after <= 86_400
