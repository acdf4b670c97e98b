"""
Who has how many of a listener's connections, and which of them has to make room for a new one. No I/O.

A connection has a place from the moment it is accepted. It is either waiting for its client, which has yet to send a
handshake, a request or a body, or to read an answer; or it is at work for it. One at work is never closed to make room.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

PER_CLIENT = 10
"""One client may have a tenth of all places: several together never have all of them, and a proxy has enough."""


@dataclass(slots=True, eq=False)
class Place:
    """The place of one connection of *client*. *close* ends the connection in any state."""

    client: str
    close: Callable[[], None]
    _places: Places = field(repr=False)
    at_work: bool = False
    waits_since: int = 0
    """A number that grows with each place that begins to wait."""

    def wait(self) -> None:
        """The client is waited for from now on."""
        self._places.put_last(self)
        self.at_work = False

    def work(self) -> None:
        """All that was waited for is there: until the next `wait`, this is no connection to close for another."""
        self.at_work = True

    def leave(self) -> bool:
        """The connection is gone, or is not counted any more. Returns False if it had left already."""
        return self._places.remove(self)


@dataclass(frozen=True, slots=True)
class Crowd:
    """The *client* that left no room for another connection, and how many *connections* it has."""

    client: str
    connections: int


class Places:
    """The places of one listener, of which there are as many as *most* returns."""

    def __init__(self, most: Callable[[], int]) -> None:
        self._most = most
        self._by_client: dict[str, dict[Place, None]] = {}  # those that wait for longest first
        self._total = 0
        self._waits = 0

    def __len__(self) -> int:
        return self._total

    def take(self, client: str, close: Callable[[], None]) -> tuple[Place | None, Crowd | None]:
        """
        A place for a new connection of *client*, which *close* ends.

        Without a free one, the connection that has waited for its client for longest is closed: of *client* itself if
        that has its share, or else of the client that has the most. None if all of those are at work. The second part
        is the client that had to make room, or that has as many as it may.
        """
        most, own = self._most(), self._by_client.get(client, {})
        if len(own) >= max(1, most // PER_CLIENT):
            crowded = own
        elif self._total >= most:
            crowded = max(self._by_client.values(), key=_weight)
        else:
            return self._add(client, close), None
        crowd = Crowd(next(iter(crowded)).client, len(crowded))
        longest = _longest_waiting(crowded)
        if longest is None:
            return None, crowd
        longest.leave()  # at once: the next to come needs another one to go
        longest.close()
        return self._add(client, close), crowd

    def put_last(self, place: Place) -> None:
        """Of the places of its client, this one has waited for the shortest time."""
        places = self._by_client.get(place.client, {})
        if place in places:
            del places[place]
            self._waits += 1
            place.waits_since = self._waits
            places[place] = None

    def remove(self, place: Place) -> bool:
        """Free *place*, unless that was done already."""
        places = self._by_client.get(place.client, {})
        if place not in places:
            return False
        del places[place]
        self._total -= 1
        if not places:
            del self._by_client[place.client]
        return True

    def _add(self, client: str, close: Callable[[], None]) -> Place:
        place = Place(client, close, self)
        self._by_client.setdefault(client, {})[place] = None
        self._total += 1
        place.wait()
        return place


def _longest_waiting(places: dict[Place, None]) -> Place | None:
    return next((place for place in places if not place.at_work), None)


def _weight(places: dict[Place, None]) -> tuple[bool, int, int]:
    """More places weigh more, if one of them can go at all; among equals, those with the one that waits for longest."""
    longest = _longest_waiting(places)
    return (False, 0, 0) if longest is None else (True, len(places), -longest.waits_since)
