"""
uacme as the ACME client, unmodified, with the hook that we ship: it validates one name before it presents the next.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .lego import Certificate
from .pebble import Authority
from .programs import require

_TIMEOUT = 90.0
"""Seconds for one run; it takes a few."""

_ROOTS = "/etc/ssl/certs/ca-certificates.crt"
"""The certificates that the system trusts: uacme has no option for others."""


@dataclass(frozen=True, slots=True)
class Uacme:
    """uacme with one CA and one *hook*, which finds *environment*; its account and certificates are in *directory*."""

    authority: Authority
    hook: Path
    environment: dict[str, str]
    directory: Path

    def register(self) -> None:
        """Make an account with the CA."""
        self._run("--yes", "new")

    def obtain(self, *names: str) -> Certificate:
        """Obtain one certificate for all the names, whatever is there; fails with what uacme says."""
        file = self.directory / names[0] / "cert.pem"
        for backup in file.parent.glob("cert-*.pem"):  # named by the second, in which two cannot be made
            backup.unlink()
        self._run("--force", "--hook", str(self.hook), "issue", *names)
        return Certificate(file, file)

    def _run(self, *arguments: str) -> None:
        # In a mount namespace of its own it trusts the CA: for everybody else, the system's file stays as it is.
        trusting = f'mount --bind {self.authority.tls} {_ROOTS} && exec "$@"'
        namespaces = ["--mount"] if os.geteuid() == 0 else ["--map-root-user", "--mount"]
        command = [require("unshare"), *namespaces, "sh", "-c", trusting, "sh"]
        command += [require("uacme"), "--verbose", "--acme-url", self.authority.directory_url]
        command += ["--confdir", str(self.directory), "--type", "EC", "--no-ocsp", *arguments]
        run = subprocess.run(
            command,
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
        assert run.returncode == 0, run.stdout
