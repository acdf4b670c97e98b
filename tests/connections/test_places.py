"""Who gets a place, and who has to make room."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from responder.connections.places import PER_CLIENT, Crowd, Place, Places

MOST = 4 * PER_CLIENT
SHARE = MOST // PER_CLIENT


class Crowded:
    """Places, and those of them that were closed to make room."""

    def __init__(self, most: int = MOST) -> None:
        self.places = Places(lambda: most)
        self.closed: list[Place] = []
        self.held: list[Place] = []

    def take(self, client: str) -> Place | None:
        return self.ask(client)[0]

    def ask(self, client: str) -> tuple[Place | None, Crowd | None]:
        place, crowd = self.places.take(client, lambda: None)
        if place is not None:
            place.close = lambda: self._close(place)
            self.held.append(place)
        return place, crowd

    def have(self, client: str) -> Place:
        place = self.take(client)
        assert place is not None
        return place

    def _close(self, place: Place) -> None:
        self.closed.append(place)
        self.held.remove(place)


def test_a_client_with_its_share_makes_room_for_itself() -> None:
    """The one of its own that has waited for longest goes, free places or not; other clients keep theirs."""
    crowd = Crowded()
    other = crowd.have("other")
    first, second, *_ = (crowd.have("one") for _ in range(SHARE))
    first.wait()

    assert (SHARE, "one") == ((asked := crowd.ask("one"))[1].connections, asked[1].client)  # type: ignore[union-attr]

    assert [second] == crowd.closed
    assert other in crowd.held
    assert SHARE + 1 == len(crowd.places)


def test_those_at_work_stay() -> None:
    """A connection whose request is being answered is not closed for another one, which is then refused."""
    crowd = Crowded()
    working = [crowd.have("one") for _ in range(SHARE)]
    for place in working:
        place.work()
    assert (None, Crowd("one", SHARE)) == crowd.ask("one")
    working[2].wait()
    assert crowd.take("one") is not None
    assert [working[2]] == crowd.closed


def test_clients_never_have_everything() -> None:
    """Where as many clients as there are shares have theirs, the next one that comes still finds a place."""
    crowd = Crowded()
    for number in range(PER_CLIENT):
        for _ in range(SHARE):
            crowd.have(f"client {number}")
    assert MOST == len(crowd.places)
    for _ in range(SHARE):
        crowd.have("late")
    assert MOST == len(crowd.places)
    assert "late" not in {place.client for place in crowd.closed}
    assert {1} == {*Counter(place.client for place in crowd.closed).values()}


def test_among_equals_the_longest_wait_ends() -> None:
    """Of many clients with one connection each, the one that has been idle for longest goes."""
    crowd = Crowded(PER_CLIENT)
    first, second, *_ = (crowd.have(f"client {number}") for number in range(PER_CLIENT))
    first.work()
    first.wait()
    crowd.have("late")
    assert [second] == crowd.closed


def test_everything_at_work() -> None:
    """Where all clients are being answered, another one is refused."""
    crowd = Crowded(PER_CLIENT)
    for number in range(PER_CLIENT):
        crowd.have(f"client {number}").work()
    assert crowd.take("late") is None
    assert [] == crowd.closed


def test_leaving_twice() -> None:
    """A place is free once it is left, and no more than free if it is left again; nothing brings it back."""
    crowd = Crowded()
    place = crowd.have("one")
    assert place.leave()
    assert not place.leave()
    place.wait()
    assert 0 == len(crowd.places)


@given(st.lists(st.tuples(st.integers(0, 15), st.sampled_from(["take", "work", "wait", "leave"])), max_size=300))
def test_bounds_hold(happened: list[tuple[int, str]]) -> None:
    """Whatever happens: the limits hold, nothing at work is closed, and a crowd makes room before a lesser one."""
    crowd = Crowded(30)
    for number, what in happened:
        if what == "take":
            counts = Counter(place.client for place in crowd.held)
            waiting = {place.client for place in crowd.held if not place.at_work}
            busy, closed = {place for place in crowd.held if place.at_work}, len(crowd.closed)
            client = f"client {number % 5}"
            if crowd.take(client) is None:
                assert client not in waiting
                assert counts[client] == 3 or not waiting
            for gone in crowd.closed[closed:]:
                assert gone not in busy
                assert gone.client == client or counts[gone.client] == max(counts[each] for each in waiting)
        elif crowd.held:
            place = crowd.held[number % len(crowd.held)]
            getattr(place, what)()
            if what == "leave":
                crowd.held.remove(place)
        assert len(crowd.places) == len(crowd.held) <= 30
        assert all(count <= 3 for count in Counter(place.client for place in crowd.held).values())
