"""
certbot as the ACME client, unmodified, with plugins from PyPI, in an environment of its own that make builds.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.places import ROOT

from .lego import Certificate
from .pebble import Authority
from .programs import require

CERTBOT = ROOT / ".venv-clients" / "bin" / "certbot"

_TIMEOUT = 120.0
"""Seconds for one run; it takes five or so."""


@dataclass(frozen=True, slots=True)
class Certbot:
    """certbot with one CA, and with an ACME account of its own for each *directory*."""

    authority: Authority

    def obtain(self, *names: str, plugin: str, credentials: str, directory: Path) -> Certificate:
        """
        Obtain one certificate for all the names by the *plugin* (such as dns-rfc2136) and the text of its *credentials*
        file; fails with what certbot says if it cannot.
        """
        file = directory / "credentials.ini"
        file.touch(mode=0o600)
        file.write_text(credentials)
        options = {
            "server": self.authority.directory_url,
            "email": "hostmaster@example.com",
            "authenticator": plugin,
            f"{plugin}-credentials": str(file),
            f"{plugin}-propagation-seconds": "0",
            "config-dir": str(directory / "config"),
            "work-dir": str(directory / "work"),
            "logs-dir": str(directory / "logs"),
            "cert-name": "obtained",
        }
        run = subprocess.run(
            [
                require(str(CERTBOT)),
                "certonly",
                "--non-interactive",
                "--agree-tos",
                *(f"--{option}={value}" for option, value in options.items()),
                *(f"--domain={name}" for name in names),
            ],
            env={**os.environ, "REQUESTS_CA_BUNDLE": str(self.authority.tls)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
        assert run.returncode == 0, run.stdout
        live = directory / "config" / "live" / "obtained"
        return Certificate(live / "cert.pem", live / "chain.pem")
