"""What makes the repository a project: one version everywhere, a changelog that has it, and a license."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from tests.support.places import ROOT
from tests.support.requirements import lacking

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_version_is_printed() -> None:
    """`responder --version` prints the version that `pyproject.toml` sets."""
    done = subprocess.run(
        [sys.executable, "-m", "responder", "--version"], capture_output=True, text=True, check=True, timeout=60
    )

    assert f"responder, version {PROJECT['version']}\n" == done.stdout


def test_changelog_has_the_version() -> None:
    """The changelog starts with what is unreleased, then has this version, and a link for each of its versions."""
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[([^]]+)\]", text, re.MULTILINE)

    assert ["Unreleased", PROJECT["version"]] == versions[:2]
    assert versions == re.findall(r"^\[([^]]+)\]: https://", text, re.MULTILINE)


def test_license_is_the_one_that_is_named() -> None:
    """The file holds the whole text of the license that the metadata names."""
    text = (ROOT / "LICENSE").read_text()

    assert "Apache-2.0" == PROJECT["license"]
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_what_a_release_consists_of(tmp_path: Path) -> None:
    """`make dist` makes a wheel with license and migrations, and a list of every locked package with its hashes."""
    if not (ROOT / ".venv-release" / "installed").exists():
        lacking("the tools of `make dist` are not installed (make .venv-release/installed)")
    subprocess.run(["make", "--silent", "dist", f"DIST={tmp_path}"], cwd=ROOT, check=True, timeout=300)

    (wheel,) = tmp_path.glob("*.whl")
    held = zipfile.ZipFile(wheel).namelist()
    assert f"acme_responder-{PROJECT['version']}.dist-info/licenses/LICENSE" in held
    assert "responder/migrations/env.py" in held
    listed = json.loads((tmp_path / "sbom.cdx.json").read_text())
    assert PROJECT["version"] == listed["metadata"]["component"]["version"]
    locked = re.findall(r"^([a-z0-9-]+)(?:\[[a-z,]+\])?==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert sorted(locked) == sorted((each["name"], each["version"]) for each in listed["components"])
    assert all(each["externalReferences"][0]["hashes"] for each in listed["components"])
