"""
The programs around the service, started once for all the end-to-end tests; when one fails, their logs show.

    lego --API--> the service <--DNS-- unbound <--DNS-- pebble <--ACME-- lego
                                          └-----DNS--> nsd, the parent zone
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from .lego import Lego
from .nsd import serving_parent
from .pebble import Authority, issuing
from .programs import LOGS
from .service import ZONE, Responder
from .unbound import resolving

HOSTNAMES = (
    "some",
    "early",
    "mine",
    "yours",
    "raw",
    "stored",
    "updated",
    "hooked",
    "cluster",
    "bot",
    "uacme",
    "apache",
)
"""The hostnames below example.com whose challenge names the parent zone sends to the service."""

SHARING = ("one", "two")
"""The hostnames below example.com that share one challenge name."""

_TAIL = 20_000
"""Bytes of one log that are shown at most."""


_SECRETS = re.compile(rb"rsp_[A-Za-z0-9_-]{43}|PRIVATE KEY-----")
"""Tokens, and private keys."""


@pytest.fixture(scope="session", autouse=True)
def logs_without_secrets() -> Iterator[None]:
    """No log of any program that was started has a secret in it, whatever the tests did."""
    yield
    told = [log for log in LOGS if log.exists() and _SECRETS.search(log.read_bytes())]
    assert [] == told, "secrets in logs"


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the programs that live as long as all the tests have their files and logs."""
    return tmp_path_factory.mktemp("stack")


@pytest.fixture(scope="session")
def service(directory: Path) -> Iterator[Responder]:
    """The service, shared: a test that breaks it takes `fresh_service`."""
    yield from _started(Responder(directory))


@pytest.fixture
def fresh_service(tmp_path: Path) -> Iterator[Responder]:
    """The service with an empty database, for one test alone."""
    yield from _started(Responder(tmp_path))


@pytest.fixture(scope="session")
def parent(directory: Path) -> Iterator[int]:
    """The port of the parent zone's nameserver."""
    aliases = {f"_acme-challenge.{name}.example.com": f"_acme-challenge.{name}.{ZONE}" for name in HOSTNAMES}
    aliases |= {f"_acme-challenge.{name}.example.com": f"site.{ZONE}" for name in SHARING}
    with serving_parent(directory, aliases) as port:
        yield port


@pytest.fixture(scope="session")
def resolver(directory: Path, parent: int, service: Responder) -> Iterator[int]:
    """The port of the CA's resolver."""
    with resolving(directory, {"example.com": parent, ZONE: service.dns}) as port:
        yield port


@pytest.fixture(scope="session")
def authority(directory: Path, resolver: int) -> Iterator[Authority]:
    """The CA."""
    with issuing(directory, resolver) as running_authority:
        yield running_authority


@pytest.fixture(scope="session")
def lego(authority: Authority, resolver: int) -> Lego:
    """The ACME client."""
    return Lego(authority, resolver)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Remember how long the logs are, to show only what is written during the test."""
    item.stash[_LENGTHS] = {log: log.stat().st_size for log in LOGS if log.exists()}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failed test what the programs said meanwhile."""
    report = yield
    if report.failed:
        for log in filter(Path.exists, LOGS):
            if said := log.read_bytes()[item.stash[_LENGTHS].get(log, 0) :]:
                report.sections.append((str(log), said[-_TAIL:].decode(errors="replace")))
    return report


_LENGTHS = pytest.StashKey[dict[Path, int]]()


def _started(responder: Responder) -> Iterator[Responder]:
    try:
        responder.start()
        yield responder
    finally:
        responder.stop()
