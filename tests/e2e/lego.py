"""
lego as the ACME client, unmodified, with its httpreq provider talking to the service.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .pebble import Authority
from .programs import require

_TIMEOUT = 90.0
"""Seconds for one run; it takes two or three."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that lego wrote, with the intermediates that it got for it."""

    file: Path
    issuer: Path

    def names(self) -> set[str]:
        """The DNS names in its subjectAltName."""
        shown = _openssl("x509", "-in", str(self.file), "-noout", "-ext", "subjectAltName")
        entries = shown.partition("\n")[2].split(",")
        return {entry.strip().removeprefix("DNS:") for entry in entries}

    def verify(self, root: str) -> None:
        """Fails unless there is a chain from the *root* (PEM) to the certificate."""
        trusted = self.file.with_suffix(".root")
        trusted.write_text(root)
        _openssl("verify", "-CAfile", str(trusted), "-untrusted", str(self.issuer), str(self.file))


@dataclass(frozen=True, slots=True)
class Lego:
    """
    lego with one CA, one resolver and one service, and with an ACME account of its own for each *directory*.

    Its wait for all nameservers is off: it would ask them on port 53, which the tests cannot have. The
    service promises that a value it has acknowledged is served; here it has to keep that promise.
    """

    authority: Authority
    resolver: int
    endpoint: str

    def obtain(self, *names: str, username: str, password: str, directory: Path) -> Certificate:
        """Obtain one certificate for all the names; fails with what lego says if it cannot."""
        run = self.run(*names, username=username, password=password, directory=directory)
        assert run.returncode == 0, run.stdout
        stem = names[0].replace("*", "_")
        certificates = directory / "certificates"
        return Certificate(certificates / f"{stem}.crt", certificates / f"{stem}.issuer.crt")

    def run(self, *names: str, username: str, password: str, directory: Path) -> subprocess.CompletedProcess[str]:
        """Run lego to its end, whether it obtains a certificate or not; all it says is in *stdout*."""
        environment = {
            "HTTPREQ_ENDPOINT": self.endpoint,
            "HTTPREQ_USERNAME": username,
            "HTTPREQ_PASSWORD": password,
            "HTTPREQ_POLLING_INTERVAL": "1",
            "HTTPREQ_PROPAGATION_TIMEOUT": "10",
            "LEGO_CA_CERTIFICATES": str(self.authority.tls),
        }
        options = {
            "server": self.authority.directory_url,
            "email": "hostmaster@example.com",
            "path": str(directory),
            "dns": "httpreq",
            "dns.resolvers": f"127.0.0.1:{self.resolver}",
        }
        arguments = [f"--{option}={value}" for option, value in options.items()]
        return subprocess.run(
            [
                require("lego"),
                "--accept-tos",
                "--dns.disable-cp",
                *arguments,
                *(f"--domains={n}" for n in names),
                "run",
            ],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )


def _openssl(*arguments: str) -> str:
    run = subprocess.run([require("openssl"), *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout
