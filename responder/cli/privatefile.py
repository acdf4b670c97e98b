"""A file for a secret: nobody else may read it, and it is complete or not there at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from responder.errors import InvalidRequest


@contextmanager
def private_file(path: Path, *, replace: bool) -> Iterator[Callable[[str], None]]:
    """
    Make ready to put a file at *path*, so that as little as possible can fail once its content exists, which the
    function that this gives then writes. Without *replace*, what is there stays.

    Raises `InvalidRequest`, then as now.
    """
    _check(path, replace=replace)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with _explaining(path):
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:

            def write(text: str) -> None:
                with _explaining(path):
                    file.write(text)
                    file.flush()
                    os.fsync(descriptor)
                    _move(draft, path, replace=replace)

            yield write
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()


def _check(path: Path, *, replace: bool) -> None:
    with _explaining(path):
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise InvalidRequest([f"--out {path}: is not a file: name one that may be made there"])
        if path.exists() and not replace:
            raise InvalidRequest([f"--out {path}: there is such a file already: add --force to replace it"])


def _move(draft: Path, path: Path, *, replace: bool) -> None:
    if not replace:
        try:
            os.link(draft, path)  # unlike a renaming, this leaves alone what somebody put there meanwhile
        except FileExistsError:
            raise
        except OSError:  # a file system that has no hard links
            _check(path, replace=False)
        else:
            return
    draft.replace(path)


@contextmanager
def _explaining(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidRequest(
            [f"--out {path}: cannot be written: {(error.strerror or 'no reason given').lower()}"]
        ) from None
