"""What makes the repository a project: one version everywhere, a changelog that has it, and a license."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

from tests.support.places import ROOT

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
