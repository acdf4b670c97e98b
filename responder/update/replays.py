"""
The updates of late, so that none is carried out twice.

What was signed is good until the clock has moved on by the fudge, so whoever overhears an update could send it again:
a value would reappear after its cleanup, or go again after it was presented anew. A copy gets the answer to the
original instead, and so does a client that asks again because it heard none. What has to be forgotten before its time
leaves a mark: nothing signed as early as that is taken any more (RFC 8945, section 5.2.3, would have it so always).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

from responder.update.tsig import MAX_FUDGE, KeyName
from responder.wire import Rcode

MAX_OF_KEY = 512
"""Updates remembered of one key: more than it can send in a second, so that the mark stays behind the clock."""

MAX_IN_ALL = 100_000
"""Updates remembered of all keys, some 40 MB. Only who has a good key gets here."""


@dataclass(slots=True)
class _Key:
    """The updates of one key by their MACs: when they were signed, and what became of them."""

    updates: dict[bytes, tuple[int, asyncio.Future[Rcode]]] = field(default_factory=dict)
    mark: int = 0


class Replays:
    """Remembers updates. Times are Unix seconds."""

    def __init__(self) -> None:
        self._keys: OrderedDict[KeyName, _Key] = OrderedDict()  # the first is unused for longest
        self._count = 0
        self._mark = 0

    def find(self, key_name: KeyName, mac: bytes) -> asyncio.Future[Rcode] | None:
        """What came, or is going to come, of the update with that *mac*."""
        key = self._keys.get(key_name)
        found = key.updates.get(mac) if key is not None else None
        return found[1] if found is not None else None

    def is_forgotten(self, key_name: KeyName, signed_at: int) -> bool:
        """Whether what was signed then may have been here, without our knowing."""
        key = self._keys.get(key_name)
        return signed_at <= max(self._mark, key.mark if key is not None else 0)

    def remember(
        self, key_name: KeyName, mac: bytes, signed_at: int, outcome: asyncio.Future[Rcode], *, now: int
    ) -> None:
        """Remember an update for as long as its signature is good."""
        key = self._keys.setdefault(key_name, _Key())
        self._keys.move_to_end(key_name)
        if len(key.updates) >= MAX_OF_KEY:
            self._count -= _make_room(key, now)
        key.updates[mac] = signed_at, outcome
        self._count += 1
        while self._count > MAX_IN_ALL:
            self._forget_a_key(now)

    def _forget_a_key(self, now: int) -> None:
        """Forget the key that was not used for longest, and take nothing any more that is as old as its last update."""
        _, key = self._keys.popitem(last=False)
        self._count -= len(key.updates)
        last = max((signed_at for signed_at, _ in key.updates.values()), default=0)
        self._mark = max(self._mark, key.mark, last if last >= now - MAX_FUDGE else 0)


def _make_room(key: _Key, now: int) -> int:
    """Forget what is no longer good, or else the oldest. Returns how many that were."""
    before = len(key.updates)
    good = {mac: update for mac, update in key.updates.items() if update[0] >= now - MAX_FUDGE}
    if len(good) == before:
        mac, (signed_at, _) = min(good.items(), key=lambda item: item[1][0])
        del good[mac]
        key.mark = max(key.mark, signed_at)
    key.updates = good
    return before - len(good)
