"""
NSD: as the nameserver of the parent zone, `example.com` with a delegation and the CNAMEs of a few hostnames; and as
the one whose answers others are compared with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.ports import free_port

from .dns_client import answers
from .programs import Program, require, running

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
{server}
remote-control:
    control-enable: no
"""

_ZONE_CLAUSE = """
zone:
    name: "{name}"
    zonefile: "{file}"
"""

LIKE_OURS = """
    minimal-responses: yes
    answer-cookie: yes
    rrl-ratelimit: 0
    rrl-whitelist-ratelimit: 0
    tcp-query-count: 0
    hide-version: yes
    hide-identity: yes
"""
"""Where NSD offers the choice: answers without what nobody asked for, cookies, no limits, no identity."""

_ZONE = """
$ORIGIN example.com.
$TTL 300
@         SOA ns1 hostmaster 1 3600 600 86400 300
@         NS  ns1
ns1       A   127.0.0.1
acme      NS  ns1.acme
ns1.acme  A   127.0.0.1
"""


def configuration(
    directory: Path, port: int, files: Mapping[str, str], *, address: str = "127.0.0.1", server: str = ""
) -> str:
    """A whole file: serves *files* in *directory*, by the name of their zone; *server* is more of its server clause."""
    settings = _CONFIGURATION.format(address=address, port=port, directory=directory, server=server)
    return settings + "".join(_ZONE_CLAUSE.format(name=name, file=file) for name, file in files.items())


@contextmanager
def serving_parent(directory: Path, aliases: Mapping[str, str]) -> Iterator[int]:
    """Serve the parent with a CNAME for each of *aliases* (from its name to its target); gives the port."""
    port = free_port()
    cnames = "".join(f"{owner}. CNAME {target}.\n" for owner, target in aliases.items())
    (directory / "parent.zone").write_text(_ZONE + cnames)
    with _running(directory, configuration(directory, port, {"example.com": "parent.zone"})) as nsd:
        nsd.wait_until_ready(lambda: answers(port, "example.com", "SOA"))
        yield port


@contextmanager
def serving_alike(directory: Path, zones: Mapping[str, str], *, nsid: str = "") -> Iterator[int]:
    """Serve the text of these *zones* as much like the service does as NSD can; gives the port."""
    port = free_port()
    files = {name: f"{number}.zone" for number, name in enumerate(zones)}
    for name, file in files.items():
        (directory / file).write_text(zones[name])
    server = LIKE_OURS + (f'    nsid: "ascii_{nsid}"\n' if nsid else "")
    with _running(directory, configuration(directory, port, files, server=server)) as nsd:
        nsd.wait_until_ready(lambda: all(answers(port, zone, "SOA") for zone in zones))
        yield port


@contextmanager
def serving_at(address: str, directory: Path, name: str, text: str) -> Iterator[None]:
    """Serve the text of one zone at port 53 of the address."""
    (directory / "only.zone").write_text(text)
    with _running(directory, configuration(directory, 53, {name: "only.zone"}, address=address)) as nsd:
        nsd.wait_until_ready(lambda: answers(53, name, "SOA", host=address))
        yield


@contextmanager
def _running(directory: Path, configuration: str) -> Iterator[Program]:
    path = directory / "nsd.conf"
    path.write_text(configuration)
    with running([require("nsd"), "-d", "-c", str(path)], directory) as nsd:
        yield nsd
