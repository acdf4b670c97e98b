"""The API's own certificate: from a real CA through the service's own zone, renewed while clients are connected."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from josepy.b64 import b64decode

from responder.certificate.authority import certificate_id
from tests.support.authorities import HTML, Front, fronting
from tests.support.keypairs import key_pair
from tests.support.ports import free_port
from tests.support.processes import PATIENCE

from . import configuration
from .dns_client import ask, exists, values
from .lab import bare_internet, strict_resolver
from .pebble import Authority, build_with_renewal_information, issuing
from .programs import wait_until
from .service import ZONE, Responder
from .unbound import resolving

pytestmark = pytest.mark.e2e

HOST = f"api.{ZONE}"
CHALLENGE_NAME = f"_acme-challenge.{HOST}"

VALIDITY = 45
"""Seconds that a certificate is good: it is renewed after 28 to 30 of them."""

CLIENTS = 200

_NO_TLS = '[api]\nlisten = ["127.0.0.1:{api}"]\ntls = "off"\n'

_TLS = """
[api]
listen = ["127.0.0.1:{{api}}"]
tls = "acme"
hostname = "{host}"
hsts = 600

[api.acme]
directory = "{directory}"
ca_file = "{ca_file}"
contact = "hostmaster@example.com"
caa = "ca.example.net"
resolver = "{resolver}"
{more}
"""


@dataclass
class Stack:
    """The service, and the CA that it asks, behind a server that may answer in its place."""

    service: Responder
    front: Front
    authority: Authority
    resolver: int
    """The port of the resolver that the CA asks."""

    def shown(self) -> x509.Certificate:
        """The certificate of the API, for a client that trusts anybody."""
        pem = ssl.get_server_certificate(("127.0.0.1", self.service.api), timeout=PATIENCE)
        return x509.load_pem_x509_certificate(pem.encode())

    def is_trusted(self) -> bool:
        """Whether the API is who it says, for a client that trusts the CA alone."""
        context = ssl.create_default_context(cadata=self.authority.root())
        connection = HTTPSConnection("127.0.0.1", self.service.api, timeout=PATIENCE, context=_for_host(context))
        try:
            connection.request("GET", "/openapi.json")
            response = connection.getresponse()
            assert "max-age=600" == response.headers["Strict-Transport-Security"]
            return response.status == 200
        except ssl.SSLCertVerificationError:
            return False
        finally:
            connection.close()

    def wait_until_well(self) -> None:
        """Have the CA do as it should, and wait for its certificate."""
        self.front.recover()
        wait_until(self.is_trusted, "there is a certificate of the CA")

    def log(self) -> list[dict[str, Any]]:
        """What the service has logged so far."""
        lines = (self.service.directory / "responder.log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def logged(self, event: str) -> list[dict[str, Any]]:
        return [entry for entry in self.log() if event in entry["event"]]


def _configured(tls: str, *, negative_ttl: int = 1) -> str:
    """The service's configuration with another table for the API."""
    zone = configuration.zone(
        ZONE, {f"ns1.{ZONE}": ["127.0.0.1"]}, records="api A 127.0.0.1", negative_ttl=negative_ttl
    )
    before, found, after = configuration.render(zone).partition(_NO_TLS)
    assert found
    return before + tls + after


def _for_host(context: ssl.SSLContext) -> ssl.SSLContext:
    """The address is the test's, the name is the service's."""
    wrap = context.wrap_socket
    context.wrap_socket = lambda sock, **how: wrap(sock, **(how | {"server_hostname": HOST}))  # type: ignore[method-assign]
    return context


