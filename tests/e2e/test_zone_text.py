"""
The zone text that `responder zone show` prints is read by other nameservers, whatever octets the zone holds.

Everybody reads what the service printed, and then answers as the service does. Random zones are compared in
`test_differential`; here each octet has its turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from . import configuration, knot, nsd
from .dns_client import ask
from .service import ZONE, Responder

pytestmark = pytest.mark.e2e

_TYPES = ("MX", "SRV", "PTR", "TXT", "CAA")
"""Those with a name or a string in their data."""


def _labels() -> Iterator[str]:
    """Labels of one octet, and with it at their start or their end; no capital letters, which are small in a zone."""
    for octet in {*range(256)} - {*range(ord("A"), ord("Z") + 1), ord("*")}:  # wildcards are refused
        yield from (f"\\{octet:03d}", f"\\{octet:03d}x", f"y\\{octet:03d}")


OWNERS = [f"{label}.{ZONE}." for label in _labels()]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Responder]:
    """The service with a zone of odd names, each of which is in its own data."""
    records = "\n".join(line for owner in OWNERS for line in _records(owner))
    zone = configuration.zone(
        ZONE, {f"ns1.{ZONE}": ["127.0.0.1"]}, records=records, hostmaster="host.master@example.com"
    )
    responder = Responder(tmp_path_factory.mktemp("service"), configuration=configuration.render(zone))
    try:
        responder.start()
        yield responder
    finally:
        responder.stop()


@pytest.mark.parametrize("serving", [nsd.serving_alike, knot.serving_alike], ids=["nsd", "knot"])
def test_others_read_what_is_printed(
    serving: Callable[[Path, Mapping[str, str]], AbstractContextManager[int]], service: Responder, tmp_path: Path
) -> None:
    """Another server that is given the printed text has all records of all names, with the same octets in them."""
    text = service.cli("zone", "show").stdout
    with serving(tmp_path, {ZONE: text}) as other:
        for owner in OWNERS:
            for rdtype in _TYPES:
                ours = ask(service.dns, owner, rdtype).answer
                assert len(ours) == 1
                assert ours == ask(other, owner, rdtype).answer
        assert ask(service.dns, ZONE, "SOA").answer == ask(other, ZONE, "SOA").answer


def _records(owner: str) -> Iterator[str]:
    """One of each type, with the name of the owner in its data, or the octets of its first label."""
    label = owner.removesuffix(f".{ZONE}.")
    yield f"{owner} MX 10 {owner}"
    yield f"{owner} SRV 0 0 443 {owner}"
    yield f"{owner} PTR {owner}"
    yield f'{owner} TXT "{label}"'
    yield f'{owner} CAA 0 issue "{label}"'
