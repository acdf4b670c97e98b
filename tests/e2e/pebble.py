"""
Pebble as the CA, without its random pauses and refusals, and with a TLS certificate made for this run.
"""

from __future__ import annotations

import json
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from .programs import free_port, require, running

_ENVIRONMENT = {
    "PEBBLE_VA_NOSLEEP": "1",  # no pause before a validation
    "PEBBLE_WFE_NONCEREJECT": "0",  # whether clients bear lost nonces is not what is tested here
    "PEBBLE_AUTHZREUSE": "0",  # validate every time
}


@dataclass(frozen=True, slots=True)
class Authority:
    """A running CA. *tls* is the certificate file of its own HTTPS servers, which a client must trust."""

    directory_url: str
    roots_url: str
    tls: Path

    def root(self) -> str:
        """The root certificate of everything it issues, in PEM; made anew at each start."""
        return fetch(self.roots_url, self.tls).decode()


@contextmanager
def issuing(directory: Path, resolver: int) -> Iterator[Authority]:
    """Issue certificates after dns-01 challenges looked up at the *resolver*'s port."""
    pebble = require("pebble")
    certificate, key = _make_certificate(directory)
    acme, management = free_port(), free_port()
    settings = {
        "listenAddress": f"127.0.0.1:{acme}",
        "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": str(certificate),
        "privateKey": str(key),
        "httpPort": free_port(),
        "tlsPort": free_port(),
    }
    configuration = directory / "pebble.json"
    configuration.write_text(json.dumps({"pebble": settings}))
    authority = Authority(f"https://127.0.0.1:{acme}/dir", f"https://127.0.0.1:{management}/roots/0", certificate)
    arguments = [pebble, "-strict", "-config", str(configuration), "-dnsserver", f"127.0.0.1:{resolver}"]
    with running(arguments, directory, environment=_ENVIRONMENT) as program:
        program.wait_until_ready(lambda: _answers(authority.directory_url, certificate))
        program.wait_until_ready(lambda: _answers(authority.roots_url, certificate))
        yield authority


def fetch(url: str, trusted: Path) -> bytes:
    """What an HTTPS server with a certificate from the *trusted* file has at the URL. Raises `OSError`."""
    context = ssl.create_default_context(cafile=str(trusted))
    with urlopen(url, timeout=5, context=context) as response:
        return bytes(response.read())


def _answers(url: str, trusted: Path) -> bool:
    try:
        return bool(fetch(url, trusted))
    except OSError:
        return False


def _make_certificate(directory: Path) -> tuple[Path, Path]:
    """A self-signed certificate for the loopback address, and its key."""
    certificate, key = directory / "pebble.crt", directory / "pebble.key"
    request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=pebble"
    extensions = [
        "subjectAltName=IP:127.0.0.1,DNS:localhost",
        "keyUsage=critical,digitalSignature,keyCertSign",
        "extendedKeyUsage=serverAuth",
    ]
    subprocess.run(
        [
            require("openssl"),
            *request.split(),
            *(argument for extension in extensions for argument in ("-addext", extension)),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key