@contextmanager
def stack(
    directory: Path,
    more: Callable[[Path], str] = lambda _: "",
    *,
    binding_keys: dict[str, str] | None = None,
    before: Callable[[Front], None] = lambda _: None,
    negative_ttl: int = 1,
    program: Path | None = None,
    looking_at: str = "none",
) -> Iterator[Stack]:
    """
    A service that was started after *before* was done to its CA; *more* is added to its settings. Its
    own look at the delegation is with the resolver *looking_at*.
    """
    for name in ("service", "unbound", "pebble"):
        (directory / name).mkdir()
    dns = free_port()
    with (
        resolving(directory / "unbound", {ZONE: dns}, wait=False) as resolver,
        issuing(
            directory / "pebble",
            resolver,
            refused_nonces=5,
            validity=VALIDITY,
            binding_keys=binding_keys,
            program=program,
        ) as authority,
        fronting(directory, behind=authority.directory_url, behind_ca_file=authority.tls) as front,
    ):
        before(front)
        tls = _TLS.format(
            host=HOST,
            directory=front.directory_url,
            ca_file=front.ca_file,
            resolver=looking_at,
            more=more(directory),
        )
        configured = _configured(tls, negative_ttl=negative_ttl)
        service = Responder(directory / "service", dns=dns, configuration=configured)
        try:
            service.start()
            yield Stack(service, front, authority, resolver)
        finally:
            service.stop()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A service whose CA is ill at first."""

    def fall_ill(front: Front) -> None:
        front.override = lambda _method, _path: HTML

    with stack(tmp_path_factory.mktemp("own"), before=fall_ill) as running:
        yield running


def test_before_and_after_the_first_certificate(shared: Stack) -> None:
    """
    The API answers although the CA is of no use, with a certificate of its own making; the log says why. When the CA
    is well again, a certificate is obtained through our own zone, and nothing is left in it.
    """
    failure, *_ = wait_until(lambda: shared.logged("cannot obtain a certificate"), "it was tried")
    first = shared.shown()
    assert first.issuer == first.subject
    assert not shared.is_trusted()
    refused = "it is self-signed, because no certificate has been issued yet"
    assert [refused] == [event["reason"] for event in shared.logged("clients reject the API's certificate")]
    assert "status 502 and text/html, not like an ACME CA" in failure["reason"]
    wait_until(lambda: exists(shared.service.dns, CHALLENGE_NAME), "the challenge name exists")

    shared.wait_until_well()

    caa = {rdata.to_text() for rrset in ask(shared.service.dns, HOST, "CAA").answer for rdata in rrset}
    assert {'0 issue "ca.example.net"', '0 issuewild ";"'} == caa
    assert exists(shared.service.dns, CHALLENGE_NAME)
    assert set() == values(shared.service.dns, CHALLENGE_NAME)
    assert 1 == len(shared.logged("made an ACME account, and agreed to the CA's terms"))


def test_nothing_is_lost_in_a_renewal(shared: Stack) -> None:
    """Clients that are connected while the certificate is renewed do not notice; new ones are shown the new one."""
    shared.wait_until_well()
    before = shared.shown()

    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    async def work() -> list[int]:
        over = asyncio.Event()
        clients = [
            asyncio.create_task(_keep_asking(shared.service.api, context, over, f"127.0.0.{2 + number % 4}"))
            for number in range(CLIENTS)
        ]
        try:
            async with asyncio.timeout(VALIDITY + PATIENCE):
                while (await asyncio.to_thread(shared.shown)).serial_number == before.serial_number:  # noqa: ASYNC110
                    await asyncio.sleep(0.5)  # there is nobody who would tell
        finally:
            over.set()
        return await asyncio.gather(*clients)

    asked = asyncio.run(work())

    assert CLIENTS == len(asked)
    assert min(asked) > 1
    after = shared.shown()
    assert before.not_valid_after_utc > after.not_valid_before_utc
    assert shared.is_trusted()
    assert 1 == len(shared.logged("made an ACME account"))


async def _keep_asking(port: int, context: ssl.SSLContext, over: asyncio.Event, client: str) -> int:
    """Ask over one connection from *client* until it is over; fails unless every single answer is right."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname=HOST, local_addr=(client, 0)
    )
    asked = 0
    try:
        while True:
            last = over.is_set()
            writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: api\r\n\r\n")
            head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
            (length,) = (line.partition(": ")[2] for line in head if line.startswith("Content-Length"))
            assert b"{" == (await reader.readexactly(int(length)))[:1]
            assert "HTTP/1.1 200 OK" == head[0]
            asked += 1
            if last:
                return asked
            await asyncio.sleep(0.5)
    finally:
        writer.transport.abort()


