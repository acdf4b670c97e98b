"""
Networks that a token may be used from, and hosts that it may be sent to without encryption.

An IPv4 network in IPv6 notation is read as an IPv4 network.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from responder.addresses import Network as Network
from responder.addresses import parse_address

_MAPPED = IPv6Network("::ffff:0:0/96")
"""The network of IPv4 addresses in IPv6 notation (RFC 4291, section 2.5.5.2)."""


def parse_network(text: str, *, strict: bool = True) -> Network:
    """
    Read a network in CIDR notation; if *strict*, without bits beyond its prefix. A network of IPv4 addresses in IPv6
    notation becomes an IPv4 network, as `parse_address` does with addresses: otherwise no address would be in it.

    Raises `ValueError`, also if it has an IPv6 zone (RFC 4007, section 11). `parse_address` removes the zone of an
    address, so no request could come from such a network; and a zone may be any text.
    """
    if "%" in text:
        raise ValueError("a network has no zone")
    network = ip_network(text, strict=strict)
    if network.version == 6 and network.subnet_of(_MAPPED):
        return IPv4Network((network.network_address.packed[-4:], network.prefixlen - _MAPPED.prefixlen))
    return network


def network_fault(text: str) -> str:
    """Why `parse_network` does not accept *text*, and what to write."""
    try:
        meant = parse_network(text, strict=False)
    except ValueError:
        return f'"{text}" is not a network: write one like "192.0.2.0/24" or "2001:db8::/32"'
    return f'"{text}" is an address in a network: write the network, "{meant}", or the address with all of its bits'


def is_within(client: str, networks: Iterable[Network]) -> bool:
    """Whether the address *client* is in one of *networks*; text that is not an address is in no network."""
    try:
        address = parse_address(client)
    except ValueError:
        return False
    return any(address in network for network in networks)


CLUSTER_DOMAIN = "cluster.local"
"""The domain of a cluster's Services, unless the cluster has another one."""


def is_service(host: str, cluster_domain: str = CLUSTER_DOMAIN) -> bool:
    """Whether *host* is a Service of a cluster: NAME.NAMESPACE.svc, with or without *cluster_domain* after it."""
    labels = host.removesuffix(".").removesuffix(f".{cluster_domain}").split(".")
    return len(labels) == 3 and labels[2] == "svc" and all(labels)


def is_loopback(host: str) -> bool:
    """Whether *host* is an address of the machine or pod itself."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
