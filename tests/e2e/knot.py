"""
Knot: as the nameserver of everything above the service, the root, `com` and `example.com`, each signed; and as one
more whose answers ours are compared with.

The service's own zone is not signed, so `example.com` delegates it without a DS record, and proves that: resolvers
that validate must find it insecure, which is another thing than bogus.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.ports import free_port

from .dns_client import answers
from .programs import require, running

_SERVER = """
server:
  rundir: {directory}
  listen: {address}@{port}
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
log:
  - target: stderr
    any: info
database:
  storage: {directory}
"""

_SIGNED_PARENTS = """
policy:
  - id: manual
    manual: on
template:
  - id: default
    storage: {directory}
    dnssec-signing: on
    dnssec-policy: manual
    zonefile-sync: -1
    zonefile-load: difference-no-serial
    journal-content: all
zone:
  - domain: .
    file: root.zone
  - domain: com.
    file: com.zone
  - domain: example.com.
    file: example.zone
"""

_UNSIGNED = """
template:
  - id: default
    storage: {directory}
    semantic-checks: off
    journal-content: none
zone:
"""

_SOA = (
    "$TTL 300\n@ SOA {server} hostmaster.example.com. 1 14400 3600 1209600 300\n@ NS {server}\n{server} A {address}\n"
)


@contextmanager
def serving_signed_parents(directory: Path, address: str, records: Sequence[str]) -> Iterator[str]:
    """Serve the three zones at the address, port 53, *records* in `example.com`; gives the DS record of the root."""
    knotd, keymgr = require("knotd"), require("keymgr")
    configuration = directory / "knot.conf"
    configuration.write_text((_SERVER + _SIGNED_PARENTS).format(directory=directory, address=address, port=53))

    def make_key(zone: str) -> str:
        """A new key that signs the zone; gives the DS record with its SHA-256 digest."""
        command = [keymgr, "-c", str(configuration), zone]
        generate = ["generate", "algorithm=ECDSAP256SHA256", "ksk=yes", "zsk=yes"]
        subprocess.run([*command, *generate], check=True, capture_output=True)
        listed = subprocess.run([*command, "ds"], check=True, capture_output=True, text=True).stdout
        (record,) = (line for line in listed.splitlines() if line.split()[4] == "2")
        return record

    anchor, com, example = (make_key(zone) for zone in (".", "com.", "example.com."))
    for file, server, content in (
        ("root", "a.root.", ["com. NS ns.com.", f"ns.com. A {address}", com]),
        ("com", "ns.com.", ["example.com. NS ns.example.com.", f"ns.example.com. A {address}", example]),
        ("example", "ns.example.com.", records),
    ):
        lines = "".join(f"{line}\n" for line in content)
        (directory / f"{file}.zone").write_text(_SOA.format(server=server, address=address) + lines)
    with running([knotd, "-c", str(configuration)], directory) as knot:
        knot.wait_until_ready(
            lambda: all(answers(53, zone, "DNSKEY", host=address) for zone in (".", "com", "example.com"))
        )
        yield anchor


@contextmanager
def serving_alike(directory: Path, zones: Mapping[str, str]) -> Iterator[int]:
    """Serve the text of these *zones*; gives the port."""
    port = free_port()
    settings = (_SERVER + _UNSIGNED).format(directory=directory, address="127.0.0.1", port=port)
    for number, (name, text) in enumerate(zones.items()):
        (directory / f"{number}.zone").write_text(text)
        settings += f"  - domain: {name}.\n    file: {number}.zone\n"
    configuration = directory / "knot.conf"
    configuration.write_text(settings)
    with running([require("knotd"), "-c", str(configuration)], directory) as knot:
        knot.wait_until_ready(lambda: all(answers(port, zone, "SOA") for zone in zones))
        yield port
