"""
cert-manager's conformance suite for DNS01 webhooks (see certmanager/conformance_test.go), unmodified, and the control
plane of its own that it starts: etcd and kube-apiserver, of which it only wants namespaces.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.support import gobuilt

from .programs import require

NAMESPACES = ("basic-present-record", "extended-supports-multiple-same-domain")
"""Where the suite says that its challenges are; it takes the Secret of the token from there."""

_TIMEOUT = 300.0
"""Seconds for the suite, which starts three control planes; it takes half a minute."""


def run_suite(directory: Path, **settings: str | Mapping[str, object]) -> str:
    """
    Run the suite with the *settings* of conformance_test.go; gives what it says, and fails with that if it fails.

    Skips the test where its programs are not installed.
    """
    suite, control_plane = gobuilt.require("cert-manager-conformance"), gobuilt.require("kube-apiserver-etcd")
    programs = {
        "TEST_ASSET_KUBECTL": require("kubectl"),
        "TEST_ASSET_ETCD": _script(directory / "etcd", control_plane, "etcd"),
        "TEST_ASSET_KUBE_APISERVER": _script(directory / "kube-apiserver", control_plane),
        "KUBEBUILDER_CONTROLPLANE_START_TIMEOUT": "120s",
    }
    run = subprocess.run(
        [suite, "-test.v"],
        cwd=directory,
        env={**os.environ, **programs, "HOME": str(directory), "CONFORMANCE": json.dumps(settings)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    return run.stdout


def _script(path: Path, *command: str) -> str:
    path.write_text(f'#!/bin/sh\nexec {" ".join(command)} "$@"\n')
    path.chmod(0o755)
    return str(path)
