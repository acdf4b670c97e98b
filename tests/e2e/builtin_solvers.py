"""
cert-manager's own code (see certmanager/main.go), unmodified, solving challenges by the manifests that we print.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import Any

import yaml

from tests.support.gobuilt import require

_TIMEOUT = 60.0
"""Seconds for one call; it takes well under one."""


@dataclass(frozen=True, slots=True)
class CertManager:
    """cert-manager with an Issuer and a Secret, and one recursive *resolver* on the loopback address."""

    issuer: dict[str, Any]
    secret: dict[str, str]
    resolver: int

    @classmethod
    def applying(cls, manifest: str, resolver: int) -> CertManager:
        """With what a manifest has in it."""
        objects = {each["kind"]: each for each in yaml.safe_load_all(manifest)}
        return cls(objects["Issuer"], objects["Secret"]["stringData"], resolver)

    @property
    def tsig_token(self) -> str:
        """The id of the token whose key it signs with."""
        (solver,) = self.issuer["spec"]["acme"]["solvers"]
        name: str = solver["dns01"]["rfc2136"]["tsigKeyName"]
        return name.rpartition("-")[0]

    def present(self, hostname: str, key: str, *, wildcard: bool = False) -> str:
        """Present a key; what went wrong, or nothing."""
        return self._run("present", hostname, key, wildcard)

    def clean_up(self, hostname: str, key: str, *, wildcard: bool = False) -> str:
        """Clean a key up; what went wrong, or nothing."""
        return self._run("cleanup", hostname, key, wildcard)

    def check(self, hostname: str, key: str, *, wildcard: bool = False) -> str:
        """Look whether the resolver shows a key, as it does before it calls the CA; what went wrong, or nothing."""
        return self._run("check", hostname, key, wildcard)

    def _run(self, action: str, hostname: str, key: str, wildcard: bool) -> str:  # noqa: FBT001  # never by position
        asked = {
            "action": action,
            "issuer": self.issuer,
            "secret": self.secret,
            "dnsName": hostname,
            "wildcard": wildcard,
            "key": key,
            "nameservers": [f"127.0.0.1:{self.resolver}"],
        }
        done = subprocess.run(
            [require("cert-manager-solver")],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
        assert (done.returncode == 0) == (done.stderr == ""), done
        return done.stderr.strip()
