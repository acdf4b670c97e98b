"""
The updates of late, so that none is carried out twice.

What was signed is good until the clock has moved on by the fudge, so whoever overhears an update could send it again:
a value would reappear after its cleanup, or go again after it was presented anew. A copy gets the answer to the
original instead, and so does a client that asks again because it heard none. What has to be forgotten before its time
leaves a mark: nothing that its key signed as early is taken any more (RFC 8945, section 5.2.3, would have that always).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from responder.update.signatures import Result
from responder.update.tsig import MAX_FUDGE, KeyName

MAX_OF_KEY = 512
"""Updates remembered of one key: more than it can send in a second, so that the mark stays behind the clock."""

MAX_IN_ALL = 100_000
"""Updates remembered of all keys, some 40 MB. Only who has a good key gets here."""

_Updates = dict[bytes, tuple[int, asyncio.Future[Result]]]
"""Updates of one key by their MACs: when they were signed, and what became of them."""


class Replays:
    """Remembers updates. Times are Unix seconds."""

    def __init__(self) -> None:
        self._keys: OrderedDict[KeyName, _Updates] = OrderedDict()  # the first is unused for longest
        self._marks: OrderedDict[KeyName, int] = OrderedDict()  # the first was made first
        self._count = 0

    def find(self, key_name: KeyName, mac: bytes) -> asyncio.Future[Result] | None:
        """What came, or is going to come, of the update with that *mac*."""
        found = self._keys.get(key_name, {}).get(mac)
        return found[1] if found is not None else None

    def is_forgotten(self, key_name: KeyName, signed_at: int) -> bool:
        """Whether what was signed then may have been here, without our knowing."""
        return signed_at <= self._marks.get(key_name, 0)

    def remember(
        self, key_name: KeyName, mac: bytes, signed_at: int, outcome: asyncio.Future[Result], *, now: int
    ) -> None:
        """Remember an update for as long as its signature is good."""
        updates = self._keys.setdefault(key_name, {})
        self._keys.move_to_end(key_name)
        if len(updates) >= MAX_OF_KEY:
            self._make_room(key_name, updates, now)
        updates[mac] = signed_at, outcome
        self._count += 1
        while self._count > MAX_IN_ALL:
            self._forget_a_key(now)

    def _make_room(self, key_name: KeyName, updates: _Updates, now: int) -> None:
        """Forget what is no longer good, or else the oldest."""
        gone = [mac for mac, (signed_at, _) in updates.items() if signed_at < now - MAX_FUDGE]
        if not gone:
            mac, (signed_at, _) = min(updates.items(), key=lambda item: item[1][0])
            gone = [mac]
            self._mark(key_name, signed_at, now)
        for mac in gone:
            del updates[mac]
        self._count -= len(gone)

    def _forget_a_key(self, now: int) -> None:
        """Forget the updates of the key that was not used for longest."""
        key_name, updates = self._keys.popitem(last=False)
        self._count -= len(updates)
        self._mark(key_name, max(signed_at for signed_at, _ in updates.values()), now)

    def _mark(self, key_name: KeyName, signed_at: int, now: int) -> None:
        """Take nothing of that key any more that was signed then or before: nobody else's, whose clock may differ."""
        self._marks[key_name] = max(signed_at, self._marks.pop(key_name, 0))
        while next(iter(self._marks.values()), now) < now - MAX_FUDGE:  # such a signature is no longer good anyway
            self._marks.popitem(last=False)
