"""DNS cookies, held to the test vectors of RFC 9018."""

from __future__ import annotations

import pytest

from responder.dns.cookies import DAY, MAX_AGE, MAX_AHEAD, Cookies, daily_keys

KEY = bytes.fromhex("e5e973e5a6b2a43f48e7dc849e37bfcf")
ROLLED = bytes.fromhex("445536bcd2513298075a5d379663c962")
CLIENT_COOKIE = bytes.fromhex("2464c4abcf10c957")


@pytest.mark.parametrize(
    ("key", "client_cookie", "made", "address", "expected"),
    [  # RFC 9018, appendix A.1, A.2, A.3 (the renewed one) and A.4
        (KEY, "2464c4abcf10c957", 1559731985, "198.51.100.100", "010000005cf79f111f8130c3eee29480"),
        (KEY, "2464c4abcf10c957", 1559734385, "198.51.100.100", "010000005cf7a871d4a564a1442aca77"),
        (KEY, "fc93fc62807ddb86", 1559734700, "203.0.113.203", "010000005cf7a9acf73a7810aca2381e"),
        (
            ROLLED,
            "22681ab97d52c298",
            1559741961,
            "2001:db8:220:1:59de:d0f4:8769:82b8",
            "010000005cf7c609a6bb79d16625507a",
        ),
    ],
)
def test_vectors(key: bytes, client_cookie: str, made: int, address: str, expected: str) -> None:
    """Server cookies are those of the interoperable algorithm, so any server behind the address knows them."""
    cookies = Cookies((key,), lambda: made)

    granted = cookies.grant(bytes.fromhex(client_cookie), address)

    assert expected == granted.hex()
    assert cookies.is_ours(bytes.fromhex(client_cookie) + granted, address)


@pytest.mark.parametrize(
    ("age", "good"), [(0, True), (MAX_AGE, True), (MAX_AGE + 1, False), (-MAX_AHEAD, True), (-MAX_AHEAD - 1, False)]
)
def test_age(age: int, good: bool) -> None:  # noqa: FBT001
    """A cookie is good for an hour, and up to five minutes before its time."""
    granted = CLIENT_COOKIE + Cookies((KEY,), lambda: 1_000_000).grant(CLIENT_COOKIE, "192.0.2.1")

    assert good == Cookies((KEY,), lambda: 1_000_000 + age).is_ours(granted, "192.0.2.1")


def test_rotation() -> None:
    """A cookie under the previous key is still ours; one under a forgotten key is not."""
    granted = CLIENT_COOKIE + Cookies((KEY,), lambda: 0).grant(CLIENT_COOKIE, "192.0.2.1")

    assert Cookies((ROLLED, KEY), lambda: 0).is_ours(granted, "192.0.2.1")
    assert not Cookies((ROLLED,), lambda: 0).is_ours(granted, "192.0.2.1")


@pytest.mark.parametrize("change", ["address", "client cookie", "version", "hash", "length"])
def test_forgeries(change: str) -> None:
    """A cookie is bound to the client's address and cookie, and to every octet of itself."""
    cookies, address = Cookies((KEY,), lambda: 0), "192.0.2.1"
    cookie = bytearray(CLIENT_COOKIE + cookies.grant(CLIENT_COOKIE, address))
    match change:
        case "address":
            address = "192.0.2.2"
        case "client cookie":
            cookie[0] ^= 1
        case "version":
            cookie[8] = 2
        case "hash":
            cookie[-1] ^= 1
        case _:
            cookie = cookie[:-1]

    assert not cookies.is_ours(bytes(cookie), address)


def test_reserved_octets_are_not_ours_to_judge() -> None:
    """A cookie with other reserved octets is recognised by its hash (RFC 9018, appendix A.3)."""
    cookie = bytes.fromhex("fc93fc62807ddb86 01abcdef5cf78f71a314227b6679ebf5")

    assert Cookies((KEY,), lambda: 0x5CF78F71).is_ours(cookie, "203.0.113.203")


def test_the_clock_goes_on() -> None:
    """Cookies work beyond 2106, when 32 bits of seconds are used up."""
    cookies = Cookies((KEY,), lambda: (1 << 32) + 5)

    assert cookies.is_ours(CLIENT_COOKIE + cookies.grant(CLIENT_COOKIE, "192.0.2.1"), "192.0.2.1")


def test_daily_keys() -> None:
    """Keys change every day, and each day knows those of the days beside it; another master has other keys."""
    first, second = daily_keys(b"m" * 32, 10 * DAY), daily_keys(b"m" * 32, 11 * DAY)

    assert (first[2], first[0]) == second[:2]
    assert {16} == {len(key) for key in first}
    assert not set(first) & set(daily_keys(b"n" * 32, 10 * DAY))
