"""
How many connections of a listener each client has, and which one is closed for a new one. No I/O.

A connection has a place from the moment that it is accepted. It either waits for its client, which has to send a
handshake, a request or a body, or to read a response; or it is at work. A connection at work is not closed for another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

PER_CLIENT = 10
"""One client may have a tenth of all places. This is enough for a proxy, and leaves places for other clients."""


@dataclass(slots=True, eq=False)
class Place:
    """The place of one connection of *client*. *close* ends the connection, in any state."""

    client: str
    close: Callable[[], None]
    _places: Places = field(repr=False)
    at_work: bool = False
    waits_since: int = 0
    """A number that is higher for each place that begins to wait later."""

    def wait(self) -> None:
        """From now on, the connection waits for its client."""
        self._places.put_last(self)
        self.at_work = False

    def work(self) -> None:
        """The connection is at work until the next `wait`, so it is not closed for another one."""
        self.at_work = True

    def leave(self) -> bool:
        """Free the place. Returns False if it was free already."""
        return self._places.remove(self)


@dataclass(frozen=True, slots=True)
class Crowd:
    """The *client* that has too many connections for another one, and the number of its *connections*."""

    client: str
    connections: int


class Places:
    """The places of one listener. *most* returns how many there are."""

    def __init__(self, most: Callable[[], int]) -> None:
        self._most = most
        self._by_client: dict[str, dict[Place, None]] = {}  # those that wait for longest first
        self._total = 0
        self._waits = 0

    def __len__(self) -> int:
        return self._total

    def take(self, client: str, close: Callable[[], None], *, share: bool = True) -> tuple[Place | None, Crowd | None]:
        """
        A place for a new connection of *client*, which *close* ends; or None if there is no place.

        If no place is free, the connection that has waited for longest is closed: one of *client* if that has as many
        as it may, or else one of the client with the most connections. There is no place if all of these are at work.
        The second part of the result is the client whose connections were looked at, or None if a place was free.
        Without a *share*, the client may have all places.
        """
        most, own = self._most(), self._by_client.get(client, {})
        if share and len(own) >= max(1, most // PER_CLIENT):
            crowded = own
        elif self._total >= most:
            crowded = max(self._by_client.values(), key=_weight)
        else:
            return self._add(client, close), None
        crowd = Crowd(next(iter(crowded)).client, len(crowded))
        longest = _longest_waiting(crowded)
        if longest is None:
            return None, crowd
        longest.leave()  # at once, so that the next connection does not choose it again
        longest.close()
        return self._add(client, close), crowd

    def put_last(self, place: Place) -> None:
        """Make *place* the last one of its client, since it has waited for the shortest time."""
        places = self._by_client.get(place.client, {})
        if place in places:
            del places[place]
            self._waits += 1
            place.waits_since = self._waits
            places[place] = None

    def remove(self, place: Place) -> bool:
        """Free *place*. Returns False if it was free already."""
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
    """A key to find the client with the most places, if one of them waits; among equals, the one that waits longest."""
    longest = _longest_waiting(places)
    return (False, 0, 0) if longest is None else (True, len(places), -longest.waits_since)
