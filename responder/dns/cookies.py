"""
DNS cookies: they prove that a client really has the address that its datagrams come from (RFC 7873).

The server keeps no state for them. The algorithm is the interoperable one of RFC 9018, so nameservers that share an
address and a key accept each other's cookies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hmac import compare_digest
from hmac import digest as hmac_digest
from ipaddress import ip_address

from siphash24 import siphash24

MAX_AGE = 3600
"""Seconds for which a server cookie is valid (RFC 9018, section 4.3)."""

MAX_AHEAD = 300
"""Seconds that another node's clock may be ahead of ours (RFC 9018, section 4.3)."""

VERSION = 1
"""First octet of a server cookie (RFC 9018, section 4.1)."""

KEY_OCTETS = 16
"""SipHash-2-4 takes 128 bits."""

DAY = 86_400
"""Seconds that a key is the current one."""

_SERIAL_MODULUS = 1 << 32


@dataclass(frozen=True, slots=True)
class Cookies:
    """
    Makes and checks server cookies.

    The first of *keys* is the current one; the others are also accepted. *clock* gives Unix seconds.
    """

    keys: tuple[bytes, ...]
    clock: Callable[[], float]

    def grant(self, client_cookie: bytes, client: str) -> bytes:
        """A server cookie for the client at the address *client*, made with the current key."""
        made = int(self.clock()) % _SERIAL_MODULUS
        return self._make(client_cookie[:8], bytes((VERSION, 0, 0, 0)) + made.to_bytes(4, "big"), client, self.keys[0])

    def is_ours(self, cookie: bytes, client: str) -> bool:
        """Whether *cookie* (client and server part) was given to *client*, and is not too old."""
        if len(cookie) != 24 or cookie[8] != VERSION:
            return False
        made = int.from_bytes(cookie[12:16], "big")
        age = (int(self.clock()) - made) % _SERIAL_MODULUS  # serial arithmetic, RFC 1982
        if not (age <= MAX_AGE or age >= _SERIAL_MODULUS - MAX_AHEAD):
            return False
        return any(compare_digest(cookie[8:], self._make(cookie[:8], cookie[8:16], client, key)) for key in self.keys)

    @staticmethod
    def _make(client_cookie: bytes, head: bytes, client: str, key: bytes) -> bytes:
        """The server cookie that begins with *head*. Reserved octets are hashed as they are (RFC 9018, section 4.2)."""
        address = ip_address(client.partition("%")[0]).packed
        digest: bytes = siphash24(client_cookie + head + address, key=key).digest()
        return head + digest


def daily_keys(master: bytes, now: float) -> tuple[bytes, ...]:
    """
    The keys of today, yesterday and tomorrow. They are the same on every node that has *master*.

    A cookie is valid for an hour, so yesterday's key is for cookies made before midnight. Tomorrow's key is for cookies
    of nodes whose clocks are a little ahead. *now* is Unix seconds.
    """
    today = int(now) // DAY
    return tuple(
        hmac_digest(master, b"dns cookie %d" % day, "sha256")[:KEY_OCTETS] for day in (today, today - 1, today + 1)
    )
