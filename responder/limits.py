"""
How often a client may ask. The `limits` library counts; this says whom, and what becomes of who asks too much.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from uuid import UUID

import limits
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter

from responder.addresses import client_of
from responder.config import ApiSettings
from responder.errors import TooManyRequests

MAX_COUNTED = 20_000
"""Clients that are counted at once, about 4 MB. Of more, those counted longest start afresh."""


class Limits:
    """Counts requests, failures and registrations. All methods raise `TooManyRequests`."""

    def __init__(self, settings: ApiSettings) -> None:
        self._windows = FixedWindowRateLimiter(_Windows())
        self._in_all = FixedWindowRateLimiter(_Windows())  # by itself: a flood of addresses would have it forgotten
        self._per_address = limits.parse(settings.limits.per_address)
        self._per_token = limits.parse(settings.limits.per_token)
        self._failures = limits.parse(settings.limits.failures)
        self._registrations = limits.parse(settings.registration.limit)
        self._registrations_in_all = limits.parse(settings.registration.limit_in_all)

    def count_request(self, address: str) -> None:
        """One more request from *address*, whatever it is about."""
        self._hit(self._per_address, "requests from your address", "request", client_of(address))

    def count_use(self, token_id: UUID, changes: int = 1) -> None:
        """One more request with that token, or as many as it asks for *changes*, if those are more."""
        self._hit(self._per_token, "requests with this token", "use", str(token_id), cost=max(1, changes))

    def count_registration(self, address: str) -> None:
        """One more account for *address*, and one more of those that everybody may have together."""
        self._hit(self._registrations, "registrations from your address", "registration", client_of(address))
        if not self._in_all.hit(self._registrations_in_all):
            raise _refusal(self._in_all, self._registrations_in_all, "registrations in all")

    def count_failure(self, address: str) -> None:
        """One more credential from *address* that is not known here."""
        self._hit(self._failures, "failed requests from your address", "failure", client_of(address))

    def count_refusal(self, token_id: UUID) -> None:
        """One more request with that token that is refused: it has expired, for example."""
        self._hit(self._failures, "refused requests with this token", "refusal", str(token_id))

    def count_guess(self, address: str, token_id: UUID) -> None:
        """One more password from *address* that is to be compared with the bcrypt hash of that token."""
        self._hit(self._failures, "passwords for this account", "guess", f"{client_of(address)} {token_id}")

    def _hit(self, limit: limits.RateLimitItem, what: str, kind: str, client: str, cost: int = 1) -> None:
        if not self._windows.test(limit, kind, client, cost=cost) or not self._windows.hit(
            limit, kind, client, cost=cost
        ):
            raise _refusal(self._windows, limit, what, kind, client)


class _Windows(Storage):
    """
    Counters in memory, a bounded number of them.

    The library's own keeps as many as there are clients, and walks through all of them again and again.
    Its windows also end by the time of day: set back by an hour, that would keep clients out for an hour.
    """

    STORAGE_SCHEME = None

    def __init__(self) -> None:
        super().__init__()
        self._counters: OrderedDict[str, tuple[int, float]] = OrderedDict()

    @property
    def base_exceptions(self) -> type[Exception]:
        return ValueError

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        count, ends = self._current(key)
        if not count:
            self._counters.pop(key, None)
            ends = time.monotonic() + expiry
            if len(self._counters) >= MAX_COUNTED:
                self._counters.popitem(last=False)
        self._counters[key] = count + amount, ends
        return count + amount

    def get(self, key: str) -> int:
        return self._current(key)[0]

    def get_expiry(self, key: str) -> float:
        return self._current(key)[1]

    def check(self) -> bool:
        return True

    def reset(self) -> int:
        dropped = len(self._counters)
        self._counters.clear()
        return dropped

    def clear(self, key: str) -> None:
        self._counters.pop(key, None)

    def _current(self, key: str) -> tuple[int, float]:
        """Count and end of the window that *key* is in; 0 if there is none, or it is over."""
        now = time.monotonic()
        count, ends = self._counters.get(key, (0, now))
        return (count, ends) if ends > now else (0, now)


def _refusal(
    windows: FixedWindowRateLimiter, limit: limits.RateLimitItem, what: str, *identifiers: str
) -> TooManyRequests:
    reset = windows.get_window_stats(limit, *identifiers).reset_time
    return TooManyRequests(
        f"too many {what}: {limit} are allowed; wait as long as Retry-After says",
        retry_after=max(1, math.ceil(reset - time.monotonic())),
    )
