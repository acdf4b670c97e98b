"""
NSD: as the nameserver of the parent zone, `example.com` with a delegation and the CNAMEs of a few hostnames; and as
the one whose answers others are compared with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .dns_client import answers
from .programs import free_port, require, running

_CONFIGURATION = """
server:
    ip-address: {address}@{port}
    username: ""
    chroot: ""
    database: ""
    pidfile: ""
    zonesdir: "{directory}"
    zonelistfile: "{directory}/zone.list"
    xfrdfile: "{directory}/xfrd.state"
    xfrdir: "{directory}"
remote-control:
    control-enable: no
"""

_ZONE_CLAUSE = """
zone:
    name: "{name}"
    zonefile: "{directory}/{file}"
"""

_LIKE_OURS = """
server:
    minimal-responses: yes
    answer-cookie: yes
    rrl-ratelimit: 0
    rrl-whitelist-ratelimit: 0
    tcp-query-count: 0
    nsid: "ascii_{nsid}"
    hide-version: yes
    hide-identity: yes
"""
"""Where NSD offers the choice: answers without what nobody asked for, cookies, an NSID, no limits, no identity."""

_ZONE = """
$ORIGIN example.com.
$TTL 300
@         SOA ns1 hostmaster 1 3600 600 86400 300
@         NS  ns1
ns1       A   127.0.0.1
acme      NS  ns1.acme
ns1.acme  A   127.0.0.1
"""


@contextmanager
def serving_parent(directory: Path, aliases: Mapping[str, str]) -> Iterator[int]:
    """Serve the parent with a CNAME for each of *aliases* (from its name to its target); gives the port."""
    port = free_port()
    cnames = "".join(f"{owner}. CNAME {target}.\n" for owner, target in aliases.items())
    (directory / "parent.zone").write_text(_ZONE + cnames)
    configuration = directory / "nsd.conf"
    zone = _ZONE_CLAUSE.format(directory=directory, name="example.com", file="parent.zone")
    configuration.write_text(_CONFIGURATION.format(address="127.0.0.1", port=port, directory=directory) + zone)
    with running([require("nsd"), "-d", "-c", str(configuration)], directory) as nsd:
        nsd.wait_until_ready(lambda: answers(port, "example.com", "SOA"))
        yield port


@contextmanager
def serving_alike(directory: Path, zones: Mapping[str, str], *, nsid: str) -> Iterator[int]:
    """Serve the text of these *zones* as much like the service does as NSD can; gives the port."""
    port = free_port()
    clauses = []
    for number, (name, text) in enumerate(zones.items()):
        (directory / f"{number}.zone").write_text(text)
        clauses.append(_ZONE_CLAUSE.format(directory=directory, name=name, file=f"{number}.zone"))
    configuration = directory / "nsd.conf"
    server = _CONFIGURATION.format(address="127.0.0.1", port=port, directory=directory) + _LIKE_OURS.format(nsid=nsid)
    configuration.write_text(server + "".join(clauses))
    with running([require("nsd"), "-d", "-c", str(configuration)], directory) as nsd:
        nsd.wait_until_ready(lambda: all(answers(port, zone, "SOA") for zone in zones))
        yield port


@contextmanager
def serving_at(address: str, directory: Path, name: str, text: str) -> Iterator[None]:
    """Serve the text of one zone at port 53 of the address."""
    (directory / "only.zone").write_text(text)
    configuration = directory / "nsd.conf"
    server = _CONFIGURATION.format(address=address, port=53, directory=directory)
    configuration.write_text(server + _ZONE_CLAUSE.format(directory=directory, name=name, file="only.zone"))
    with running([require("nsd"), "-d", "-c", str(configuration)], directory) as nsd:
        nsd.wait_until_ready(lambda: answers(53, name, "SOA", host=address))
        yield
