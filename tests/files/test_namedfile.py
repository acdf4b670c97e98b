"""Files that people name: what is read of them, and what is said of those that cannot be read."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from responder.errors import Invalid
from responder.files import namedfile


def fault(path: Path, *, pipes: bool = False) -> str:
    with pytest.raises(Invalid) as caught:
        namedfile.read_text(path, 2048, pipes=pipes)
    return str(caught.value)


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def test_content(tmp_path: Path) -> None:
    """A file is read whole, and not touched."""
    file = tmp_path / "file"
    file.write_bytes("ä\r\n".encode() * 512)

    assert "ä\r\n" * 512 == namedfile.read_text(file, 2048)


def test_what_is_in_the_way(tmp_path: Path, pipe: Path) -> None:
    """One wording for all of it, which begins with the path."""
    long, binary, loop = tmp_path / "long", tmp_path / "binary", tmp_path / "loop"
    long.write_bytes(b"x" * 2049)
    binary.write_bytes(b"\xff")
    loop.symlink_to(loop)

    assert [
        f"{tmp_path}/none: cannot be read: no such file or directory",
        f"{tmp_path}: cannot be read: is a directory",
        f"{loop}: cannot be read: too many levels of symbolic links",
        f"{long}: cannot be read: it is longer than 2 KiB",
        f"{pipe}: cannot be read: it is not a file",
        "/dev/zero: cannot be read: it is not a file",
        f"{binary}: is not UTF-8 text",
    ] == [fault(path) for path in (tmp_path / "none", tmp_path, loop, long, pipe, Path("/dev/zero"), binary)]
    assert "/dev/zero: cannot be read: it is longer than 2 KiB" == fault(Path("/dev/zero"), pipes=True)


def test_a_device() -> None:
    """Where a pipe may be, so may a terminal, or what is empty for ever."""
    assert "" == namedfile.read_text(Path("/dev/null"), 2048, pipes=True)


def test_a_pipe(pipe: Path) -> None:
    """What a command writes into a pipe is read to its end."""

    def write() -> None:
        with pipe.open("wb", buffering=0) as file:
            file.write(b"one ")
            file.write(b"two")

    writer = threading.Thread(target=write)
    writer.start()

    assert "one two" == namedfile.read_text(pipe, 2048, pipes=True)
    writer.join()


def test_a_pipe_that_nobody_writes_into(pipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps nobody waiting for ever."""
    monkeypatch.setattr(namedfile, "PIPE_DEADLINE", 0.01)

    assert f"{pipe}: cannot be read: no process writes into it" == fault(pipe, pipes=True)
