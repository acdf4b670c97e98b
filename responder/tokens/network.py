"""
Networks that a token may be used from, and hosts that it may be sent to unencrypted.

An IPv4 network written in IPv6 notation is read as the IPv4 network that it is.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network


_MAPPED = IPv6Network("::ffff:0:0/96")
"""IPv4 addresses, as they are written in IPv6 (RFC 4291, section 2.5.5.2)."""


def parse_network(text: str, *, strict: bool = True) -> Network:
    """
    A network in CIDR notation; if *strict*, without bits beyond its prefix. One of IPv4 addresses in IPv6's clothes
    counts as what it is, just as the addresses do (see `parse_address`): otherwise, it would hold none of them.

    Raises `ValueError`, also for one in a zone of IPv6 (RFC 4007, section 11). No request ever comes from there, as an
    address loses its zone when it is read; and a zone may be any text whatever, with which nobody reckons in a network.
    """
    if "%" in text:
        raise ValueError("a network has no zone")
    network = ip_network(text, strict=strict)
    if network.version == 6 and network.subnet_of(_MAPPED):
        return IPv4Network((network.network_address.packed[-4:], network.prefixlen - _MAPPED.prefixlen))
    return network


def is_near(host: str) -> bool:
    """Whether a token may go to *host* unencrypted: to a Service of the same cluster, or within this machine or pod."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.split(".")[2:3] == ["svc"]  # NAME.NAMESPACE.svc; what follows is the cluster's domain, and any
