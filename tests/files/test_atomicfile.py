"""Files that are there completely or not at all."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from responder.files import atomicfile


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_write(tmp_path: Path) -> None:
    """A file takes the place of another one, with the mode that was asked for, and nothing is left beside it."""
    path = tmp_path / "file"
    path.write_text("old")

    atomicfile.write(path, b"new", mode=0o640)

    assert b"new" == path.read_bytes()
    assert 0o640 == mode(path)
    assert [path] == list(tmp_path.iterdir())


def test_write_over_a_link(tmp_path: Path) -> None:
    """A symbolic link is replaced, and what it leads to is left alone."""
    path, other = tmp_path / "link", tmp_path / "other"
    other.write_text("precious")
    path.symlink_to(other)

    atomicfile.write(path, b"new")

    assert (b"new", "precious") == (path.read_bytes(), other.read_text())
    assert not path.is_symlink()


def test_create(tmp_path: Path) -> None:
    """A file is created once, for its owner alone; after that, what is there stays."""
    path = tmp_path / "file"

    assert atomicfile.create(path, b"first")
    assert not atomicfile.create(path, b"second")

    assert b"first" == path.read_bytes()
    assert 0o600 == mode(path)
    assert [path] == list(tmp_path.iterdir())


def test_create_where_a_link_leads_nowhere(tmp_path: Path) -> None:
    """A link that leads nowhere is something that is there."""
    path = tmp_path / "link"
    path.symlink_to("nowhere")

    assert not atomicfile.create(path, b"new")

    assert path.is_symlink()


def test_create_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system without them, nothing is made rather than something replaced."""

    def no_links(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)

    with pytest.raises(PermissionError):
        atomicfile.create(tmp_path / "file", b"new")

    assert [] == list(tmp_path.iterdir())


def test_what_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk or in a missing directory, the old file stays, and nothing is left beside it."""
    path = tmp_path / "file"
    path.write_text("old")

    with pytest.raises(FileNotFoundError):
        atomicfile.write(tmp_path / "none" / "file", b"new")

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)

    with pytest.raises(OSError, match="No space left on device"):
        atomicfile.write(path, b"new")
    with pytest.raises(OSError, match="No space left on device"):
        atomicfile.create(tmp_path / "other", b"new")
    assert "old" == path.read_text()
    assert [path] == list(tmp_path.iterdir())


def test_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content is on disk before the file is at its place, and its name before anybody is told."""
    seen: list[tuple[str, bool]] = []
    path, fsync = tmp_path / "file", os.fsync

    def spy(descriptor: int) -> None:
        kind = "directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        seen.append((kind, path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)

    atomicfile.create(path, b"new")
    path.unlink()
    atomicfile.write(path, b"new")

    assert [("file", False), ("directory", True)] * 2 == seen


KILLED = """
import os, signal, sys
from pathlib import Path
from responder.files import atomicfile

function, how, path = sys.argv[1:]

def end(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

setattr(os, function, end)
getattr(atomicfile, how)(Path(path), b"new" * 100_000)
"""


@pytest.mark.parametrize("how", ["write", "create"])
@pytest.mark.parametrize("function", ["fchmod", "fsync", "link", "rename", "replace"])
def test_killed(tmp_path: Path, function: str, how: str) -> None:
    """Whenever the process is killed, what was there is still there, or the new content is there, all of it."""
    path, before = tmp_path / "file", b"old" if how == "write" else None
    if before is not None:
        path.write_bytes(before)

    run = subprocess.run([sys.executable, "-c", KILLED, function, how, str(path)], check=False)

    assert run.returncode in (0, -signal.SIGKILL)
    after = path.read_bytes() if path.exists() else None
    assert after in ((before,) if run.returncode else (b"new" * 100_000,))
    assert all(0o600 == mode(left) for left in tmp_path.iterdir() if left != path)
    path.unlink(missing_ok=True)
    assert atomicfile.create(path, b"again"), "what the killed one left is in nobody's way"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_owner(tmp_path: Path) -> None:
    """What root makes is root's, unless it is to be of whoever has the directory."""
    os.chown(tmp_path, 65_534, 65_534)

    atomicfile.create(tmp_path / "mine", b"")
    atomicfile.create(tmp_path / "theirs", b"", of_directory=True)

    assert 0 == (tmp_path / "mine").stat().st_uid
    assert 65_534 == (tmp_path / "theirs").stat().st_uid