def test_restart_and_renewal_information(shared: Stack) -> None:
    """
    A restarted service shows its certificate from the first handshake on. When the CA would like it to be renewed now,
    it is, and the CA is told which one that replaces.
    """
    shared.wait_until_well()
    before = shared.shown()
    shared.service.stop()
    files = [path.read_bytes() for path in shared.service.directory.glob("responder.db*")]
    assert not any(b"PRIVATE KEY" in content for content in files)  # they are encrypted there
    shared.front.renewal_window = datetime.now(UTC) - timedelta(hours=2), datetime.now(UTC) - timedelta(hours=1)
    shared.front.requests.clear()
    shared.service.start()
    assert shared.is_trusted()

    wait_until(lambda: shared.shown() != before, "it is renewed")

    assert_replaced(before, shared.front)
    shared.front.renewal_window = None


def test_renewal_information_of_pebble(tmp_path: Path) -> None:
    """The same, with a CA that has renewal information of its own, and looks at what is replaced."""
    with stack(tmp_path, program=build_with_renewal_information(tmp_path)) as running:
        running.wait_until_well()
        before = running.shown()
        pem = before.public_bytes(serialization.Encoding.PEM).decode()
        now = datetime.now(UTC)
        running.authority.suggest_renewal(pem, now - timedelta(hours=2), now - timedelta(hours=1))
        running.service.stop()
        running.front.requests.clear()
        running.service.start()

        wait_until(lambda: running.shown() != before, "it is renewed")

        assert running.is_trusted()
        assert_replaced(before, running.front)


def assert_replaced(before: x509.Certificate, front: Front) -> None:
    """The CA was asked about a certificate, and then for one in its place, and that was all."""
    asked = {path.rpartition("/")[2] for _, path, _ in front.requests if "renewal" in path.lower()}
    assert certificate_id(before) in asked
    placed = [
        json.loads(b64decode(json.loads(body)["payload"])) for _, path, body in front.requests if "order-plz" in path
    ]
    assert {certificate_id(before)} == {order.get("replaces") for order in placed}


def test_stopped_in_the_middle(tmp_path: Path) -> None:
    """A service that is stopped while the CA dallies stops, takes its value back, and may try again at once."""
    with stack(tmp_path) as running:
        dns, front = running.service.dns, running.front
        front.dally_after("/chalZ/")
        wait_until(lambda: values(dns, CHALLENGE_NAME) and not front.hang.is_set(), "the CA was asked to look")

        running.service.supervisor.terminate()
        assert 0 == running.service.supervisor.wait()
        assert [] == json.loads(running.service.cli("value", "list", "--output", "json").stdout)
        front.recover()  # before the start: the service may ask at once
        running.service.start()

        wait_until(running.is_trusted, "there is a certificate of the CA")


def test_killed_in_the_middle(tmp_path: Path) -> None:
    """A control process that is killed while the CA dallies is in nobody's way: the next one tries again soon."""
    with stack(tmp_path) as running:
        dns, front = running.service.dns, running.front
        front.dally_after("/chalZ/")
        wait_until(lambda: values(dns, CHALLENGE_NAME) and not front.hang.is_set(), "the CA was asked to look")

        running.service.child("control").kill()
        front.recover()

        wait_until(running.is_trusted, "there is a certificate of the CA")


def test_absence_is_remembered(tmp_path: Path) -> None:
    """A resolver that remembers for some seconds that there was no value does not make the CA refuse."""
    with stack(tmp_path, before=lambda front: front.hang.clear(), negative_ttl=5) as running:
        wait_until(lambda: exists(running.service.dns, CHALLENGE_NAME), "the challenge name exists")

        absent = list[bool]()

        def ask_too_early(_method: str, path: str) -> None:
            if path.startswith("/order-plz"):
                absent.append(exists(running.resolver, CHALLENGE_NAME) and not values(running.resolver, CHALLENGE_NAME))

        def refusals() -> list[str]:
            return [failure["reason"] for failure in running.logged("cannot obtain") if "TXT" in failure["reason"]]

        running.front.override = ask_too_early
        running.front.hang.set()
        wait_until(lambda: running.is_trusted() or refusals(), "the CA has looked")

        assert [] == refusals()
        assert [True] == absent[:1]


