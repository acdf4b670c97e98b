"""The configuration of the last start that worked: what is kept of it, where, and what comes back."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from responder.config import Kept, Sources

URL = "postgresql+asyncpg://me:hunter2@host/responder"
SOURCES = Sources("/etc/responder/responder.toml", '[dns]\nnsid = "a"', {"RESPONDER_DNS__PROCESSES": "2"})


def kept(directory: Path, **variables: str) -> Kept:
    return Kept.of({"STATE_DIRECTORY": str(directory), **variables})


def test_what_is_kept(tmp_path: Path) -> None:
    """The text of the file and our variables, in a file for the service alone."""
    assert kept(tmp_path).read() is None

    kept(tmp_path).write(SOURCES)

    assert kept(tmp_path).read() == SOURCES
    (file,) = tmp_path.iterdir()
    assert 0o600 == stat.S_IMODE(file.stat().st_mode)


def test_the_url_of_the_database(tmp_path: Path) -> None:
    """A password that is in no file does not get into one: it is that of the environment, now as then."""
    variable = {"RESPONDER_DATABASE__URL": URL}
    sources = Sources(SOURCES.path, SOURCES.text, {**SOURCES.variables, **variable})

    kept(tmp_path, **variable).write(sources)

    assert "hunter2" not in (tmp_path / "last-configuration.json").read_text()
    assert kept(tmp_path, **variable).read() == sources
    assert kept(tmp_path).read() == SOURCES
    assert "hunter2" not in repr(kept(tmp_path, **variable)) + repr(sources)


def test_without_a_directory() -> None:
    """Where no service manager gives one, nothing is kept."""
    for environ in ({}, {"STATE_DIRECTORY": ""}):
        Kept.of(environ).write(SOURCES)

        assert Kept.of(environ).read() is None


def test_several_directories(tmp_path: Path) -> None:
    """Of several, as systemd may give, it is the first."""
    kept(tmp_path).write(SOURCES)

    assert Kept.of({"STATE_DIRECTORY": f"{tmp_path}:/nowhere"}).read() == SOURCES


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"path": "", "text": "", "variables": 5}'])
def test_what_is_damaged(tmp_path: Path, content: str) -> None:
    """What makes no sense is as nothing, and is replaced."""
    (tmp_path / "last-configuration.json").write_text(content)
    assert kept(tmp_path).read() is None

    kept(tmp_path).write(SOURCES)

    assert SOURCES.text == json.loads((tmp_path / "last-configuration.json").read_text())["text"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    """Whoever starts the service decides what that means."""
    with pytest.raises(OSError, match="No such file or directory"):
        kept(tmp_path / "nowhere").write(SOURCES)
