"""Files that are there completely or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from responder.certificate import atomic
from responder.errors import CannotStart


def test_write(tmp_path: Path) -> None:
    """A file takes the place of another one, with the mode that was asked for, and nothing is left beside it."""
    path = tmp_path / "file"
    path.write_text("old")

    atomic.write(path, b"new", mode=0o640)

    assert b"new" == path.read_bytes()
    assert 0o640 == stat.S_IMODE(path.stat().st_mode)
    assert [path] == list(tmp_path.iterdir())


def test_create(tmp_path: Path) -> None:
    """A file is created once; after that, what is there stays."""
    path = tmp_path / "file"

    assert atomic.create(path, b"first", mode=0o600)
    assert not atomic.create(path, b"second", mode=0o600)

    assert b"first" == path.read_bytes()
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert [path] == list(tmp_path.iterdir())


def test_what_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk or a missing directory is one line, the old file stays, and nothing is left beside it."""
    path, nowhere = tmp_path / "file", tmp_path / "none" / "file"
    path.write_text("old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)

    with pytest.raises(CannotStart, match=f"^cannot write {path}: no space left on device$"):
        atomic.write(path, b"new", mode=0o600)
    with pytest.raises(CannotStart, match=f"^cannot write {tmp_path}/other: no space left on device$"):
        atomic.create(tmp_path / "other", b"new", mode=0o600)
    with pytest.raises(CannotStart, match=f"^cannot write {nowhere}: no such file or directory$"):
        atomic.write(nowhere, b"new", mode=0o600)
    assert "old" == path.read_text()
    assert [path] == list(tmp_path.iterdir())


def test_check_writable(tmp_path: Path) -> None:
    """A directory is made if need be; one that cannot be is one line."""
    atomic.check_writable(tmp_path / "a" / "b")
    (tmp_path / "file").write_text("x")

    assert [] == list((tmp_path / "a" / "b").iterdir())
    with pytest.raises(CannotStart, match=f"^cannot write in {tmp_path}/file: file exists: choose another directory$"):
        atomic.check_writable(tmp_path / "file")
