"""
Pebble as the CA, without its random pauses, and with a TLS certificate made for this run.
"""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.support.ports import free_port
from tests.support.processes import PATIENCE

from .programs import require, running

_ENVIRONMENT = {
    "PEBBLE_VA_NOSLEEP": "1",  # no pause before a validation
    # Validate nearly every time: even so, it reuses one authorization in a hundred that its account has. A test that
    # needs a validation takes an account of its own.
    "PEBBLE_AUTHZREUSE": "0",
}


@dataclass(frozen=True, slots=True)
class Authority:
    """A running CA. *tls* is the certificate file of its own HTTPS servers, which a client must trust."""

    directory_url: str
    roots_url: str
    tls: Path

    def suggest_renewal(self, certificate: str, start: datetime, end: datetime) -> None:
        """Have it say that the certificate (PEM) is best renewed then; for one that has renewal information."""
        first, last = (moment.isoformat().replace("+00:00", "Z") for moment in (start, end))
        answer = json.dumps({"suggestedWindow": {"start": first, "end": last}})
        body = json.dumps({"certificate": certificate, "ariResponse": answer}).encode()
        fetch(self.roots_url.replace("/roots/0", "/set-renewal-info/"), self.tls, body)

    def root(self) -> str:
        """The root certificate of everything it issues, in PEM; made anew at each start."""
        return fetch(self.roots_url, self.tls).decode()


@contextmanager
def issuing(
    directory: Path,
    resolver: int,
    *,
    address: str = "127.0.0.1",
    refused_nonces: int = 0,
    binding_keys: Mapping[str, str] | None = None,
    validity: int | None = None,
    program: Path | None = None,
) -> Iterator[Authority]:
    """
    Issue certificates after dns-01 challenges looked up at the *resolver*'s port, of this *address*.

    So many per cent of good nonces are refused: by default none, because whether other people's clients bear that is
    not what is tested here. With *binding_keys*, accounts need one of them; *validity* is that of certificates, in
    seconds. *program* is another pebble than Debian's.
    """
    pebble = str(program) if program is not None else require("pebble")
    certificate, key = _make_certificate(directory)
    acme, management = free_port(), free_port()
    settings: dict[str, Any] = {
        "listenAddress": f"127.0.0.1:{acme}",
        "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": str(certificate),
        "privateKey": str(key),
        "httpPort": free_port(),
        "tlsPort": free_port(),
    }
    if binding_keys is not None:
        settings |= {"externalAccountBindingRequired": True, "externalAccountMACKeys": dict(binding_keys)}
    if validity is not None:
        settings["certificateValidityPeriod"] = validity
        settings["profiles"] = {"default": {"description": "as newer ones say it", "validityPeriod": validity}}
    configuration = directory / "pebble.json"
    configuration.write_text(json.dumps({"pebble": settings}))
    authority = Authority(f"https://127.0.0.1:{acme}/dir", f"https://127.0.0.1:{management}/roots/0", certificate)
    arguments = [pebble, "-strict", "-config", str(configuration), "-dnsserver", f"{address}:{resolver}"]
    environment = _ENVIRONMENT | {"PEBBLE_WFE_NONCEREJECT": str(refused_nonces)}
    with running(arguments, directory, environment=environment) as process:
        process.wait_until_ready(lambda: _answers(authority.directory_url, certificate))
        process.wait_until_ready(lambda: _answers(authority.roots_url, certificate))
        yield authority


def build_with_renewal_information(directory: Path) -> Path:
    """
    A pebble that has renewal information (RFC 9773); Debian's is older than that.

    Skips where there is no Go, which no Debian package has recent enough, or where its modules cannot be had.
    """
    if (go := shutil.which("go")) is None:
        pytest.skip("Go is not installed")
    program, sources = directory / "pebble-ari", Path(__file__).with_name("pebble-ari")
    build = subprocess.run(
        [go, "build", "-o", str(program), "github.com/letsencrypt/pebble/v2/cmd/pebble"],
        cwd=sources,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if build.returncode != 0:
        pytest.skip(f"Go cannot build pebble: {build.stderr[-200:]}")
    return program


def fetch(url: str, trusted: Path, body: bytes | None = None) -> bytes:
    """What an HTTPS server with a certificate from the *trusted* file answers at the URL. Raises `OSError`."""
    context = ssl.create_default_context(cafile=str(trusted))
    with urlopen(url, body, timeout=PATIENCE, context=context) as response:
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
