"""Who counts as one client."""

from __future__ import annotations

import pytest

from responder.addresses import client_of


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:0:0:1", True),
        ("2001:db8:0:1::1", "2001:db8::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("", "", True),
        ("unix:", "", False),
    ],
)
def test_who_counts_as_one_client(one: str, other: str, *, same: bool) -> None:
    """An IPv6 /64 is one client; IPv4 in IPv6 is IPv4; what is no address counts as it is."""
    assert same == (client_of(one) == client_of(other))
