"""The API behind HAProxy, which passes TCP on and reports its clients by the PROXY protocol."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

import pytest

from tests.support.keypairs import key_pair
from tests.support.ports import free_port
from tests.support.processes import PATIENCE

from .haproxy import haproxy
from .programs import wait_until
from .service import CONFIGURATION, Responder

CLIENT, OTHER = "127.0.0.5", "127.0.0.6"
"""Where clients come from; HAProxy itself is 127.0.0.1."""

UNVERIFIED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
UNVERIFIED.check_hostname, UNVERIFIED.verify_mode = False, ssl.CERT_NONE


@dataclass
class Site:
    """The service, with ports of HAProxy by what is spoken behind them."""

    service: Responder
    ports: dict[str, int]
    tls: bool

    def ask(self, port: int, secret: str, source: str = CLIENT) -> tuple[int, Any]:
        """Ask on *port*, coming from *source*, what the token may do."""
        come_from = (source, 0)
        connection = (
            HTTPSConnection("127.0.0.1", port, timeout=PATIENCE, source_address=come_from, context=UNVERIFIED)
            if self.tls
            else HTTPConnection("127.0.0.1", port, timeout=PATIENCE, source_address=come_from)
        )
        try:
            connection.request("GET", "/v1/token", headers={"Authorization": f"Bearer {secret}"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()


@pytest.fixture(scope="module", params=["off", "files"], ids=["plain", "TLS"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The service behind HAProxy, version 1 and 2, with TLS that passes through and without."""
    directory: Path = tmp_path_factory.mktemp("haproxy")
    api = f'tls = "{request.param}"\ntrusted_proxies = ["127.0.0.1"]\nproxy_protocol = true'
    if request.param == "files":
        pair = key_pair("api.example.com")
        (directory / "api.crt").write_bytes(pair.chain)
        (directory / "api.key").write_bytes(pair.key)
        api += f'\ncertificate_file = "{directory}/api.crt"\nprivate_key_file = "{directory}/api.key"'
    service = Responder(directory, configuration=CONFIGURATION.replace('tls = "off"', api))
    ports = {"v1": free_port(), "v2": free_port(), "silent": free_port()}
    options = {
        ports["v1"]: "send-proxy check check-send-proxy inter 200ms",
        ports["v2"]: "send-proxy-v2 check check-send-proxy inter 200ms",
        ports["silent"]: "",
    }
    try:
        service.start()
        with haproxy(directory, options, service.api):
            yield Site(service, ports, tls=request.param == "files")
    finally:
        service.stop()


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_client_is_known(site: Site, version: str) -> None:
    """Networks of tokens, and the log, are about the client and not about the proxy."""
    token = site.service.mint(f"{version}.example.com", "--allow-from", CLIENT)
    assert 200 == site.ask(site.ports[version], token.secret)[0]
    status, problem = site.ask(site.ports[version], token.secret, OTHER)
    assert (403, True) == (status, f"your address ({OTHER})" in problem["detail"])
    wait_until(lambda: f'"client": "{OTHER}"' in site.service.log(), "the log has the client")


def test_without_the_protocol(site: Site) -> None:
    """A trusted proxy that does not speak it is refused, and so is anybody else; the log has both reasons."""
    token = site.service.mint("silent.example.com")
    with pytest.raises((OSError, HTTPException)):
        site.ask(site.ports["silent"], token.secret)
    with pytest.raises((OSError, HTTPException)):
        site.ask(site.service.api, token.secret)
    reasons = ("did not begin with a header of the PROXY protocol", "only api.trusted_proxies may connect")
    wait_until(lambda: all(reason in site.service.log() for reason in reasons), "the log has the reasons")


def test_own_checks(site: Site) -> None:
    """The service's look at its own API comes from the machine of the proxy, and speaks as that does."""
    assert "ok" == site.service.readiness().body["api"]
