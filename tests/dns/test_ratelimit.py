"""Rate limiting by client network, with the clock in the test's hand."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_network

import pytest

from responder.dns import ratelimit
from responder.dns.ratelimit import RateLimit, Verdict


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def limiter(clock: Clock, **options: object) -> RateLimit:
    settings: dict[str, object] = {"per_second": 10, "slip": 2, "exempt": (), "clock": clock}
    return RateLimit(**(settings | options))  # type: ignore[arg-type]


def verdicts(limit: RateLimit, client: str, count: int) -> Counter[Verdict]:
    return Counter(limit.judge(client) for _ in range(count))


def test_slip() -> None:
    """Up to the limit every reply is sent; above it half are cut and half dropped."""
    assert {Verdict.SEND: 10, Verdict.SLIP: 5, Verdict.DROP: 5} == verdicts(limiter(Clock()), "192.0.2.1", 20)


def test_no_slip() -> None:
    """With a slip of 0 everything above the limit is dropped."""
    assert {Verdict.SEND: 10, Verdict.DROP: 10} == verdicts(limiter(Clock(), slip=0), "192.0.2.1", 20)


def test_a_second_later() -> None:
    """A network has its whole allowance again in the next second."""
    clock = Clock()
    limit = limiter(clock)
    verdicts(limit, "192.0.2.1", 20)
    clock.now += 1

    assert Verdict.SEND == limit.judge("192.0.2.1")


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ("192.0.2.1", "192.0.2.254", True),
        ("192.0.2.1", "192.0.3.1", False),
        ("2001:db8::1", "2001:db8:0:ff::1", True),
        ("2001:db8::1", "2001:db8:0:100::1", False),
        ("fe80::1%lo", "fe80::2", True),
    ],
)
def test_networks(one: str, other: str, shared: bool) -> None:  # noqa: FBT001
    """Clients are counted by /24 and /56."""
    limit = limiter(Clock())
    verdicts(limit, one, 10)

    assert shared == (limit.judge(other) is not Verdict.SEND)


def test_exempt() -> None:
    """An exempt client is never limited, whatever its neighbours do."""
    limit = limiter(Clock(), exempt=(ip_network("192.0.2.16/28"), ip_network("2001:db8::/64")))

    assert {Verdict.SEND: 50} == verdicts(limit, "192.0.2.17", 50)
    assert {Verdict.SEND: 50} == verdicts(limit, "2001:db8::5", 50)
    assert Verdict.SEND is not limit.judge("192.0.2.1")


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood from more networks than are counted is let through, costs no more memory, and shields nobody counted."""
    monkeypatch.setattr(ratelimit, "MAX_NETWORKS", 5)
    limit = limiter(Clock())
    verdicts(limit, "192.0.2.1", 10)
    for third in range(100):
        assert Verdict.SEND == limit.judge(f"198.51.{third}.1")

    assert 5 == len(limit._counts)
    assert Verdict.SEND is not limit.judge("192.0.2.1")
