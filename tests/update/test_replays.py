"""What is remembered of updates, and what becomes of what had to be forgotten."""

from __future__ import annotations

import asyncio
from typing import Any, cast
from uuid import UUID

import pytest

from responder.update import replays
from responder.update.replays import Replays
from responder.update.signatures import Result
from responder.update.tsig import MAX_FUDGE, KeyName

NOW = 1_700_000_000
KEY, OTHER = KeyName(UUID(int=1), 1), KeyName(UUID(int=2), 1)


def outcome(what: str = "an outcome") -> asyncio.Future[Result]:
    return cast("asyncio.Future[Result]", cast("Any", what))


def remember(memory: Replays, key: KeyName, mac: int, signed_at: int, *, now: int | None = None) -> None:
    memory.remember(key, b"%d" % mac, signed_at, outcome(), now=signed_at if now is None else now)


def test_remembered() -> None:
    """An update is found again by its key and its MAC."""
    memory = Replays()
    memory.remember(KEY, b"mac", NOW, outcome("the first"), now=NOW)

    assert outcome("the first") is memory.find(KEY, b"mac")
    assert memory.find(KEY, b"MAC") is None
    assert memory.find(OTHER, b"mac") is None
    assert not memory.is_forgotten(KEY, NOW)


def test_forgotten_of_one_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of too many the one signed first is forgotten; nothing of that key is taken that was signed as early."""
    monkeypatch.setattr(replays, "MAX_OF_KEY", 3)
    memory = Replays()
    for mac, signed_at in enumerate([NOW + 2, NOW, NOW + 3, NOW + 4]):
        remember(memory, KEY, mac, signed_at, now=NOW)

    assert [True, False, True, True] == [memory.find(KEY, b"%d" % mac) is not None for mac in range(4)]
    assert [True, True, False] == [memory.is_forgotten(KEY, at) for at in (NOW - 1, NOW, NOW + 1)]
    assert not memory.is_forgotten(OTHER, NOW)


def test_what_is_too_old_leaves_no_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no longer good is forgotten first, all of it, and costs nobody anything."""
    monkeypatch.setattr(replays, "MAX_OF_KEY", 3)
    memory = Replays()
    later = NOW + MAX_FUDGE + 1
    for mac in range(3):
        remember(memory, KEY, mac, NOW)
    remember(memory, KEY, 3, later)

    assert [False, False, False, True] == [memory.find(KEY, b"%d" % mac) is not None for mac in range(4)]
    assert not memory.is_forgotten(KEY, NOW)


def test_forgotten_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of too many in all, those of the key unused for longest are forgotten, and nothing as old is taken of it."""
    monkeypatch.setattr(replays, "MAX_IN_ALL", 3)
    memory = Replays()
    first, second, third = (KeyName(UUID(int=n), 1) for n in range(3))
    remember(memory, first, 1, NOW)
    remember(memory, second, 1, NOW + 1)
    remember(memory, first, 2, NOW + 2)
    remember(memory, third, 1, NOW + 3)

    assert memory.find(second, b"1") is None
    assert [True, True] == [memory.find(first, mac) is not None for mac in (b"1", b"2")]
    assert [True, False] == [memory.is_forgotten(second, at) for at in (NOW + 1, NOW + 2)]


def test_a_forgotten_key_is_no_burden_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its holder's clock may be five minutes ahead: what others sign meanwhile is taken all the same."""
    monkeypatch.setattr(replays, "MAX_IN_ALL", 1)
    memory = Replays()
    remember(memory, KEY, 1, NOW + MAX_FUDGE, now=NOW)
    remember(memory, OTHER, 1, NOW)

    assert memory.is_forgotten(KEY, NOW + MAX_FUDGE)
    assert not memory.is_forgotten(KeyName(UUID(int=3), 1), NOW)
    assert not memory.is_forgotten(OTHER, NOW + 1)


def test_keys_that_are_long_unused_leave_no_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key whose updates are no longer good is forgotten without a trace."""
    monkeypatch.setattr(replays, "MAX_IN_ALL", 1)
    memory = Replays()
    remember(memory, KEY, 1, NOW)
    remember(memory, OTHER, 1, NOW + MAX_FUDGE + 1)

    assert memory.find(KEY, b"1") is None
    assert not memory.is_forgotten(KEY, NOW)


def test_marks_go_when_they_mean_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many keys are forgotten over time, no more is kept of them than the signatures of late could need."""
    monkeypatch.setattr(replays, "MAX_IN_ALL", 1)
    memory = Replays()
    for n in range(5 * MAX_FUDGE):
        remember(memory, KeyName(UUID(int=n), 1), n, NOW + n)

    assert len(memory._marks) <= MAX_FUDGE + 1
    assert memory.is_forgotten(KeyName(UUID(int=5 * MAX_FUDGE - 2), 1), NOW + 5 * MAX_FUDGE - 2)


def test_both_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many come of however many keys, no more are held than may be."""
    monkeypatch.setattr(replays, "MAX_OF_KEY", 4)
    monkeypatch.setattr(replays, "MAX_IN_ALL", 10)
    memory = Replays()
    for n in range(200):
        remember(memory, KeyName(UUID(int=n * n % 7), 1), n, NOW + n)

    held = [len(updates) for updates in memory._keys.values()]
    assert sum(held) == memory._count <= 10
    assert max(held) <= 4
