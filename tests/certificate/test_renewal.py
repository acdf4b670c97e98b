"""When certificates are due, and when to try again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from responder.certificate import renewal
from responder.errors import AuthorityUnavailable, CertificateRefused, Invalid, ResponderError
from responder.tls.keypair import KeyPair
from tests.support.keypairs import key_pair

START = datetime(2030, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


def test_two_thirds() -> None:
    """Without a word of the CA, certificates are due at two thirds of their lifetime, spread over a few days before."""
    pairs = [key_pair("api.example.com", begins=START, lifetime=90 * DAY, serial=serial) for serial in range(1, 20)]

    due = [renewal.due(pair, None, obtained_at=START) for pair in pairs]

    assert all(START + 57 * DAY <= at <= START + 60 * DAY for at in due)
    assert max(due) - min(due) > DAY
    assert due == [renewal.due(pair, None, obtained_at=START) for pair in pairs]


def test_window() -> None:
    """What the CA suggests is done, at a point of its window that each certificate has for itself."""
    window = START + 10 * DAY, START + 12 * DAY
    pairs = [key_pair("api.example.com", begins=START, lifetime=90 * DAY, serial=serial) for serial in range(1, 20)]

    due = [renewal.due(pair, window, obtained_at=START) for pair in pairs]

    assert all(window[0] <= at <= window[1] for at in due)
    assert max(due) - min(due) > DAY


def test_window_out_of_place() -> None:
    """A window that has passed means now, though not again and again; one after the end does not count."""
    pair = key_pair("api.example.com", begins=START, lifetime=90 * DAY)
    past, future = (START - 2 * DAY, START - DAY), (START + 100 * DAY, START + 101 * DAY)

    assert renewal.due(pair, past, obtained_at=None) < START
    assert START + 5 * DAY + HOUR == renewal.due(pair, past, obtained_at=START + 5 * DAY)
    assert START + 81 * DAY == renewal.due(pair, future, obtained_at=START)


@given(
    minutes=st.integers(1, 200_000),
    backdated=st.integers(0, 200_000),
    window=st.none() | st.tuples(st.integers(-500_000, 500_000), st.integers(0, 500_000)),
)
def test_never_at_once(minutes: int, backdated: int, window: tuple[int, int] | None) -> None:
    """Whatever the dates of a certificate that was just obtained: the next one is not obtained in the same second."""
    begins = START - timedelta(minutes=backdated)
    pair = KeyPair(b"", b"", cast(Any, _Leaf(begins, begins + timedelta(minutes=minutes))))
    suggested = None
    if window is not None:
        first = START + timedelta(minutes=window[0])
        suggested = first, first + timedelta(minutes=window[1])

    assert renewal.due(pair, suggested, obtained_at=START) >= START + timedelta(seconds=1)


class _Leaf:
    """The dates of a certificate."""

    serial_number = 7

    def __init__(self, begins: datetime, ends: datetime) -> None:
        self.not_valid_before_utc, self.not_valid_after_utc = begins, ends


@pytest.mark.parametrize(
    ("failures", "fault", "expected"),
    [
        (1, AuthorityUnavailable("x"), timedelta(seconds=15)),
        (2, AuthorityUnavailable("x"), timedelta(seconds=30)),
        (1, Invalid("x"), timedelta(seconds=15)),
        (1, CertificateRefused("x"), timedelta(minutes=5)),
        (3, CertificateRefused("x"), timedelta(minutes=20)),
        (100, CertificateRefused("x"), timedelta(hours=6)),
        (1, CertificateRefused("x", retry_after=7_200.0), timedelta(hours=2)),
        (1, AuthorityUnavailable("x", retry_after=1.0), timedelta(seconds=15)),
        (1, AuthorityUnavailable("x", retry_after=1e9), timedelta(days=1)),
    ],
)
def test_pause(failures: int, fault: ResponderError, expected: timedelta) -> None:
    """Pauses double, are longer after a refusal than after silence, and at least what the CA asks, within bounds."""
    assert expected == renewal.pause(failures, fault, 0.0)
    assert expected * 1.25 == renewal.pause(failures, fault, 1.0)
