"""
Networks that a token may be used from, and hosts near enough for it to be sent to them unencrypted.

An IPv4 network written in IPv6 notation is read as the IPv4 network that it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from responder.addresses import Network as Network
from responder.addresses import parse_address

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


def is_within(client: str, networks: Iterable[Network]) -> bool:
    """Whether the address *client* is in one of *networks*; text that is not an address is in no network."""
    try:
        address = parse_address(client)
    except ValueError:
        return False
    return any(address in network for network in networks)


CLUSTER_DOMAIN = "cluster.local"
"""What the names of a cluster's Services end with, unless it was set up otherwise."""


def is_service(host: str, cluster_domain: str = CLUSTER_DOMAIN) -> bool:
    """Whether *host* is a Service of a cluster: NAME.NAMESPACE.svc, with or without the *cluster_domain* behind it."""
    labels = host.removesuffix(".").removesuffix(f".{cluster_domain}").split(".")
    return len(labels) == 3 and labels[2] == "svc" and all(labels)


def is_loopback(host: str) -> bool:
    """Whether *host* is an address of the machine or pod itself."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
