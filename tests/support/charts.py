"""
Renders the Helm charts: for their tests, and, as `make manifests`, into the plain manifests beside them.

`make manifests` also writes the service's own settings into the schema of the responder chart's values, so that Helm
finds a typo in them, too; and the version of the project into both charts.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from responder.config import Settings
from tests.support import gobuilt
from tests.support.places import ROOT

KUBERNETES = ROOT / "config" / "kubernetes"
CHARTS = KUBERNETES / "charts"
MANIFESTS = KUBERNETES / "manifests"

NAMES = ("responder", "responder-webhook")
"""The charts, and the releases that the plain manifests are made as."""

NAMESPACE = "responder"

KUBE_VERSION = "1.36.0"
"""That the charts are rendered for; none of their templates asks for it."""

OURS = {"DnsSettings": "listen", "ApiSettings": "listen", "AdminSettings": "listen", "DatabaseSettings": "url"}
"""The settings that the chart decides."""

OFF = {"ApiSettings": "tls", "DatabaseSettings": "listen_url"}
"""The settings that may be "off": YAML takes that for false where it is not in quotes."""

HEADING = "# Made by `make manifests` from charts/{chart}: change that, not this.\n"

Object = dict[str, Any]


def template(chart: str, *arguments: str, helm: str, release: str | None = None) -> str:
    """What `helm template` makes of *chart* as *release*. Raises `RuntimeError` with its words if it refuses."""
    command = [helm, "template", release or chart, str(CHARTS / chart)]
    command += ["--namespace", NAMESPACE, "--kube-version", KUBE_VERSION]
    values = MANIFESTS / f"{chart}.values.yaml"
    done = subprocess.run(
        [*command, *(["--values", str(values)] if values.exists() else []), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return done.stdout


def plain(chart: str, helm: str) -> str:
    """The plain manifest of *chart*."""
    return HEADING.format(chart=chart) + template(chart, helm=helm)


def described(chart: str) -> str:
    """The `Chart.yaml` of *chart*, with the version that `pyproject.toml` gives the project."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    text = re.sub(r"(?m)^version: .*", f"version: {version}", (CHARTS / chart / "Chart.yaml").read_text())
    return re.sub(r"(?m)^appVersion: .*", f'appVersion: "{version}"', text)


def load(text: str) -> list[Object]:
    """The objects of a manifest of several documents."""
    return [document for document in yaml.safe_load_all(text) if document is not None]


def rendered(helm: str, chart: str, *arguments: str) -> list[Object]:
    """The objects that Helm makes of *chart*, with these arguments."""
    return load(template(chart, *arguments, helm=helm))


def stored(chart: str) -> list[Object]:
    """The objects of the plain manifest of *chart*, as it lies there."""
    return load((MANIFESTS / f"{chart}.yaml").read_text())


def one(objects: list[Object], kind: str, name: str | None = None) -> Object:
    """The one object of this kind, and name if given."""
    (found,) = (each for each in objects if each["kind"] == kind and name in (None, each["metadata"]["name"]))
    return found


def pods(objects: list[Object]) -> list[Object]:
    """The specifications of all pods."""
    return [each["spec"]["template"]["spec"] for each in objects if each["kind"] in ("Deployment", "StatefulSet")]


def egress(objects: list[Object]) -> list[Object]:
    """Where the pods may connect to."""
    rules: list[Object] = one(objects, "NetworkPolicy")["spec"]["egress"]
    return rules


def values_schema() -> str:
    """The schema of the responder chart's values, with the settings as they are now."""
    schema = json.loads(SCHEMA.read_text())
    settings = Settings.model_json_schema(ref_template="#/definitions/{model}")
    definitions = {"Settings": settings, **settings.pop("$defs")}
    for model, key in OURS.items():
        del definitions[model]["properties"][key]
    for model, key in OFF.items():
        definitions[model]["properties"][key] = {"anyOf": [definitions[model]["properties"][key], {"enum": [False]}]}
    schema["definitions"] = {name: _bare(each) for name, each in sorted(definitions.items())}
    return json.dumps(schema, indent=2) + "\n"


SCHEMA = CHARTS / "responder" / "values.schema.json"


def _bare(schema: Any) -> Any:
    """A schema of the settings, less what is for others to read; what the values mean, the service checks itself."""
    match schema:
        case {"properties": dict(properties)}:
            kept = {name: _bare(each) for name, each in properties.items()}
            return _bare({key: value for key, value in schema.items() if key != "properties"}) | {"properties": kept}
        case dict():
            dropped = ("title", "default", "ge", "le", "description")
            return {key: _bare(value) for key, value in schema.items() if key not in dropped}
        case list():
            return [_bare(each) for each in schema]
        case _:
            return schema


def _write(files: Iterable[tuple[Path, str]]) -> None:
    for path, text in files:
        path.write_text(text)
        print(path.relative_to(KUBERNETES.parent.parent))


if __name__ == "__main__":
    helm = gobuilt.find("helm")
    if helm is None:
        sys.exit("helm is needed to render the charts")
    _write([(SCHEMA, values_schema())])
    _write([(CHARTS / chart / "Chart.yaml", described(chart)) for chart in NAMES])
    _write((MANIFESTS / f"{chart}.yaml", plain(chart, helm)) for chart in NAMES)
