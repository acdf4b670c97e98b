"""
Unbound as the resolver of a CA: strict where CAs are, with the cache as it comes, negative answers included.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.ports import free_port

from .dns_client import answers
from .programs import require, running

# Names outside the stub zones are refused, so that nothing ever goes out to the internet. There is no trust
# anchor: whether the zone is signed is not what is tested here. Strict minimisation asks for an A at the challenge
# name before the TXT, and takes an NXDOMAIN there for the end of the matter (RFC 9156, section 3).
_CONFIGURATION = """
server:
    interface: 127.0.0.1@{port}
    access-control: 127.0.0.0/8 allow
    username: ""
    chroot: ""
    directory: "{directory}"
    pidfile: ""
    use-syslog: no
    logfile: ""
    log-queries: yes
    log-replies: yes
    log-servfail: yes
    num-threads: 1
    outgoing-range: 256
    outgoing-port-avoid: 0-32767
    do-ip6: no
    do-not-query-localhost: no
    module-config: "iterator"
    use-caps-for-id: yes
    qname-minimisation: yes
    qname-minimisation-strict: yes
    harden-below-nxdomain: yes
    local-zone: "." refuse
    local-zone: "example.com." transparent
remote-control:
    control-enable: no
"""

_STUB = """
stub-zone:
    name: "{zone}"
    stub-addr: 127.0.0.1@{port}
"""


@contextmanager
def resolving(directory: Path, zones: Mapping[str, int], *, wait: bool = True) -> Iterator[int]:
    """
    Resolve names in these *zones*, each with the port of its nameserver; gives the resolver's own port.

    Without *wait*, the nameservers need not be there yet.
    """
    port = free_port()
    stubs = (_STUB.format(zone=zone, port=of_zone) for zone, of_zone in zones.items())
    configuration = directory / "unbound.conf"
    configuration.write_text(_CONFIGURATION.format(port=port, directory=directory) + "".join(stubs))
    with running([require("unbound"), "-d", "-p", "-c", str(configuration)], directory) as unbound:
        if wait:
            unbound.wait_until_ready(lambda: all(answers(port, zone, "SOA") for zone in zones))
        yield port
