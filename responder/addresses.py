"""
The addresses that clients come from: reading them, and which of them count as one client.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

IPV6_CLIENT = 64
"""Bits of an IPv6 address that tell clients apart: whoever has one of a /64 has all (RFC 4291, section 2.5.1)."""

Address = IPv4Address | IPv6Address


def parse_address(text: str) -> Address:
    """
    A client address; an IPv4 address that came in over an IPv6 socket counts as what it is (RFC 4291, 2.5.5.2).

    Raises `ValueError`.
    """
    address = ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def client_of(address: str) -> str:
    """What counts as one client with *address*: an IPv4 address, an IPv6 /64; what is no address counts as it is."""
    try:
        parsed = parse_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    rest = parsed.max_prefixlen - IPV6_CLIENT
    return str(IPv6Address(int(parsed) >> rest << rest))
