"""
Addresses of clients: how they are parsed, and which of them count as one client.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

IPV6_CLIENT = 64
"""Bits of an IPv6 address that distinguish clients: one client usually has a whole /64 (RFC 4291, section 2.5.1)."""

UNKNOWN = "unknown"
"""Stands for the address of a client that its proxy does not report: it is in no network."""

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def host_text(host: str) -> str:
    """*host* as it is in a URL or before a port: an IPv6 address is in brackets."""
    return f"[{host}]" if ":" in host else host


def parse_address(text: str) -> Address:
    """
    Parse the address of a client. An IPv4-mapped IPv6 address becomes an IPv4 address (RFC 4291, section 2.5.5.2).

    Raises `ValueError` if *text* is not an address.
    """
    address = ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def client_of(address: str) -> str:
    """
    Return the key under which the client at *address* is counted: an IPv4 address, or the /64 of an IPv6 address.

    Text that is not an address is returned unchanged.
    """
    try:
        parsed = parse_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    rest = parsed.max_prefixlen - IPV6_CLIENT
    return str(IPv6Address(int(parsed) >> rest << rest))
