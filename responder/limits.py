"""
Rate limits of clients. The `limits` library counts; this module defines what is counted and the error above a limit.
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
"""Counters in memory, about 4 MB. A new one beyond this number removes the oldest, whose client starts from zero."""


class Limits:
    """Counts requests, failures and registrations. All methods raise `TooManyRequests` above the limit."""

    def __init__(self, settings: ApiSettings) -> None:
        self._windows = FixedWindowRateLimiter(_Windows())
        self._in_all = FixedWindowRateLimiter(_Windows())  # separate: a flood of addresses must not remove this counter
        self._per_address = limits.parse(settings.limits.per_address)
        self._per_token = limits.parse(settings.limits.per_token)
        self._failures = limits.parse(settings.limits.failures)
        self._registrations = limits.parse(settings.registration.limit)
        self._registrations_in_all = limits.parse(settings.registration.limit_in_all)

    def count_request(self, address: str) -> None:
        """Count a request of any kind from *address*."""
        self._hit(self._per_address, "requests from your address", "request", client_of(address))

    def count_use(self, token_id: UUID, changes: int = 1) -> None:
        """Count a request with the token. A request for several *changes* counts once for each of them."""
        self._hit(self._per_token, "requests with this token", "use", str(token_id), cost=max(1, changes))

    def count_registration(self, address: str) -> None:
        """Count a registration, against the limit of *address* and against the limit of all clients together."""
        self._hit(self._registrations, "registrations from your address", "registration", client_of(address))
        if not self._in_all.hit(self._registrations_in_all):
            raise _refusal(self._in_all, self._registrations_in_all, "registrations in all")

    def count_failure(self, address: str) -> None:
        """Count a request from *address* with an unknown credential."""
        self._hit(self._failures, "failed requests from your address", "failure", client_of(address))

    def count_refusal(self, token_id: UUID) -> None:
        """Count a request that was refused although its token is known: for example, the token has expired."""
        self._hit(self._failures, "refused requests with this token", "refusal", str(token_id))

    def count_guess(self, address: str, token_id: UUID) -> None:
        """Count a password from *address* that has to be compared with the bcrypt hash of the token."""
        self._hit(self._failures, "passwords for this account", "guess", f"{client_of(address)} {token_id}")

    def _hit(self, limit: limits.RateLimitItem, what: str, kind: str, client: str, cost: int = 1) -> None:
        if not self._windows.test(limit, kind, client, cost=cost) or not self._windows.hit(
            limit, kind, client, cost=cost
        ):
            raise _refusal(self._windows, limit, what, kind, client)


class _Windows(Storage):
    """
    A bounded number of counters in memory.

    The storage of the library keeps a counter for every client, and walks through all of them regularly. Its windows
    also end by the time of day: if the clock is set back by an hour, it refuses clients for an hour.
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
        """Return the count of the current window of *key* and when it ends; the count is 0 if there is no window."""
        now = time.monotonic()
        count, ends = self._counters.get(key, (0, now))
        return (count, ends) if ends > now else (0, now)


def _refusal(
    windows: FixedWindowRateLimiter, limit: limits.RateLimitItem, what: str, *identifiers: str
) -> TooManyRequests:
    reset = windows.get_window_stats(limit, *identifiers).reset_time
    return TooManyRequests(
        f"too many {what}: {limit} are allowed; wait for the time in Retry-After",
        retry_after=max(1, math.ceil(reset - time.monotonic())),
    )