def test_binding(tmp_path: Path) -> None:
    """A CA that wants an external account binding is given it; a restart after mending the settings is enough."""
    key_file = tmp_path / "hmac"

    def settings(_: Path) -> str:
        return f'eab_kid = "kid-1"\neab_hmac_key_file = "{key_file}"'

    with stack(tmp_path, settings, binding_keys={"kid-1": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajV"}) as running:
        failure, *_ = wait_until(lambda: running.logged("cannot obtain a certificate"), "it was tried")
        assert f"the HMAC key in {key_file}: cannot be read: no such file or directory" == failure["reason"]

        key_file.write_text("zWNDZM6eQGHWpSRTPal5eIUYFTu7EajV\n")

        wait_until(running.is_trusted, "there is a certificate of the CA")


# Certificates from files

_FILES = """
[api]
listen = ["127.0.0.1:{{api}}"]
tls = "files"
hostname = "{host}"
certificate_file = "{directory}/tls.crt"
private_key_file = "{directory}/tls.key"
"""


def test_files(tmp_path: Path) -> None:
    """A pair that is none stops the start, in one line; a good one is shown, and so is one that takes its place."""
    first, second = key_pair(HOST), key_pair(HOST)
    (tmp_path / "tls.crt").write_bytes(first.chain)
    (tmp_path / "tls.key").write_bytes(second.key)
    tls = _FILES.format(host=HOST, directory=tmp_path)
    service = Responder(tmp_path, configuration=_configured(tls))

    refused = service.attempt("serve")
    assert 1 == refused.returncode
    assert json.loads(refused.stderr.splitlines()[-1])["reason"] == (
        "the private key does not belong to the certificate: use the key that it was issued for: "
        "see api.certificate_file and api.private_key_file"
    )

    (tmp_path / "tls.key").write_bytes(first.key)
    try:
        service.start()
        assert first.leaf == _shown(service)
        (tmp_path / "tls.crt").write_bytes(second.chain)
        (tmp_path / "tls.key").write_bytes(second.key)
        wait_until(lambda: _shown(service) == second.leaf, "the second pair is shown")
        (tmp_path / "tls.key").write_bytes(first.key)
        wait_until(lambda: "cannot be used" in (tmp_path / "responder.log").read_text(), "the third is reported")
        assert second.leaf == _shown(service)
    finally:
        service.stop()


def _shown(service: Responder) -> x509.Certificate:
    pem = ssl.get_server_certificate(("127.0.0.1", service.api), timeout=PATIENCE)
    return x509.load_pem_x509_certificate(pem.encode())


def test_no_order_before_the_delegation(tmp_path: Path) -> None:
    """
    A service that starts before its zone is delegated waits for that, with a line in the log, and asks nothing of the
    CA; then it obtains the certificate at the first attempt.
    """
    for name in ("resolver", "stack"):
        (tmp_path / name).mkdir()
    with (
        bare_internet(tmp_path) as (lab, delegate),
        strict_resolver(lab, tmp_path / "resolver") as resolver,
        stack(tmp_path / "stack", looking_at=resolver.address) as running,
    ):
        (line,) = wait_until(lambda: running.logged("waiting for the delegation"), "it looks")
        assert f"no server of example.com delegates {ZONE} to ns1.{ZONE}" == line["reason"]
        delegate([f"acme NS ns1.{ZONE}.", f"ns1.acme A {lab.addresses.ns1}"])
        wait_until(running.is_trusted, "there is a certificate of the CA")
        assert [] == running.logged("cannot obtain a certificate")
        assert 1 == len(running.logged("obtaining a certificate"))
        assert 1 == len(running.logged("the zone is delegated"))
