"""Files that are there completely or not at all, with their mode from the first moment on."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from responder.errors import CannotStart


def check_writable(directory: Path) -> None:
    """See that files can be written in *directory*, which is made if it is not there. Raises `CannotStart`."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()
    except OSError as fault:
        raise CannotStart(f"cannot write in {directory}: {_reason(fault)}: choose another directory") from None


def write(path: Path, content: bytes, *, mode: int) -> None:
    """Put *content* in the place of whatever is at *path*. Raises `CannotStart`."""
    with _explaining(path), _written(path, content, mode) as temporary:
        temporary.rename(path)


def create(path: Path, content: bytes, *, mode: int) -> bool:
    """As `write`, but whatever is at *path* stays, and the answer is False. Raises `CannotStart`."""
    with _explaining(path), _written(path, content, mode) as temporary:
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            return False
    return True


@contextmanager
def _written(path: Path, content: bytes, mode: int) -> Iterator[Path]:
    """A file beside *path* with that *content*, on disk; gone afterwards, unless it was renamed."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def _explaining(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as fault:
        raise CannotStart(f"cannot write {path}: {_reason(fault)}") from None


def _reason(fault: OSError) -> str:
    return (fault.strerror or type(fault).__name__).lower()
