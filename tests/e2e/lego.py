"""
lego as the ACME client, unmodified, with one of its providers talking to the service.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

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
class Provider:
    """One of the ways in which lego publishes its values, and the variables that set it up."""

    name: str
    variables: dict[str, str]


def httpreq(endpoint: str, username: str, password: str, *, mode: str = "") -> Provider:
    """The provider for HTTP requests of lego's own design; *mode* is "RAW" or nothing."""
    return Provider(
        "httpreq",
        {
            "HTTPREQ_ENDPOINT": endpoint,
            "HTTPREQ_USERNAME": username,
            "HTTPREQ_PASSWORD": password,
            "HTTPREQ_MODE": mode,
            "HTTPREQ_POLLING_INTERVAL": "1",
            "HTTPREQ_PROPAGATION_TIMEOUT": "10",
        },
    )


@dataclass(frozen=True, slots=True)
class Lego:
    """
    lego with one CA and one resolver, and with an ACME account of its own for each *directory*.

    Its wait for all nameservers is off: it would ask them on port 53, which the tests cannot have. The
    service promises that a value it has acknowledged is served; here it has to keep that promise.
    """

    authority: Authority
    resolver: int
    address: str = "127.0.0.1"

    def obtain(self, *names: str, provider: Provider, directory: Path) -> Certificate:
        """Obtain one certificate for all the names; fails with what lego says if it cannot."""
        run = self.run(*names, provider=provider, directory=directory)
        assert run.returncode == 0, run.stdout
        stem = names[0].replace("*", "_")
        certificates = directory / "certificates"
        return Certificate(certificates / f"{stem}.crt", certificates / f"{stem}.issuer.crt")

    def run(self, *names: str, provider: Provider, directory: Path) -> subprocess.CompletedProcess[str]:
        """Run lego to its end, whether it obtains a certificate or not; all it says is in *stdout*."""
        environment = {**provider.variables, "LEGO_CA_CERTIFICATES": str(self.authority.tls)}
        options = {
            "server": self.authority.directory_url,
            "email": "hostmaster@example.com",
            "path": str(directory),
            "dns": provider.name,
            "dns.resolvers": f"{self.address}:{self.resolver}",
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


def build_acme_dns(directory: Path) -> Path:
    """
    lego's library with its acme-dns provider, as a program; Debian's lego comes without it.

    Skips where there is no Go, which no Debian package has recent enough, or where its modules cannot be had.
    """
    if (go := shutil.which("go")) is None:
        pytest.skip("Go is not installed")
    program = directory / "lego-acmedns"
    sources = Path(__file__).with_name("lego-acmedns")
    build = subprocess.run(
        [go, "build", "-o", str(program), "."], cwd=sources, capture_output=True, text=True, timeout=300, check=False
    )
    if build.returncode != 0:
        pytest.skip(f"Go cannot build lego: {build.stderr[-200:]}")
    return program


def obtain_by_acme_dns(
    program: Path, lego: Lego, *names: str, endpoint: str, storage: Path, directory: Path
) -> Certificate:
    """Obtain one certificate for all the names, by the accounts in the file *storage*."""
    file = directory / "certificate.pem"
    variables = {
        "ACME_DNS_API_BASE": endpoint,
        "ACME_DNS_STORAGE_PATH": str(storage),
        "LEGO_CA_CERTIFICATES": str(lego.authority.tls),
    }
    run = subprocess.run(
        [str(program), lego.authority.directory_url, f"{lego.address}:{lego.resolver}", str(file), *names],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    return Certificate(file, file)


def _openssl(*arguments: str) -> str:
    run = subprocess.run([require("openssl"), *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout
