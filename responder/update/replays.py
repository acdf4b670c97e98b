"""
Remembers recent updates, so that none is carried out twice.

A signature is valid until the clock is past its time and the fudge. Until then, anyone who sees an update could send it
again: a value would reappear after its cleanup, or disappear after a new present. Instead, a copy gets the reply to the
original; so does a client that sends an update again because it received no reply. If an update must be forgotten while
its signature is valid, its time is kept as a mark: updates of its key that were signed at that time or before are
rejected from then on (RFC 8945, section 5.2.3, recommends this for all updates).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from responder.update.signatures import Result
from responder.update.tsig import MAX_FUDGE, KeyName

MAX_OF_KEY = 512
"""Updates that are remembered for one key: more than it can send in a second, so that marks stay behind the clock."""

MAX_IN_ALL = 100_000
"""Updates that are remembered for all keys: about 40 MB. Only clients with a valid key can fill it."""

_Updates = dict[bytes, tuple[int, asyncio.Future[Result]]]
"""Updates of one key by their MACs: the time of the signature, and the result."""


class Replays:
    """Remembers updates. Times are Unix seconds."""

    def __init__(self) -> None:
        self._keys: OrderedDict[KeyName, _Updates] = OrderedDict()  # the least recently used key comes first
        self._marks: OrderedDict[KeyName, int] = OrderedDict()  # the oldest mark comes first
        self._count = 0

    def find(self, key_name: KeyName, mac: bytes) -> asyncio.Future[Result] | None:
        """The result, perhaps still to come, of the update with that *mac*; None if it is not remembered."""
        found = self._keys.get(key_name, {}).get(mac)
        return found[1] if found is not None else None

    def is_forgotten(self, key_name: KeyName, signed_at: int) -> bool:
        """Whether an update that was signed at that time may have been carried out and forgotten."""
        return signed_at <= self._marks.get(key_name, 0)

    def remember(
        self, key_name: KeyName, mac: bytes, signed_at: int, result: asyncio.Future[Result], *, now: int
    ) -> None:
        """Remember an update for as long as its signature is valid."""
        updates = self._keys.setdefault(key_name, {})
        self._keys.move_to_end(key_name)
        if len(updates) >= MAX_OF_KEY:
            self._make_room(key_name, updates, now)
        updates[mac] = signed_at, result
        self._count += 1
        while self._count > MAX_IN_ALL:
            self._forget_a_key(now)

    def _make_room(self, key_name: KeyName, updates: _Updates, now: int) -> None:
        """Forget the updates whose signature is no longer valid; if there are none, forget the oldest update."""
        gone = [mac for mac, (signed_at, _) in updates.items() if signed_at < now - MAX_FUDGE]
        if not gone:
            mac, (signed_at, _) = min(updates.items(), key=lambda item: item[1][0])
            gone = [mac]
            self._mark(key_name, signed_at, now)
        for mac in gone:
            del updates[mac]
        self._count -= len(gone)

    def _forget_a_key(self, now: int) -> None:
        """Forget all updates of the least recently used key."""
        key_name, updates = self._keys.popitem(last=False)
        self._count -= len(updates)
        self._mark(key_name, max(signed_at for signed_at, _ in updates.values()), now)

    def _mark(self, key_name: KeyName, signed_at: int, now: int) -> None:
        """Reject updates of this key that were signed at that time or before; other keys may have other clocks."""
        self._marks[key_name] = max(signed_at, self._marks.pop(key_name, 0))
        while next(iter(self._marks.values()), now) < now - MAX_FUDGE:  # signatures that old are invalid anyway
            self._marks.popitem(last=False)
