"""
Schemas of Kubernetes objects: the API server's own, from the package kubernetes-validate, and those of cert-manager's
CRDs, from its Go module if that is on this machine. An unknown field is a fault in both.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

VERSIONS = ("1.27", "1.37")
"""The oldest and the newest Kubernetes that the charts are for."""

CERT_MANAGER = "github.com/cert-manager/cert-manager@v1.21.2"

Object = dict[str, Any]


def check(each: Object) -> None:
    """Fail unless *each* is what Kubernetes takes for its kind; objects of cert-manager are left to `check_crd`."""
    if not is_of_cert_manager(each):
        for version in VERSIONS:
            kubernetes_validate.validate(each, version, strict=True)


def is_of_cert_manager(each: Object) -> bool:
    return str(each["apiVersion"]).startswith("cert-manager.io/")


def check_crd(each: Object) -> None:
    """Fail unless *each* is what cert-manager's CRDs take. Skips the test where they cannot be had."""
    schema = _crds()[each["kind"]]
    # What cert-manager does not know, such as the solver of a webhook, it takes as it is.
    jsonschema.validate(each, _strict(schema | {"properties": schema["properties"] | {"metadata": {"type": "object"}}}))


def crds() -> list[Object]:
    """cert-manager's own CustomResourceDefinitions. Skips the test where they cannot be had."""
    directory = _module() / "deploy" / "crds"
    return [yaml.safe_load(path.read_text()) for path in sorted(directory.glob("*.yaml"))]


@cache
def _crds() -> dict[str, Any]:
    return {crd["spec"]["names"]["kind"]: crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for crd in crds()}


def _module() -> Path:
    go = shutil.which("go")
    if go is None:
        pytest.skip("go is not installed, and with it cert-manager's CRDs")
    cached = subprocess.run([go, "env", "GOMODCACHE"], capture_output=True, text=True, check=True).stdout.strip()
    directory = Path(cached) / CERT_MANAGER
    if not directory.exists():
        if os.environ.get("RESPONDER_REQUIRE_ALL") == "1":
            pytest.fail(f"{CERT_MANAGER} is not there, and RESPONDER_REQUIRE_ALL=1 asks for it: .ci/tools fetches it")
        pytest.skip(f"{CERT_MANAGER} is not there")
    return directory


def _strict(schema: Any) -> Any:
    """A schema of a CRD that refuses what the API server would drop."""
    match schema:
        case {"properties": dict(properties)}:
            strict = {name: _strict(each) for name, each in properties.items()}
            closed = {} if schema.get("x-kubernetes-preserve-unknown-fields") else {"additionalProperties": False}
            return {**schema, "properties": strict, **closed}
        case {"items": items}:
            return {**schema, "items": _strict(items)}
        case {"additionalProperties": dict(each)}:
            return {**schema, "additionalProperties": _strict(each)}
        case _:
            return schema
